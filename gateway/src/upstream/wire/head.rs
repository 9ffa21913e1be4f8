//! The head of an answer, from the bytes on the connection (RFC 9112 section 4).

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use httparse::Status;
use hyper::ext::ReasonPhrase;

use super::decode::Decoder;
use super::fault::HeadFault;
use super::maps;
use crate::normalise::{self, Length};

/// Bytes of a response head.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Fields of a response head.
const FIELDS_MAX: usize = 100;
/// Room for what the gateway says beside the instance: `x-request-id`, limits. A map that grows
/// hashes every name again.
const FIELDS_ADDED: usize = 3;
/// What every answer begins with.
const PREFIX: &[u8] = b"HTTP/1.";

/// An answer's head, and what it says of the connection.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) response: Response<Decoder>,
    /// The connection may serve another request after this one.
    pub(super) keeps_alive: bool,
}

/// Takes the head of the answer to a request of `method` from the front of `input`, once it is
/// whole. Interim answers (RFC 9110 section 15.2) are passed over. `searched` bytes were looked at
/// before.
pub(super) fn read(
    input: &mut BytesMut,
    searched: &mut usize,
    method: &Method,
) -> Result<Option<Answered>, HeadFault> {
    loop {
        let known = PREFIX.len().min(input.len());
        if input[..known] != PREFIX[..known] {
            return Err(HeadFault::Syntax(httparse::Error::Version));
        }
        let Some(end) = find_end(input, searched) else {
            return match input.len() {
                HEAD_BYTES_MAX.. => Err(HeadFault::TooLarge),
                _ => Ok(None),
            };
        };
        if end > HEAD_BYTES_MAX {
            return Err(HeadFault::TooLarge);
        }
        *searched = 0;
        let head = input.split_to(end).freeze();
        let answered = parse(&head, method)?;
        if answered.is_some() {
            return Ok(answered);
        }
    }
}

/// The position after the first empty line. `searched` bytes are known to hold no end of one.
pub(super) fn find_end(bytes: &[u8], searched: &mut usize) -> Option<usize> {
    for at in memchr::memchr_iter(b'\n', &bytes[*searched..]) {
        let after = *searched + at + 1;
        match bytes[after..] {
            [b'\n', ..] => return Some(after + 1),
            [b'\r', b'\n', ..] => return Some(after + 2),
            _ => {}
        }
    }
    // The last line end may be the one before the empty line.
    *searched = bytes.len().saturating_sub(2);
    None
}

/// Reads a whole head; nothing if it is an interim one.
fn parse(head: &Bytes, method: &Method) -> Result<Option<Answered>, HeadFault> {
    let mut lines = [httparse::EMPTY_HEADER; 0];
    let mut parsed = httparse::Response::new(&mut lines);
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; FIELDS_MAX];
    let whole = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, head, &mut lines)
        .map_err(HeadFault::Syntax)?;
    let (Status::Complete(length), Some(code)) = (whole, parsed.code) else {
        return Err(HeadFault::Syntax(httparse::Error::NewLine));
    };
    // Nothing may stand between what `httparse` and we take for the end.
    if length != head.len() {
        return Err(HeadFault::Syntax(httparse::Error::NewLine));
    }
    let status =
        StatusCode::from_u16(code).map_err(|_| HeadFault::Syntax(httparse::Error::Status))?;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(None);
    }
    let version = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let mut response = Response::new(Decoder::Ended);
    *response.status_mut() = status;
    *response.version_mut() = version;
    let room = parsed.headers.len() + FIELDS_ADDED;
    *response.headers_mut() = maps::take(room);
    let headers = response.headers_mut();
    let wish = add_fields(headers, parsed.headers, head)?;
    let length = normalise::response_length(headers).map_err(|_| HeadFault::Framing)?;
    let body = framing(status, version, method, length)?;
    if let Some(reason) = parsed
        .reason
        .filter(|it| Some(*it) != status.canonical_reason())
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let keeps_alive = match wish {
        Wish::None => version == Version::HTTP_11,
        Wish::KeepAlive => true,
        Wish::Close => false,
    };
    *response.body_mut() = body;
    Ok(Some(Answered {
        response,
        keeps_alive: keeps_alive
            && body != Decoder::UntilClose
            && status != StatusCode::SWITCHING_PROTOCOLS,
    }))
}

