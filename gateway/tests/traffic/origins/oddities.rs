//! The odd requests: one to three oddities each, picked by a seed.
//!
//! A case is one connection: often a plain request first, then the odd one, then a plain one that
//! asks to close. Who reads the odd one differently loses or invents a request here.

/// The bytes of one connection.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) bytes: Vec<u8>,
}

impl Case {
    pub(super) fn text(&self) -> String {
        self.bytes.escape_ascii().to_string()
    }
}

/// A request in parts, each of which an oddity may change.
struct Message {
    line: String,
    fields: Vec<String>,
    /// Ends each line of the head.
    end: &'static str,
    body: String,
}

type Change = fn(&mut Message);

/// A request with a body of stated length.
fn sized(index: usize) -> Message {
    let body = format!("sized body {index}");
    Message {
        line: format!("POST /odd/{index} HTTP/1.1"),
        fields: vec![
            "Host: test".into(),
            format!("Content-Length: {}", body.len()),
        ],
        end: "\r\n",
        body,
    }
}

/// A request with a chunked body.
fn chunked(index: usize) -> Message {
    let data = format!("chunk of {index}");
    Message {
        line: format!("PUT /odd/{index}?q=1 HTTP/1.1"),
        fields: vec!["Host: test".into(), "Transfer-Encoding: chunked".into()],
        end: "\r\n",
        body: format!("{:x}\r\n{data}\r\n3\r\nend\r\n0\r\n\r\n", data.len()),
    }
}

/// A request without a body.
fn bare(index: usize) -> Message {
    Message {
        line: format!("GET /odd/{index}/%7Ex HTTP/1.1"),
        fields: vec!["Host: test".into(), "Accept: */*".into()],
        end: "\r\n",
        body: String::new(),
    }
}

fn field(message: &mut Message, line: &str) {
    message.fields.push(line.to_owned());
}

fn first_field(message: &mut Message, line: &str) {
    message.fields.insert(0, line.to_owned());
}

/// Changes the first field with this name.
fn rename(message: &mut Message, name: &str, to: &str) {
    for line in &mut message.fields {
        if let Some(rest) = line.strip_prefix(name) {
            *line = format!("{to}{rest}");
            return;
        }
    }
}

fn in_body(message: &mut Message, from: &str, to: &str) {
    message.body = message.body.replacen(from, to, 1);
}

fn in_line(message: &mut Message, from: &str, to: &str) {
    message.line = message.line.replacen(from, to, 1);
}

