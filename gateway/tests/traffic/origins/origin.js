// Passes on what Node's own HTTP server has read: `node origin.js PORT PORT_BEHIND`.
const http = require("http");
const [port, behind] = process.argv.slice(2).map(Number);

http
  .createServer((request, response) => {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      const body = Buffer.concat(pieces);
      const report = http.request({
        host: "127.0.0.1",
        port: behind,
        agent: false,
        method: request.method,
        path: request.url,
        headers: { Host: "test", "Content-Length": body.length },
      });
      report.on("response", (answer) => {
        answer.resume();
        answer.on("end", () => response.end());
      });
      report.end(body);
    });
  })
  .listen(port, "127.0.0.1");
