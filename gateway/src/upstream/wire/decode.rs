//! The body of an answer, from the bytes on the connection (RFC 9112 sections 6 and 7).

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use httparse::Status;

use super::fault::{BodyFault, HeadFault};
use super::head;

/// The line before a chunk, with its extensions.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;
/// A trailer section, and fields of it. What the gateway passes on has limits of its own.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
const TRAILERS_MAX: usize = 100;

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// So many bytes.
    Sized(u64),
    /// Chunks.
    Chunked(Chunk),
    /// Everything up to the end of the connection.
    UntilClose,
    /// Nothing.
    Ended,
}

/// Where in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Before its line.
    Line,
    /// So many bytes of its data are left.
    Data(u64),
    /// Before the line end after its data.
    End,
    /// After the last chunk.
    Trailers,
}

/// What a look at the bytes gives.
#[derive(Debug)]
pub(super) enum Decoded {
    Frame(Frame<Bytes>),
    Ended,
    /// More bytes are needed.
    More,
}

impl Decoder {
    /// A body of so many bytes.
    pub(super) fn sized(bytes: u64) -> Self {
        match bytes {
            0 => Self::Ended,
            bytes => Self::Sized(bytes),
        }
    }

    /// A body in chunks.
    pub(super) const CHUNKED: Self = Self::Chunked(Chunk::Line);

    pub(crate) fn is_ended(self) -> bool {
        self == Self::Ended
    }

    /// What is known of the length of the rest.
    pub(crate) fn size_hint(self) -> SizeHint {
        match self {
            Self::Sized(left) => SizeHint::with_exact(left),
            Self::Ended => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose => SizeHint::new(),
        }
    }

    /// Takes the next piece from the front of `input`.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, BodyFault> {
        loop {
            return Ok(match *self {
                Self::Ended => Decoded::Ended,
                _ if input.is_empty() => Decoded::More,
                Self::Sized(left) => {
                    let data = take(input, left);
                    *self = Self::sized(left - data.len() as u64);
                    Decoded::Frame(Frame::data(data))
                }
                Self::UntilClose => Decoded::Frame(Frame::data(input.split().freeze())),
                Self::Chunked(Chunk::Data(left)) => {
                    let data = take(input, left);
                    *self = Self::Chunked(match left - data.len() as u64 {
                        0 => Chunk::End,
                        left => Chunk::Data(left),
                    });
                    Decoded::Frame(Frame::data(data))
                }
                Self::Chunked(Chunk::Trailers) => match trailers(input)? {
                    None => Decoded::More,
                    Some(fields) => {
                        *self = Self::Ended;
                        match fields.is_empty() {
                            true => Decoded::Ended,
                            false => Decoded::Frame(Frame::trailers(fields)),
                        }
                    }
                },
                Self::Chunked(chunk) => match chunk.step(input)? {
                    None => Decoded::More,
                    Some(next) => {
                        *self = Self::Chunked(next);
                        continue;
                    }
                },
            });
        }
    }

    /// The connection has ended: whether the body may end there.
    pub(super) fn end(&mut self) -> Result<(), BodyFault> {
        match std::mem::replace(self, Self::Ended) {
            Self::Ended | Self::UntilClose => Ok(()),
            Self::Sized(_) | Self::Chunked(_) => Err(BodyFault::Short),
        }
    }
}

impl Chunk {
    /// Passes over a line; nothing if it is not there yet.
    fn step(self, input: &mut BytesMut) -> Result<Option<Self>, BodyFault> {
        if self == Self::End {
            if input.len() < 2 && input[0] == b'\r' {
                return Ok(None);
            }
            if !input.starts_with(b"\r\n") {
                return Err(BodyFault::Chunk);
            }
            input.advance(2);
            return Ok(Some(Self::Line));
        }
        // `httparse` takes a line without a number for a zero.
        if !input[0].is_ascii_hexdigit() {
            return Err(BodyFault::Chunk);
        }
        match httparse::parse_chunk_size(input).map_err(|_| BodyFault::Chunk)? {
            Status::Complete((length, _)) if length > CHUNK_LINE_BYTES_MAX => {
                Err(BodyFault::TooLarge)
            }
            Status::Complete((length, size)) => {
                input.advance(length);
                Ok(Some(match size {
                    0 => Self::Trailers,
                    size => Self::Data(size),
                }))
            }
            Status::Partial if input.len() >= CHUNK_LINE_BYTES_MAX => Err(BodyFault::TooLarge),
            Status::Partial => Ok(None),
        }
    }
}

