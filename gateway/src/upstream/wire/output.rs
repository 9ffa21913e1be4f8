//! A request on its way to an instance: its head, and its body as that comes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http::request::Parts;
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use super::encode::{self, Encoding};
use super::fault::Fault;
use crate::forward::body::RequestBody;

/// A piece of a body up to this size is copied behind what is to be written before it.
const COPIED_BYTES_MAX: usize = 1024;
/// What is collected before it is written.
const COLLECTED_BYTES_MAX: usize = 8 * 1024;
/// Room that is kept from one request to the next.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// What is still to be written of a request.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The head, and small pieces of the body with their framing.
    bytes: Vec<u8>,
    /// How much of them was written.
    written: usize,
    /// A larger piece, which comes after them.
    piece: Bytes,
    /// What comes after the piece.
    end: &'static [u8],
    /// The body, until all of it was taken.
    body: Option<Source>,
    /// Something was written that was not flushed.
    unflushed: bool,
}

/// Where the body comes from.
#[derive(Debug)]
struct Source {
    body: RequestBody,
    encoding: Encoding,
    trailers: HeaderMap,
    /// All of it was taken.
    ended: bool,
}

impl Output {
    /// A request begins. Nothing is left of the one before.
    pub(super) fn begin(&mut self, head: &Parts, body: RequestBody) {
        let encoding = Encoding::of(&body);
        encode::write(head, encoding, &mut self.bytes);
        self.body = encoding.map(|encoding| Source {
            body,
            encoding,
            trailers: HeaderMap::new(),
            ended: false,
        });
    }

