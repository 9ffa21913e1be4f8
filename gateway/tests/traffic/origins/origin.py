"""Passes on what Python's own HTTP server has read: `python3 origin.py PORT PORT_BEHIND`."""

import http.client
import http.server
import sys

PORT, BEHIND = int(sys.argv[1]), int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.pass_on
        raise AttributeError(name)

    def pass_on(self):
        body = self.read_body()
        report = http.client.HTTPConnection("127.0.0.1", BEHIND)
        report.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        report.putheader("Host", "test")
        report.putheader("Content-Length", str(len(body)))
        report.endheaders(body)
        report.getresponse().read()
        report.close()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def read_body(self):
        if "transfer-encoding" not in self.headers:
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
