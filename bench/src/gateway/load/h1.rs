//! The client's side of HTTP/1.1: one request at a time, and the answer's status and length checked.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::head_end;

/// Bytes of a response's head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// One connection's exchange.
pub(super) struct Exchange {
    /// Bytes of body that every answer must have.
    expected: usize,
    /// When the request under way was due.
    since: Option<Instant>,
    /// What has come of a head that is not complete.
    head: Vec<u8>,
    /// Bytes of body still to come, once the head is there.
    left: Option<usize>,
}

impl Exchange {
    pub(super) fn new(expected: usize) -> Self {
        Self {
            expected,
            since: None,
            head: Vec::new(),
            left: None,
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.since.is_none()
    }

    pub(super) fn begin(&mut self, since: Instant, request: &[u8], out: &mut Vec<u8>) {
        self.since = Some(since);
        out.extend_from_slice(request);
    }

    /// Bytes that need only be counted.
    pub(super) fn discardable(&self) -> usize {
        self.left.unwrap_or(0)
    }

    /// Takes what has come; adds to `done` when the answer is complete.
    pub(super) fn received(&mut self, mut bytes: &[u8], done: &mut Vec<Instant>) -> Result<()> {
        ensure!(self.since.is_some(), "bytes that nobody asked for");
        if self.left.is_none() {
            let Some((length, consumed)) = self.read_head(bytes)? else {
                return Ok(());
            };
            ensure!(
                length == self.expected,
                "{length} bytes instead of {}",
                self.expected
            );
            self.left = Some(length);
            bytes = &bytes[consumed..];
        }
        self.discarded(bytes.len(), done)
    }

    /// Takes `count` bytes of body.
    pub(super) fn discarded(&mut self, count: usize, done: &mut Vec<Instant>) -> Result<()> {
        let left = self.left.context("a body before its head")?;
        let left = left.checked_sub(count).context("more than the length")?;
        self.left = Some(left);
        if left == 0 {
            self.left = None;
            done.extend(self.since.take());
        }
        Ok(())
    }

    /// The body's length, and how many of `bytes` belong to the head.
    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<(usize, usize)>> {
        if self.head.is_empty()
            && let Some(end) = head_end(bytes)
        {
            return Ok(Some((content_length(&bytes[..end])?, end)));
        }
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        ensure!(before <= HEAD_BYTES_MAX, "a head without an end");
        let Some(end) = head_end(&self.head) else {
            return Ok(None);
        };
        let length = content_length(&self.head[..end])?;
        self.head.clear();
        Ok(Some((length, end - before)))
    }
}

/// Checks the status; returns the value of `Content-Length`.
fn content_length(head: &[u8]) -> Result<usize> {
    const NAME: &[u8] = b"content-length:";
    ensure!(head.starts_with(b"HTTP/1.1 200 "), "{}", first_line(head));
    let field = head.split(|&byte| byte == b'\n').find(|line| {
        line.get(..NAME.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    });
    let value = &field.context("no Content-Length")?[NAME.len()..];
    let value = std::str::from_utf8(value)?.trim();
    value.parse().with_context(|| format!("length {value:?}"))
}

fn first_line(head: &[u8]) -> String {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or(head);
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(pieces: &[&[u8]]) -> Result<usize> {
        let mut exchange = Exchange::new(5);
        let mut done = Vec::new();
        exchange.begin(Instant::now(), b"GET", &mut Vec::new());
        for piece in pieces {
            exchange.received(piece, &mut done)?;
        }
        Ok(done.len())
    }

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        let cases: [(&str, &[&[u8]], usize); 4] = [
            ("head alone", &[head], 0),
            ("byte missing", &[head, b"hell"], 0),
            ("two pieces", &[head, b"hello"], 1),
            (
                "cut in the head",
                &[
                    b"HTTP/1.1 200 OK\r\nContent-Len",
                    b"gth: 5\r\n\r",
                    b"\nhe",
                    b"llo",
                ],
                1,
            ),
        ];
        for (description, pieces, expected) in cases {
            assert_eq!(answers(pieces).unwrap(), expected, "{description}");
        }
    }

    #[test]
    fn another_answer_is_an_error() {
        let cases: [(&[u8], &str); 4] = [
            (
                b"HTTP/1.1 503 Busy\r\ncontent-length: 5\r\n\r\n",
                "HTTP/1.1 503 Busy",
            ),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n",
                "6 bytes instead of 5",
            ),
            (b"HTTP/1.1 200 OK\r\n\r\n", "no Content-Length"),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello!",
                "more than the length",
            ),
        ];
        for (answer, expected) in cases {
            assert_eq!(answers(&[answer]).unwrap_err().to_string(), expected);
        }
    }
}