/// At most `most` bytes from the front.
fn take(input: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).map_or(input.len(), |most| most.min(input.len()));
    input.split_to(length).freeze()
}

/// The trailer section, once it is whole.
fn trailers(input: &mut BytesMut) -> Result<Option<http::HeaderMap>, BodyFault> {
    if input.starts_with(b"\r\n") {
        input.advance(2);
        return Ok(Some(http::HeaderMap::new()));
    }
    let Some(end) = head::find_end(input, &mut 0) else {
        return match input.len() {
            TRAILER_BYTES_MAX.. => Err(BodyFault::TooLarge),
            _ => Ok(None),
        };
    };
    if end > TRAILER_BYTES_MAX {
        return Err(BodyFault::TooLarge);
    }
    let section = input.split_to(end).freeze();
    let mut lines = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    match httparse::parse_headers(&section, &mut lines) {
        Ok(Status::Complete((_, lines))) => {
            let mut fields = http::HeaderMap::new();
            head::add_fields(&mut fields, lines, &section).map_err(|fault| match fault {
                HeadFault::TooLarge => BodyFault::TooLarge,
                HeadFault::Syntax(_) | HeadFault::Framing => BodyFault::Chunk,
            })?;
            Ok(Some(fields))
        }
        Err(httparse::Error::TooManyHeaders) => Err(BodyFault::TooLarge),
        _ => Err(BodyFault::Chunk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body of `bytes` decodes to, when they come `step` at a time and then the end: its
    /// data, the names of its trailers, what is left over, and how it ended.
    fn decoded(
        mut decoder: Decoder,
        bytes: &[u8],
        step: usize,
    ) -> (String, Vec<String>, usize, Result<(), BodyFault>) {
        let (mut data, mut names) = (Vec::new(), Vec::new());
        let mut input = BytesMut::new();
        let mut pieces = bytes.chunks(step);
        let ended = loop {
            match decoder.decode(&mut input) {
                Ok(Decoded::Frame(frame)) => match frame.into_data() {
                    Ok(piece) => data.extend_from_slice(&piece),
                    Err(frame) => names.extend(
                        (frame.into_trailers().unwrap().keys()).map(|name| name.to_string()),
                    ),
                },
                Ok(Decoded::Ended) => break Ok(()),
                Ok(Decoded::More) => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => break decoder.end(),
                },
                Err(fault) => break Err(fault),
            }
        };
        let left = input.len() + pieces.map(<[u8]>::len).sum::<usize>();
        (String::from_utf8(data).unwrap(), names, left, ended)
    }

    #[test]
    fn bodies_end_where_they_say() {
        let chunked = Decoder::CHUNKED;
        let sized = Decoder::sized;
        let close = Decoder::UntilClose;
        type Case = (
            Decoder,
            &'static str,
            &'static str,
            usize,
            Result<(), BodyFault>,
        );
        let (short, broken) = (Err(BodyFault::Short), Err(BodyFault::Chunk));
        // The framing, the bytes, the data, the bytes left over, and the end.
        let table: [Case; 24] = [
            (sized(0), "", "", 0, Ok(())),
            (sized(0), "x", "", 1, Ok(())),
            (sized(3), "abc", "abc", 0, Ok(())),
            (sized(3), "abcd", "abc", 1, Ok(())),
            (sized(3), "ab", "ab", 0, short),
            (sized(u64::MAX), "ab", "ab", 0, short),
            (close, "", "", 0, Ok(())),
            (close, "abc", "abc", 0, Ok(())),
            (chunked, "0\r\n\r\n", "", 0, Ok(())),
            (chunked, "3\r\nabc\r\n0\r\n\r\n", "abc", 0, Ok(())),
            (chunked, "03\r\nabc\r\n000\r\n\r\nnext", "abc", 4, Ok(())),
            (
                chunked,
                "1\r\na\r\nA\r\nbcdefghijk\r\n0\r\n\r\n",
                "abcdefghijk",
                0,
                Ok(()),
            ),
            (chunked, "1;name=value\r\na\r\n0;x\r\n\r\n", "a", 0, Ok(())),
            (chunked, "3\r\nabc\r\n", "abc", 0, short),
            (chunked, "3\r\nab", "ab", 0, short),
            (chunked, "3\r\nabc\r\n0\r\n", "abc", 0, short),
            (chunked, "", "", 0, short),
            (chunked, "3\r\nabcd\r\n0\r\n\r\n", "abc", 8, broken),
            (chunked, "3\r\nabc\n0\r\n\r\n", "abc", 6, broken),
            (chunked, "\r\n\r\n", "", 4, broken),
            (chunked, " 3\r\nabc\r\n", "", 9, broken),
            (chunked, "g\r\n", "", 3, broken),
            (chunked, "-1\r\n", "", 4, broken),
            (chunked, "10000000000000000\r\n", "", 19, broken),
        ];
        for (decoder, bytes, data, left, end) in table {
            for step in [1, 2, 3, 1000] {
                let found = decoded(decoder, bytes.as_bytes(), step);
                assert_eq!(
                    (&*found.0, found.2, found.3),
                    (data, left, end),
                    "{bytes:?} by {step}"
                );
            }
        }
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        let broken = Err(BodyFault::Chunk);
        let table: [(&str, &[&str], Result<(), BodyFault>); 5] = [
            ("0\r\nX-A: 1\r\n\r\n", &["x-a"], Ok(())),
            ("0\r\nX-A: 1\r\nb:\r\n\r\n", &["x-a", "b"], Ok(())),
            ("0\r\nX-A: 1\r\n", &[], Err(BodyFault::Short)),
            ("0\r\nX A: 1\r\n\r\n", &[], broken),
            ("0\r\nX-A: 1\r\n b: 2\r\n\r\n", &[], broken),
        ];
        for (bytes, names, end) in table {
            for step in [1, 1000] {
                let found = decoded(Decoder::CHUNKED, bytes.as_bytes(), step);
                assert_eq!(
                    (found.1, found.3),
                    (names.iter().map(ToString::to_string).collect(), end),
                    "{bytes:?} by {step}"
                );
            }
        }
    }

    #[test]
    fn lines_and_trailers_have_limits() {
        let line = |bytes: usize| {
            let extension = "x".repeat(bytes - "0;\r\n".len());
            format!("0;{extension}\r\n\r\n")
        };
        let section = |bytes: usize| {
            let value = "x".repeat(bytes - "a:\r\n\r\n".len());
            format!("0\r\na:{value}\r\n\r\n")
        };
        let fields = |count: usize| format!("0\r\n{}\r\n", "a: 1\r\n".repeat(count));
        let too_large = Err(BodyFault::TooLarge);
        let table = [
            (line(CHUNK_LINE_BYTES_MAX), Ok(())),
            (line(CHUNK_LINE_BYTES_MAX + 1), too_large),
            (section(TRAILER_BYTES_MAX), Ok(())),
            (section(TRAILER_BYTES_MAX + 1), too_large),
            (fields(TRAILERS_MAX), Ok(())),
            (fields(TRAILERS_MAX + 1), too_large),
        ];
        for (bytes, end) in table {
            for step in [512, 1 << 20] {
                let found = decoded(Decoder::CHUNKED, bytes.as_bytes(), step);
                assert_eq!(found.3, end, "{} bytes by {step}", bytes.len());
            }
        }
    }
}
