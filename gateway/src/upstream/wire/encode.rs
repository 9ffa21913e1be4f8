//! The head of a request, and the trailers behind its body, as bytes (RFC 9112).

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};
use http_body::Body as _;

use crate::forward::body::RequestBody;

/// Room for a request line and a few fields, and for each further field.
const LINE_BYTES: usize = 128;
const FIELD_BYTES: usize = 48;

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// So many bytes are left.
    Sized(u64),
    Chunked,
}

impl Encoding {
    /// How the body is framed. `None`: there is no body.
    pub(super) fn of(body: &RequestBody) -> Option<Self> {
        if body.is_end_stream() {
            return None;
        }
        let length = body.size_hint().exact();
        Some(length.map_or(Self::Chunked, Self::Sized))
    }
}

/// Writes the head of a request (RFC 9112 section 3). It says how the body is framed; where there
/// is none, a method that expects one is told so (RFC 9110 section 8.6).
pub(super) fn write(head: &Parts, encoding: Option<Encoding>, out: &mut Vec<u8>) {
    out.reserve(LINE_BYTES + head.headers.len() * FIELD_BYTES);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.uri.path_and_query();
    out.extend_from_slice(target.map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    match encoding {
        None if !matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => {}
        None if head.headers.contains_key(CONTENT_LENGTH) => {}
        None => write_field(&CONTENT_LENGTH, b"0", out),
        Some(Encoding::Sized(length)) => {
            let mut digits = itoa::Buffer::new();
            write_field(&CONTENT_LENGTH, digits.format(length).as_bytes(), out);
        }
        Some(Encoding::Chunked) => write_field(&TRANSFER_ENCODING, b"chunked", out),
    }
    for (name, value) in &head.headers {
        if encoding.is_none() || *name != CONTENT_LENGTH {
            write_field(name, value.as_bytes(), out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a trailer section with the empty line after it.
pub(super) fn write_trailers(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        write_field(name, value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_say_whether_there_is_a_body() {
        let sized = |length| Some(Encoding::Sized(length));
        let chunked = Some(Encoding::Chunked);
        // Method, target, the length in the head, the framing, and what is written.
        type Case<'a> = (Method, &'a str, Option<&'a str>, Option<Encoding>, &'a str);
        let table: [Case<'_>; 9] = [
            (Method::GET, "/", None, None, "GET / HTTP/1.1\r\n\r\n"),
            (
                Method::GET,
                "/a?b=c",
                None,
                chunked,
                "GET /a?b=c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
            (
                Method::OPTIONS,
                "*",
                None,
                None,
                "OPTIONS * HTTP/1.1\r\n\r\n",
            ),
            (
                Method::DELETE,
                "/",
                Some("0"),
                None,
                "DELETE / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                Method::POST,
                "/",
                None,
                None,
                "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                Method::POST,
                "/",
                Some("0"),
                None,
                "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                Method::POST,
                "/",
                Some("7"),
                sized(7),
                "POST / HTTP/1.1\r\ncontent-length: 7\r\n\r\n",
            ),
            (
                Method::POST,
                "/",
                None,
                sized(7),
                "POST / HTTP/1.1\r\ncontent-length: 7\r\n\r\n",
            ),
            (
                Method::PUT,
                "/",
                Some("7"),
                chunked,
                "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
        ];
        for (method, target, length, encoding, expected) in table {
            let mut request = http::Request::builder().method(method).uri(target);
            if let Some(length) = length {
                request = request.header(CONTENT_LENGTH, length);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            let mut written = Vec::new();
            write(&head, encoding, &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }
}
