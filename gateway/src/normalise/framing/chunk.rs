//! The chunked transfer coding (RFC 9112 section 7.1), followed byte by byte where it matters.

use super::Violation;
use super::head::is_token;

/// Chunk extensions are ignored by everybody and a favourite of smugglers: a small bound suffices.
const EXTENSION_BYTES_MAX: u16 = 256;

/// A place inside a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In the hexadecimal size; `digits` seen so far.
    Size { size: u64, digits: u8 },
    /// In an extension, up to the CR.
    Extension { size: u64, bytes: u16 },
    /// After the CR of the size line.
    SizeLf { size: u64 },
    /// In the data.
    Data { left: u64 },
    /// After the data, before its CR.
    DataCr,
    /// After the data's CR.
    DataLf,
    /// At the start of a trailer line or of the final empty line.
    LineStart { trailer_bytes: u32 },
    /// In the name of a trailer field, after its first character.
    Name { trailer_bytes: u32 },
    /// After the colon of a trailer field.
    Value { trailer_bytes: u32 },
    /// After the CR of a trailer line.
    LineLf { trailer_bytes: u32 },
    /// After the CR of the final empty line.
    FinalLf,
    /// The message is over.
    Finished,
}

impl Default for Chunked {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl Chunked {
    pub(super) fn finished(self) -> bool {
        self == Self::Finished
    }

    /// Moves over `input` up to its end or the end of the message; returns the bytes moved over.
    pub(super) fn advance(&mut self, input: &[u8], trailer_max: usize) -> Result<usize, Violation> {
        let mut at = 0;
        while at < input.len() && !self.finished() {
            if let Self::Data { left } = *self {
                let rest = input.len() - at;
                let here = usize::try_from(left).map_or(rest, |left| left.min(rest));
                at += here;
                let left = left - here as u64;
                *self = if left == 0 {
                    Self::DataCr
                } else {
                    Self::Data { left }
                };
            } else {
                *self = self.byte(input[at], trailer_max).ok_or(Violation::Chunk)?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// The place after one byte outside the data, or `None` where the grammar has no such byte.
    fn byte(self, byte: u8, trailer_max: usize) -> Option<Self> {
        match self {
            Self::Size { size, digits } => size_byte(size, digits, byte),
            Self::Extension { size, .. } if byte == b'\r' => Some(Self::SizeLf { size }),
            Self::Extension { size, bytes } => {
                (bytes < EXTENSION_BYTES_MAX && plain(byte)).then(|| Self::Extension {
                    size,
                    bytes: bytes + 1,
                })
            }
            Self::SizeLf { size: 0 } => next(byte, b'\n', Self::LineStart { trailer_bytes: 0 }),
            Self::SizeLf { size } => next(byte, b'\n', Self::Data { left: size }),
            Self::DataCr => next(byte, b'\r', Self::DataLf),
            Self::DataLf => next(byte, b'\n', Self::default()),
            Self::LineStart { .. } if byte == b'\r' => Some(Self::FinalLf),
            Self::Name { trailer_bytes } if byte == b':' => Some(Self::Value { trailer_bytes }),
            // No white space either: a line that starts with it would be a folded one.
            Self::LineStart { trailer_bytes } | Self::Name { trailer_bytes } => {
                let within = (trailer_bytes as usize) < trailer_max;
                let trailer_bytes = trailer_bytes + 1;
                (within && is_token(byte)).then_some(Self::Name { trailer_bytes })
            }
            Self::Value { trailer_bytes } if byte == b'\r' => Some(Self::LineLf { trailer_bytes }),
            Self::Value { trailer_bytes } => {
                let within = (trailer_bytes as usize) < trailer_max;
                let trailer_bytes = trailer_bytes + 1;
                (within && plain(byte)).then_some(Self::Value { trailer_bytes })
            }
            Self::LineLf { trailer_bytes } => next(byte, b'\n', Self::LineStart { trailer_bytes }),
            Self::FinalLf => next(byte, b'\n', Self::Finished),
            Self::Data { .. } | Self::Finished => None,
        }
    }
}

fn size_byte(size: u64, digits: u8, byte: u8) -> Option<Chunked> {
    match (byte, digits) {
        // The size needs a digit before anything else may follow, and no white space at all.
        (b'\r', 1..) => Some(Chunked::SizeLf { size }),
        (b';', 1..) => Some(Chunked::Extension { size, bytes: 0 }),
        _ => {
            let digit = char::from(byte).to_digit(16)?;
            // Fifteen digits are an exbibyte; the sixteenth could only overflow somebody.
            (digits < 15).then(|| Chunked::Size {
                size: size << 4 | u64::from(digit),
                digits: digits + 1,
            })
        }
    }
}

fn next(byte: u8, expected: u8, then: Chunked) -> Option<Chunked> {
    (byte == expected).then_some(then)
}

/// A byte that may stand in a line: no control characters except the tab.
fn plain(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}