/// What is done to a request. Each stands alone; two or three together make the worst of them.
const CHANGES: &[Change] = &[
    // Lengths.
    |m| field(m, "Content-Length: 0"),
    |m| field(m, "Content-Length: 5"),
    |m| first_field(m, "Content-Length: 5"),
    |m| field(m, "content-length: 12"),
    |m| field(m, "Content-Length: +5"),
    |m| field(m, "Content-Length: 5, 5"),
    |m| field(m, "Content-Length: 0x5"),
    |m| field(m, "Content-Length:"),
    |m| field(m, "Content-Length: 5 "),
    |m| field(m, "Content-Length: 05"),
    |m| field(m, "Content-Length\t: 5"),
    |m| field(m, "Content_Length: 5"),
    |m| field(m, " Content-Length: 5"),
    |m| field(m, "Content-Length: 18446744073709551621"),
    |m| rename(m, "Content-Length: ", "Content-Length:"),
    |m| rename(m, "Content-Length: ", "Content-Length: \t "),
    |m| rename(m, "Content-Length: ", "content-LENGTH: 00"),
    |m| rename(m, "Content-Length:", "X-Length:"),
    // Codings.
    |m| field(m, "Transfer-Encoding: chunked"),
    |m| first_field(m, "Transfer-Encoding: chunked"),
    |m| field(m, "Transfer-Encoding: identity"),
    |m| field(m, "Transfer-Encoding: gzip, chunked"),
    |m| field(m, "Transfer-Encoding: chunked, identity"),
    |m| field(m, "Transfer-Encoding:\tchunked"),
    |m| field(m, "Transfer-Encoding: \"chunked\""),
    |m| field(m, "Transfer-Encoding: xchunked"),
    |m| field(m, "Transfer-Encoding : chunked"),
    |m| field(m, "Transfer_Encoding: chunked"),
    |m| field(m, "X: y\nTransfer-Encoding: chunked"),
    |m| field(m, "X: y\rTransfer-Encoding: chunked"),
    |m| field(m, "Transfer-Encoding\r\n : chunked"),
    |m| field(m, "Transfer-Encoding:\r\n chunked"),
    |m| field(m, "Foo: bar\r\n Transfer-Encoding: chunked"),
    |m| rename(m, "Transfer-Encoding: ", "transfer-encoding:"),
    |m| {
        rename(
            m,
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: CHUNKED",
        )
    },
    |m| {
        rename(
            m,
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: chunked \t",
        )
    },
    |m| rename(m, "Transfer-Encoding:", "X-Coding:"),
    |m| field(m, "TE: trailers, chunked"),
    |m| field(m, "Trailer: X-Sum"),
    // Chunks.
    |m| in_body(m, "3\r\n", "03\r\n"),
    |m| in_body(m, "3\r\n", "3;ext=1\r\n"),
    |m| in_body(m, "3\r\n", "3;ext=\"a\nb\"\r\n"),
    |m| in_body(m, "3\r\n", "3 \r\n"),
    |m| in_body(m, "3\r\n", "0x3\r\n"),
    |m| in_body(m, "3\r\n", "3\n"),
    |m| in_body(m, "3\r\n", "-3\r\n"),
    |m| in_body(m, "3\r\n", "00000000000000003\r\n"),
    |m| in_body(m, "3\r\n", "100000003\r\n"),
    |m| in_body(m, "end\r\n", "end\n"),
    |m| in_body(m, "end\r\n", "end"),
    |m| in_body(m, "end\r\n", "end and more\r\n"),
    |m| in_body(m, "0\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n"),
    |m| in_body(m, "0\r\n\r\n", "0\r\nContent-Length: 1\r\n\r\n"),
    |m| in_body(m, "0\r\n\r\n", "0\r\nHost: evil\r\n\r\n"),
    |m| in_body(m, "0\r\n\r\n", "0\r\n X: folded\r\n\r\n"),
    |m| in_body(m, "0\r\n\r\n", "000\r\n\r\n"),
    |m| in_body(m, "0\r\n\r\n", "0\r\n\n"),
    |m| in_body(m, "0\r\n\r\n", "0\n\n"),
    |m| in_body(m, "body", "GET /inner HTTP/1.1\r\nHost: test\r\n\r\n"),
    // Request lines.
    |m| in_line(m, " HTTP/1.1", " HTTP/1.0"),
    |m| in_line(m, " HTTP/1.1", " HTTP/1.2"),
    |m| in_line(m, " HTTP/1.1", " HTTP/2.0"),
    |m| in_line(m, " HTTP/1.1", "  HTTP/1.1"),
    |m| in_line(m, " HTTP/1.1", " http/1.1"),
    |m| in_line(m, " HTTP/1.1", ""),
    |m| in_line(m, " /", " http://test/"),
    |m| in_line(m, " /", " http://other/"),
    |m| in_line(m, " /", "\t/"),
    |m| in_line(m, "/odd", "//odd"),
    |m| in_line(m, "/odd", "/x/../odd"),
    |m| in_line(m, "/odd", "/x/%2e%2e/odd"),
    |m| in_line(m, "/odd", "/x%2F..%2Fodd"),
    |m| in_line(m, "/odd", "/o%64d"),
    |m| in_line(m, "/odd", "/\\odd"),
    |m| in_line(m, "/odd", "/odd;a=b"),
    |m| in_line(m, "/odd", "/odd#x"),
    |m| in_line(m, "/odd", "/odd%00"),
    |m| in_line(m, "/odd", "/odd%c0%ae"),
    |m| in_line(m, "/odd", "/odd{|}"),
    |m| in_line(m, "/odd", "/odd%"),
    |m| in_line(m, "POST", "PATCH"),
    |m| in_line(m, "GET", "HEAD"),
    |m| in_line(m, "GET", "OPTIONS"),
    |m| in_line(m, "GET", "\r\n\r\nGET"),
    |m| in_line(m, "PUT", "\nPUT"),
    // Hosts.
    |m| rename(m, "Host: test", "Host: other\r\nHost: test"),
    |m| rename(m, "Host: test", "Host: test."),
    |m| rename(m, "Host: test", "Host: TEST:80"),
    |m| rename(m, "Host: test", "Host: a@test"),
    |m| rename(m, "Host: test", "Host: test/x"),
    |m| rename(m, "Host: test", "Host: [::1]:80"),
    |m| rename(m, "Host: test", "Host:"),
    |m| rename(m, "Host: test", "X-Host: test"),
    // Fields.
    |m| field(m, "X_Forwarded_For: 1.2.3.4"),
    |m| field(m, "X-Odd: a\0b"),
    |m| field(m, "X-Odd: \u{e9}"),
    |m| field(m, "X-Odd\u{e9}: a"),
    |m| field(m, "X(Odd): a"),
    |m| field(m, ": empty"),
    |m| field(m, "no colon"),
    |m| field(m, "X-Empty:"),
    |m| field(m, "Expect: 100-continue"),
    |m| field(m, "Expect: the-unexpected"),
    |m| field(m, "Connection: close, Content-Length"),
    |m| field(m, "Connection: Transfer-Encoding"),
    |m| field(m, "Connection: keep-alive, Host"),
    |m| {
        field(
            m,
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        )
    },
    |m| field(m, "Upgrade: echo\r\nConnection: Upgrade"),
    |m| field(m, "Cookie: a=1\r\nCookie: b=2"),
    |m| field(m, "Keep-Alive: timeout=1"),
    // Line ends.
    |m| m.end = "\n",
    |m| m.end = "\r\r\n",
];

