//! The chunked transfer coding (RFC 9112 section 7.1), followed byte by byte where it matters.

use super::head::is_token;
use super::{HeadLimits, Violation};

/// Bytes of the extensions of one chunk: everybody ignores them, and smugglers are fond of them.
const EXTENSION_BYTES_MAX: u16 = 256;
/// Bytes of all extensions of a body; hyper gives up, without a reason, at 16 KiB.
const EXTENSIONS_BYTES_MAX: u16 = 8 * 1024;
/// Digits of a chunk size. Fifteen make an exbibyte; the sixteenth could only overflow somebody.
const SIZE_DIGITS_MAX: u8 = 15;

/// How far a chunked body was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunked {
    place: Place,
    /// Bytes of all extensions so far.
    extensions_bytes: u16,
}

/// A place inside a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
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
    /// In the trailer section.
    Trailers { at: InTrailers, seen: Seen },
    /// The message is over.
    Finished,
}

/// A place in the trailer section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InTrailers {
    /// At the start of a trailer line or of the final empty line.
    LineStart,
    /// In the name of a field, after its first character.
    Name,
    /// After the colon of a field.
    Value,
    /// After the CR of a field's line.
    LineLf,
    /// After the CR of the final empty line.
    FinalLf,
}

/// What was seen of the trailer section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    bytes: u32,
    fields: u32,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            place: Place::START,
            extensions_bytes: 0,
        }
    }
}

impl Chunked {
    pub(super) fn finished(self) -> bool {
        self.place == Place::Finished
    }

    /// Moves over `input` up to its end or the end of the message; returns the bytes moved over.
    pub(super) fn advance(&mut self, input: &[u8], limits: HeadLimits) -> Result<usize, Violation> {
        let mut at = 0;
        while at < input.len() && !self.finished() {
            if let Place::Data { left } = self.place {
                let rest = input.len() - at;
                let here = usize::try_from(left).map_or(rest, |left| left.min(rest));
                at += here;
                let left = left - here as u64;
                self.place = if left == 0 {
                    Place::DataCr
                } else {
                    Place::Data { left }
                };
            } else {
                self.byte(input[at], limits)?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Moves over one byte outside the data.
    fn byte(&mut self, byte: u8, limits: HeadLimits) -> Result<(), Violation> {
        self.place = match self.place {
            Place::Size { size, digits } => {
                size_byte(size, digits, byte).ok_or(Violation::Chunk)?
            }
            Place::Extension { size, .. } if byte == b'\r' => Place::SizeLf { size },
            Place::Extension { size, bytes } => self.extension_byte(size, bytes, byte)?,
            Place::SizeLf { size: 0 } => {
                let seen = Seen {
                    bytes: 0,
                    fields: 0,
                };
                let at = InTrailers::LineStart;
                expect(byte, b'\n', Place::Trailers { at, seen })?
            }
            Place::SizeLf { size } => expect(byte, b'\n', Place::Data { left: size })?,
            Place::DataCr => expect(byte, b'\r', Place::DataLf)?,
            Place::DataLf => expect(byte, b'\n', Place::START)?,
            Place::Trailers { at, seen } => seen.next(at, byte, limits)?,
            // `advance` moves over data itself, and stops at the end.
            Place::Data { .. } | Place::Finished => return Err(Violation::Chunk),
        };
        Ok(())
    }

    fn extension_byte(&mut self, size: u64, bytes: u16, byte: u8) -> Result<Place, Violation> {
        if !plain(byte) {
            return Err(Violation::Chunk);
        }
        if bytes == EXTENSION_BYTES_MAX || self.extensions_bytes == EXTENSIONS_BYTES_MAX {
            return Err(Violation::ChunkExtension);
        }
        self.extensions_bytes += 1;
        let bytes = bytes + 1;
        Ok(Place::Extension { size, bytes })
    }
}

impl Place {
    const START: Self = Self::Size { size: 0, digits: 0 };
}

fn size_byte(size: u64, digits: u8, byte: u8) -> Option<Place> {
    match (byte, digits) {
        // The size needs a digit before anything else may follow, and no white space at all.
        (b'\r', 1..) => Some(Place::SizeLf { size }),
        (b';', 1..) => Some(Place::Extension { size, bytes: 0 }),
        _ => {
            let digit = char::from(byte).to_digit(16)?;
            (digits < SIZE_DIGITS_MAX).then(|| Place::Size {
                size: size << 4 | u64::from(digit),
                digits: digits + 1,
            })
        }
    }
}

fn expect(byte: u8, expected: u8, then: Place) -> Result<Place, Violation> {
    if byte == expected {
        Ok(then)
    } else {
        Err(Violation::Chunk)
    }
}

impl Seen {
    /// The place after one byte of the trailer section. Every byte of a field's line counts, its
    /// line end too; the final empty line does not.
    fn next(mut self, at: InTrailers, byte: u8, limits: HeadLimits) -> Result<Place, Violation> {
        use InTrailers::{FinalLf, LineLf, LineStart, Name, Value};
        let then = match (at, byte) {
            (LineStart, b'\r') => FinalLf,
            (FinalLf, b'\n') => return Ok(Place::Finished),
            // No white space either: a line that starts with it would be a folded one.
            (LineStart | Name, _) if is_token(byte) => Name,
            (Name, b':') => Value,
            (Value, b'\r') => LineLf,
            (Value, _) if plain(byte) => Value,
            (LineLf, b'\n') => LineStart,
            _ => return Err(Violation::Trailer),
        };
        if then != FinalLf {
            self.bytes += 1;
            self.fields += u32::from(at == LineStart);
            let over = self.bytes as usize > limits.trailer_bytes_max
                || self.fields as usize > limits.trailers_max;
            if over {
                return Err(Violation::TrailersTooLarge);
            }
        }
        Ok(Place::Trailers {
            at: then,
            seen: self,
        })
    }
}

/// A byte that may stand in a line: no control characters except the tab.
fn plain(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}
