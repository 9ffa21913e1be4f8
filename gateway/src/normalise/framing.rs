//! Strict framing of HTTP/1.1 requests: where each message starts and ends, read before hyper reads it.
//!
//! hyper resolves an ambiguous message the way RFC 9112 section 6.3 allows (`Transfer-Encoding` wins,
//! the `Content-Length` line disappears), and its parser accepts a bare LF as a line end. Both are what
//! request smuggling is made of: another server may read the same bytes differently. This scanner
//! follows the byte stream by the narrow grammar alone and names the first thing that departs from it.
//! It is pure: bytes in, a count of cleared bytes or a [`Violation`] out.

mod chunk;
mod head;

use self::chunk::Chunked;
use self::head::Length;
pub use self::head::Violation;

/// The line an HTTP/2 client with prior knowledge opens with (RFC 9113 section 3.4).
const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// Limits of one request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Request line and header lines together, in bytes.
    pub header_bytes_max: usize,
    /// Header lines of one request.
    pub headers_max: usize,
    /// The request target, in bytes.
    pub target_bytes_max: usize,
    /// The trailer section, in bytes; hyper holds 16 KiB at most.
    pub trailer_bytes_max: usize,
    /// Trailer lines.
    pub trailers_max: usize,
    /// Whether a header name with an underscore is refused.
    pub underscores_refused: bool,
}

/// What the scanner makes of the bytes it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes from the start of the input that may be handed on.
    pub cleared: usize,
    /// Heads completed within the cleared bytes.
    pub heads: u64,
    /// Why nothing after the cleared bytes may be handed on.
    pub violation: Option<Violation>,
}

/// Follows the framing of one connection.
#[derive(Debug)]
pub struct Scanner {
    limits: HeadLimits,
    state: State,
    /// Bytes of the current head already searched for its end.
    searched: usize,
    /// Where the request line of the current head ends, once its LF was found.
    line_end: Option<usize>,
    /// No head was complete yet: the next may be the preface of HTTP/2.
    first: bool,
    /// The request line of a head that is not complete yet was looked at.
    line_checked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Sized(u64),
    Chunked(Chunked),
    /// HTTP/2 or an upgraded protocol: its own framing rules apply.
    Opaque,
}

impl Scanner {
    /// A scanner at the first byte of a connection.
    #[must_use]
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            state: State::Head,
            searched: 0,
            line_end: None,
            first: true,
            line_checked: false,
        }
    }

    /// A scanner that clears everything: the connection is known to be HTTP/2.
    #[must_use]
    pub fn opaque(limits: HeadLimits) -> Self {
        Self {
            state: State::Opaque,
            ..Self::new(limits)
        }
    }

    /// From here on the bytes belong to an upgraded protocol.
    pub fn set_opaque(&mut self) {
        self.state = State::Opaque;
    }

    /// Whether everything is cleared unread.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.state == State::Opaque
    }

    /// Whether the scanner stands inside a message body.
    #[must_use]
    pub fn in_body(&self) -> bool {
        matches!(self.state, State::Sized(_) | State::Chunked(_))
    }

    /// Reads `input`, which begins at the first byte not cleared by the call before.
    pub fn scan(&mut self, input: &[u8]) -> Progress {
        let mut progress = Progress {
            cleared: 0,
            heads: 0,
            violation: None,
        };
        while progress.cleared < input.len() {
            let rest = &input[progress.cleared..];
            match self.step(rest) {
                Ok(Step { cleared: 0, .. }) => break,
                Ok(step) => {
                    progress.cleared += step.cleared;
                    progress.heads += u64::from(step.head);
                }
                Err(violation) => {
                    progress.violation = Some(violation);
                    break;
                }
            }
        }
        progress
    }

    fn step(&mut self, rest: &[u8]) -> Result<Step, Violation> {
        match self.state {
            State::Opaque => Ok(Step {
                cleared: rest.len(),
                head: false,
            }),
            State::Sized(left) => {
                let here = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                self.body_state(left - here as u64);
                Ok(Step {
                    cleared: here,
                    head: false,
                })
            }
            State::Chunked(mut chunked) => {
                let cleared = chunked.advance(rest, self.limits)?;
                self.state = if chunked.finished() {
                    State::Head
                } else {
                    State::Chunked(chunked)
                };
                Ok(Step {
                    cleared,
                    head: false,
                })
            }
            State::Head => self.head(rest),
        }
    }

    fn head(&mut self, rest: &[u8]) -> Result<Step, Violation> {
        // An empty line before the request line is ignored (RFC 9112 section 2.2).
        if rest.starts_with(b"\r\n") {
            self.searched = 0;
            return Ok(Step {
                cleared: 2,
                head: false,
            });
        }
        let Some(end) = self.find_end(rest)? else {
            self.check_line_early(rest)?;
            if rest.len() > self.limits.header_bytes_max {
                return Err(Violation::HeadTooLarge);
            }
            return Ok(Step {
                cleared: 0,
                head: false,
            });
        };
        self.searched = 0;
        self.line_end = None;
        self.line_checked = false;
        if std::mem::take(&mut self.first) && &rest[..end] == PREFACE_HEAD {
            self.state = State::Opaque;
            return Ok(Step {
                cleared: end,
                head: false,
            });
        }
        match head::check(&rest[..end], self.limits)? {
            Length::Sized(length) => self.body_state(length),
            Length::Chunked => self.state = State::Chunked(Chunked::default()),
        }
        Ok(Step {
            cleared: end,
            head: true,
        })
    }

    /// Looks at the request line before the head is complete: who sends HTTP/0.9 never sends more,
    /// and should not wait for a timeout to be told.
    fn check_line_early(&mut self, rest: &[u8]) -> Result<(), Violation> {
        if self.line_checked || (self.first && PREFACE_HEAD.starts_with(rest)) {
            return Ok(());
        }
        // Found by `find_end`: a line that comes in many pieces is not searched again with each.
        let limit = self.limits.header_bytes_max;
        let Some(end) = self.line_end.filter(|end| *end < limit) else {
            return Ok(());
        };
        self.line_checked = true;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        if self.first && PREFACE_HEAD.starts_with(&rest[..=end]) {
            return Ok(());
        }
        head::check_request_line(line, self.limits.target_bytes_max).map(drop)
    }

    fn body_state(&mut self, left: u64) {
        self.state = if left == 0 {
            State::Head
        } else {
            State::Sized(left)
        };
    }

    /// The position after the empty line that ends the head, remembering what was searched already.
    fn find_end(&mut self, rest: &[u8]) -> Result<Option<usize>, Violation> {
        while let Some(at) = memchr::memchr(b'\n', &rest[self.searched..]) {
            let newline = self.searched + at;
            if newline == 0 || rest[newline - 1] != b'\r' {
                return Err(Violation::BareLineFeed);
            }
            self.searched = newline + 1;
            self.line_end.get_or_insert(newline);
            if newline >= 3 && rest[newline - 2] == b'\n' {
                return Ok(Some(newline + 1));
            }
        }
        self.searched = rest.len();
        Ok(None)
    }
}

struct Step {
    cleared: usize,
    head: bool,
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