/// `count` cases, the same for the same seed.
pub(super) fn cases(count: usize, seed: u64) -> Vec<Case> {
    let mut random = Random(seed);
    // First each oddity by itself, on each kind of request; then mixtures.
    let alone = CHANGES.len() * 3;
    let case = |index: usize| {
        let mut message = [sized, chunked, bare][index % 3](index);
        if index < alone {
            CHANGES[index / 3](&mut message);
        } else {
            for _ in 0..2 + random.below(2) {
                CHANGES[random.below(CHANGES.len())](&mut message);
            }
        }
        connection(&message, index, index % 2 == 1)
    };
    (0..count).map(case).collect()
}

/// Spellings of one path.
pub(super) fn paths() -> Vec<Case> {
    let paths = [
        "/a/../b",
        "/a/./b",
        "/a//b",
        "//a",
        "/a/b/..",
        "/a/%2e%2e/b",
        "/%2e/a",
        "/a/b/%2E%2E/",
        "/../a",
        "/a/../../b",
        "/a//../b",
        "/a/;/b",
        "/a/..;/b",
        "/a;x=../b",
        "/a\\b",
        "/a%5c..%5cb",
        "/a%5Cb",
        "/a%2fb",
        "/%61",
        "/a%20b",
        "/a+b",
        "/a%2Bb",
        "/%C3%A9",
        "/a%25b",
        "/a%252e",
        "/a|b",
        "/a\"b",
        "/a{b}",
        "/a[b]",
        "/a^b",
        "/a:b",
        "/a@b",
        "/a,b",
        "/a=b",
        "/a&b",
        "/a!b$c'(d)*",
        "/~a",
        "/a/",
        "/a//",
        "/a/.",
        "/a...",
        "/.a",
        "/a./b",
        "/a?x=/../y",
        "/a?x=//",
        "/a?x=%00",
        "/a?",
    ];
    let case = |(index, path): (usize, &&str)| {
        let mut message = bare(index);
        message.line = format!("GET {path} HTTP/1.1");
        connection(&message, index, false)
    };
    paths.iter().enumerate().map(case).collect()
}

/// One plain request.
pub(super) fn plain(path: &str) -> Case {
    let text = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    Case {
        bytes: text.into_bytes(),
    }
}

fn connection(message: &Message, index: usize, plain_first: bool) -> Case {
    let mut text = String::new();
    if plain_first {
        text.push_str(&format!(
            "GET /first/{index} HTTP/1.1\r\nHost: test\r\n\r\n"
        ));
    }
    text.push_str(&message.line);
    text.push_str(message.end);
    for line in &message.fields {
        text.push_str(line);
        text.push_str(message.end);
    }
    text.push_str(message.end);
    text.push_str(&message.body);
    text.push_str(&format!(
        "GET /end/{index} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    ));
    Case {
        bytes: text.into_bytes(),
    }
}

/// Marsaglia's xorshift: all that is asked of it is to be the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