/// How the body of an answer is framed (RFC 9112 section 6.3).
fn framing(
    status: StatusCode,
    version: Version,
    method: &Method,
    length: Option<Length>,
) -> Result<Decoder, HeadFault> {
    // In HTTP/1.0 there are no chunks: who reads them there reads them by guess.
    if version == Version::HTTP_10 && length == Some(Length::Chunked) {
        return Err(HeadFault::Framing);
    }
    let bodiless = matches!(
        status,
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    Ok(match length {
        _ if bodiless || *method == Method::HEAD => Decoder::Ended,
        Some(Length::Exact(bytes)) => Decoder::sized(bytes),
        Some(Length::Chunked) => Decoder::CHUNKED,
        None => Decoder::UntilClose,
    })
}

/// What an answer says of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    None,
    KeepAlive,
    Close,
}

/// Adds the fields of a head or trailer section; they point into `section`.
pub(super) fn add_fields(
    fields: &mut HeaderMap,
    lines: &[httparse::Header<'_>],
    section: &Bytes,
) -> Result<Wish, HeadFault> {
    let mut wish = Wish::None;
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes())
            .map_err(|_| HeadFault::Syntax(httparse::Error::HeaderName))?;
        let value = HeaderValue::from_maybe_shared(section.slice_ref(line.value))
            .map_err(|_| HeadFault::Syntax(httparse::Error::HeaderValue))?;
        if name == CONNECTION {
            wish = wish.max(wished(&value));
        }
        fields
            .try_append(name, value)
            .map_err(|_| HeadFault::TooLarge)?;
    }
    Ok(wish)
}