    /// Whether all of the request was written.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && !self.has_bytes() && !self.unflushed
    }

    /// Writes until all of the request was written.
    pub(super) fn poll(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            let waits = self.collect(cx)?;
            if self.has_bytes() {
                ready!(self.write(io, cx)).map_err(Fault::Connection)?;
                continue;
            }
            if self.unflushed {
                ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(Fault::Connection)?;
                self.unflushed = false;
            }
            return match waits {
                true => Poll::Pending,
                false => Poll::Ready(Ok(())),
            };
        }
    }

    fn has_bytes(&self) -> bool {
        !self.bytes.is_empty() || self.has_piece()
    }

    fn has_piece(&self) -> bool {
        !self.piece.is_empty() || !self.end.is_empty()
    }

    /// Takes what there is of the body, as far as it is written together. Returns whether it waits
    /// for more of it.
    fn collect(&mut self, cx: &mut Context<'_>) -> Result<bool, Fault> {
        while !self.has_piece()
            && self.bytes.len() < COLLECTED_BYTES_MAX
            && let Some(source) = &mut self.body
        {
            if source.ended {
                self.finish()?;
                break;
            }
            let Poll::Ready(frame) = Pin::new(&mut source.body).poll_frame(cx) else {
                return Ok(true);
            };
            // A body of known length is not asked again after its last byte.
            source.ended = frame.is_none() || source.body.is_end_stream();
            if let Some(frame) = frame.transpose().map_err(Fault::Upload)? {
                self.add(frame)?;
            }
        }
        Ok(false)
    }

    fn add(&mut self, frame: Frame<Bytes>) -> Result<(), Fault> {
        let source = self.body.as_mut().expect("a frame comes from the body");
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                source.trailers = frame.into_trailers().unwrap_or_default();
                return Ok(());
            }
        };
        match &mut source.encoding {
            Encoding::Sized(left) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or_else(|| Fault::Upload("it is longer than announced".into()))?;
                self.push(data, b"");
            }
            // An empty chunk would be the last.
            Encoding::Chunked if data.is_empty() => {}
            Encoding::Chunked => {
                let line = format!("{:x}\r\n", data.len());
                self.bytes.extend_from_slice(line.as_bytes());
                self.push(data, b"\r\n");
            }
        }
        Ok(())
    }

    /// A piece, and what stands behind it.
    fn push(&mut self, data: Bytes, end: &'static [u8]) {
        if data.len() <= COPIED_BYTES_MAX {
            self.bytes.extend_from_slice(&data);
            self.bytes.extend_from_slice(end);
        } else {
            (self.piece, self.end) = (data, end);
        }
    }

    /// The body is complete. Its trailers come behind the last chunk; where there are no chunks,
    /// there is no place for them.
    fn finish(&mut self) -> Result<(), Fault> {
        let source = self.body.take().expect("a body ends once");
        match source.encoding {
            Encoding::Sized(0) => Ok(()),
            Encoding::Sized(_) => Err(Fault::Upload("it is shorter than announced".into())),
            Encoding::Chunked => {
                self.bytes.extend_from_slice(b"0\r\n");
                encode::write_trailers(&source.trailers, &mut self.bytes);
                Ok(())
            }
        }
    }

    fn write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = &self.bytes[self.written..];
        let io = Pin::new(io);
        let written = ready!(if self.has_piece() {
            let slices = [bytes, &self.piece, self.end].map(IoSlice::new);
            io.poll_write_vectored(cx, &slices)
        } else {
            io.poll_write(cx, bytes)
        })?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        self.advance(written);
        Poll::Ready(Ok(()))
    }

    /// So much was written.
    fn advance(&mut self, written: usize) {
        let of_bytes = written.min(self.bytes.len() - self.written);
        self.written += of_bytes;
        if self.written == self.bytes.len() {
            self.written = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES_MAX);
        }
        let of_piece = (written - of_bytes).min(self.piece.len());
        self.piece.advance(of_piece);
        self.end = &self.end[written - of_bytes - of_piece..];
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::forward::body::KeptBody;

    const LARGE: usize = COPIED_BYTES_MAX + 1;

    /// What is written of these frames, over a pipe that takes `step` bytes at a time.
    async fn written(
        encoding: Encoding,
        frames: Vec<Frame<Bytes>>,
        step: usize,
    ) -> Result<String, String> {
        let (mut near, mut far) = tokio::io::duplex(step);
        let mut output = Output {
            body: Some(Source {
                body: RequestBody::copied(&KeptBody::default()),
                encoding,
                trailers: HeaderMap::new(),
                ended: false,
            }),
            bytes: b"head ".to_vec(),
            ..Output::default()
        };
        let write = async move {
            for frame in frames {
                output.add(frame)?;
                // As if the body had no more yet, and the next came later.
                while output.has_piece() {
                    std::future::poll_fn(|cx| output.write(&mut near, cx))
                        .await
                        .map_err(Fault::Connection)?;
                }
            }
            std::future::poll_fn(|cx| output.poll(&mut near, cx)).await?;
            assert!(output.is_done() && output.bytes.capacity() <= KEPT_BYTES_MAX);
            Ok(())
        };
        let mut bytes = String::new();
        let (outcome, read) = tokio::join!(write, far.read_to_string(&mut bytes));
        read.unwrap();
        outcome
            .map(|()| bytes)
            .map_err(|fault: Fault| fault.to_string())
    }

    fn data(bytes: &str) -> Frame<Bytes> {
        Frame::data(Bytes::copy_from_slice(bytes.as_bytes()))
    }

    #[tokio::test]
    async fn bodies_are_framed_as_their_head_says() {
        let (chunked, sized) = (Encoding::Chunked, Encoding::Sized);
        let large = "x".repeat(LARGE);
        let trailers = HeaderMap::from_iter([("x-a".parse().unwrap(), "1".parse().unwrap())]);
        let trailers = || Frame::trailers(trailers.clone());
        let chunk = format!("401\r\n{large}\r\n");
        let table: [(Encoding, Vec<Frame<Bytes>>, String); 9] = [
            (sized(0), vec![], String::new()),
            (
                sized(5),
                vec![data("ab"), data(""), data("cde")],
                "abcde".into(),
            ),
            (sized(LARGE as u64), vec![data(&large)], large.clone()),
            (sized(1), vec![data("a"), trailers()], "a".into()),
            (chunked, vec![], "0\r\n\r\n".into()),
            (
                chunked,
                vec![data("ab"), data("cde")],
                "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n".into(),
            ),
            (
                chunked,
                vec![data(""), data("a")],
                "1\r\na\r\n0\r\n\r\n".into(),
            ),
            (
                chunked,
                vec![data(&large), data("a")],
                format!("{chunk}1\r\na\r\n0\r\n\r\n"),
            ),
            (
                chunked,
                vec![data("a"), trailers()],
                "1\r\na\r\n0\r\nx-a: 1\r\n\r\n".into(),
            ),
        ];
        for (encoding, frames, expected) in table {
            for step in [1, 7, 1 << 16] {
                let copies = frames.iter().map(|frame| match frame.data_ref() {
                    Some(bytes) => Frame::data(bytes.clone()),
                    None => trailers(),
                });
                let found = written(encoding, copies.collect(), step).await;
                assert_eq!(
                    found,
                    Ok(format!("head {expected}")),
                    "{encoding:?} by {step}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_body_keeps_to_its_length() {
        let table = [
            (
                2,
                "abc",
                "the request body failed: it is longer than announced",
            ),
            (
                4,
                "abc",
                "the request body failed: it is shorter than announced",
            ),
        ];
        for (length, bytes, expected) in table {
            let found = written(Encoding::Sized(length), vec![data(bytes)], 100).await;
            assert_eq!(found, Err(expected.to_owned()));
        }
    }
}