/// The options of a `Connection` field that concern the connection itself (RFC 9112 section 9.3).
fn wished(value: &HeaderValue) -> Wish {
    let options = value.as_bytes().split(|byte| *byte == b',');
    let wish = |option: &[u8]| match option.trim_ascii() {
        option if option.eq_ignore_ascii_case(b"close") => Wish::Close,
        option if option.eq_ignore_ascii_case(b"keep-alive") => Wish::KeepAlive,
        _ => Wish::None,
    };
    options.map(wish).max().unwrap_or(Wish::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to a GET in these bytes, and what is left over.
    fn answer(method: &Method, bytes: &[u8]) -> Result<Option<(Answered, usize)>, HeadFault> {
        let mut input = BytesMut::from(bytes);
        let found = read(&mut input, &mut 0, method)?;
        Ok(found.map(|answered| (answered, input.len())))
    }

    #[test]
    fn answers_say_where_they_end_and_what_becomes_of_the_connection() {
        let (chunked, close) = (Decoder::CHUNKED, Decoder::UntilClose);
        let (get, head) = (Method::GET, Method::HEAD);
        // The method, the answer, its status, its body, whether the connection is kept.
        let table: [(&Method, &str, u16, Decoder, bool); 20] = [
            (&get, "HTTP/1.1 200 OK\r\n\r\n", 200, close, false),
            (&get, "HTTP/1.1 200 OK\n\n", 200, close, false),
            (
                &get,
                "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
                200,
                Decoder::Ended,
                true,
            ),
            (
                &get,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                200,
                Decoder::Sized(5),
                true,
            ),
            (
                &get,
                "HTTP/1.1 200 OK\r\nContent-Length:  005 \r\n\r\n",
                200,
                Decoder::Sized(5),
                true,
            ),
            (
                &get,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                200,
                chunked,
                true,
            ),
            (
                &head,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                200,
                Decoder::Ended,
                true,
            ),
            (
                &head,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                200,
                Decoder::Ended,
                true,
            ),
            (
                &get,
                "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
                204,
                Decoder::Ended,
                true,
            ),
            (
                &get,
                "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n",
                304,
                Decoder::Ended,
                true,
            ),
            (
                &get,
                "HTTP/1.1 101 Up\r\nUpgrade: x\r\n\r\n",
                101,
                Decoder::Ended,
                false,
            ),
            (
                &get,
                "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 See\r\nLink: a\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
                204,
                Decoder::Ended,
                true,
            ),
            (
                &get,
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
                200,
                Decoder::Sized(5),
                false,
            ),
            (
                &get,
                "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\n",
                200,
                Decoder::Sized(5),
                true,
            ),
            (
                &get,
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
                200,
                close,
                false,
            ),
            (
                &get,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
                200,
                Decoder::Sized(5),
                false,
            ),
            (
                &get,
                "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\n",
                200,
                Decoder::Sized(5),
                false,
            ),
            (
                &get,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n",
                200,
                Decoder::Sized(5),
                false,
            ),
            (
                &get,
                "HTTP/1.1 200 OK\r\nConnection: closed\r\nContent-Length: 5\r\n\r\n",
                200,
                Decoder::Sized(5),
                true,
            ),
            (
                &get,
                "HTTP/1.1 599 Odd\r\nContent-Length: 5\r\n\r\n",
                599,
                Decoder::Sized(5),
                true,
            ),
        ];
        for (method, bytes, status, body, kept) in table {
            let (answered, left) = answer(method, bytes.as_bytes()).unwrap().unwrap();
            let found = (
                answered.response.status().as_u16(),
                *answered.response.body(),
                answered.keeps_alive,
                left,
            );
            assert_eq!(found, (status, body, kept, 0), "{method} {bytes:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let framing = HeadFault::Framing;
        let syntax = HeadFault::Syntax;
        use httparse::Error;
        let table = [
            ("no http", syntax(Error::Version)),
            ("h", syntax(Error::Version)),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", syntax(Error::Version)),
            ("HTTP/2.0 200 OK\r\n\r\n", syntax(Error::Version)),
            ("HTTP/1.2 200 OK\r\n\r\n", syntax(Error::Version)),
            ("HTTP/1.1 20 OK\r\n\r\n", syntax(Error::Status)),
            ("HTTP/1.1 099 OK\r\n\r\n", syntax(Error::Status)),
            (
                "HTTP/1.1 200 OK\r\nA : 1\r\n\r\n",
                syntax(Error::HeaderName),
            ),
            (
                "HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n",
                syntax(Error::HeaderName),
            ),
            (
                "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
                syntax(Error::HeaderValue),
            ),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                framing,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                framing,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                framing,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                framing,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", framing),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                framing,
            ),
        ];
        for (bytes, fault) in table {
            let found = answer(&Method::GET, bytes.as_bytes());
            assert_eq!(found.map(drop).unwrap_err(), fault, "{bytes:?}");
        }
    }

    #[test]
    fn heads_may_come_in_any_pieces() {
        let bytes =
            b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 Fine\r\nX-A: a\r\nContent-Length: 2\r\n\r\nok";
        for step in 1..bytes.len() {
            let (mut input, mut searched) = (BytesMut::new(), 0);
            let mut pieces = bytes.chunks(step);
            let answered = loop {
                input.extend_from_slice(pieces.next().unwrap());
                if let Some(found) = read(&mut input, &mut searched, &Method::GET).unwrap() {
                    break found.response;
                }
            };
            assert_eq!(answered.headers()["x-a"], "a", "by {step}");
            assert_eq!(*answered.body(), Decoder::Sized(2), "by {step}");
            let reason = answered.extensions().get::<ReasonPhrase>().unwrap();
            assert_eq!(reason.as_bytes(), b"Fine", "by {step}");
        }
    }

    #[test]
    fn heads_have_a_size_and_a_number_of_fields() {
        let start = "HTTP/1.1 204 No\r\n";
        let sized = |bytes: usize| {
            let value = "x".repeat(bytes - start.len() - "a:\r\n\r\n".len());
            format!("{start}a:{value}\r\n\r\n")
        };
        let fields = |count: usize| format!("{start}{}\r\n", "a: 1\r\n".repeat(count));
        let many = HeadFault::Syntax(httparse::Error::TooManyHeaders);
        let table = [
            (sized(HEAD_BYTES_MAX), None),
            (sized(HEAD_BYTES_MAX + 1), Some(HeadFault::TooLarge)),
            (fields(FIELDS_MAX), None),
            (fields(FIELDS_MAX + 1), Some(many)),
        ];
        for (bytes, fault) in table {
            let found = answer(&Method::GET, bytes.as_bytes());
            assert_eq!(found.map(drop).err(), fault, "{} bytes", bytes.len());
        }
        // Without an end in sight it ends there, too.
        let endless = vec![b'x'; HEAD_BYTES_MAX - start.len()];
        let endless = [start.as_bytes(), &endless].concat();
        assert!(
            answer(&Method::GET, &endless[1..]).is_err(),
            "another beginning"
        );
        assert_eq!(
            answer(&Method::GET, &endless[..endless.len() - 1]).map(drop),
            Ok(())
        );
        assert_eq!(
            answer(&Method::GET, &endless).map(drop),
            Err(HeadFault::TooLarge)
        );
    }
}
