//! Where a stream of WebSocket frames stands (RFC 6455 section 5.2): only between two frames may
//! one of ours be put in.

/// A head of a frame at most: 2 bytes, 8 of length, 4 of mask.
const HEAD_BYTES_MAX: usize = 14;
/// The opcode of the frame that ends a connection.
const CLOSE: u8 = 0x8;

/// Follows the frames of one direction, by their heads alone.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES_MAX],
    /// Bytes of the head that have come.
    seen: usize,
    /// Bytes of the payload that have not.
    left: u64,
    /// A close has been sent: nothing may follow (section 5.5.1).
    closed: bool,
}

impl Frames {
    /// Takes in bytes of the stream.
    pub(super) fn observe(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len() as u64);
                self.left -= skipped;
                // No more than there are.
                bytes = &bytes[skipped as usize..];
                continue;
            }
            self.head[self.seen] = *first;
            self.seen += 1;
            bytes = rest;
            if self.seen == self.head_bytes() {
                self.left = self.payload_bytes();
                self.closed |= self.head[0] & 0x0f == CLOSE;
                self.seen = 0;
            }
        }
    }

    /// Whether a frame may be put in here.
    pub(super) fn may_insert(&self) -> bool {
        self.seen == 0 && self.left == 0 && !self.closed
    }

    /// How long the head is, as far as that is known.
    fn head_bytes(&self) -> usize {
        if self.seen < 2 {
            return 2;
        }
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + self.length_bytes() + mask
    }

    fn length_bytes(&self) -> usize {
        match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn payload_bytes(&self) -> u64 {
        let digits = &self.head[2..2 + self.length_bytes()];
        match digits {
            [] => u64::from(self.head[1] & 0x7f),
            digits => digits
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = match length {
            0..126 => vec![first, mask | length as u8],
            126..65_536 => {
                let digits = (length as u16).to_be_bytes();
                [&[first, mask | 126], &digits[..]].concat()
            }
            _ => {
                let digits = (length as u64).to_be_bytes();
                [&[first, mask | 127], &digits[..]].concat()
            }
        };
        frame.extend(std::iter::repeat_n(
            0x88,
            if masked { 4 } else { 0 } + length,
        ));
        frame
    }

    #[test]
    fn between_frames_and_nowhere_else_one_may_be_put_in() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for masked in [false, true] {
                let frame = frame(0x82, masked, length);
                // In one piece, byte by byte, and both with another frame behind it.
                let mut whole = Frames::default();
                whole.observe(&[&frame[..], &frame[..]].concat());
                assert!(whole.may_insert(), "{length} {masked}");
                let mut pieces = Frames::default();
                for (at, byte) in frame.iter().enumerate() {
                    pieces.observe(&[*byte]);
                    let ended = at + 1 == frame.len();
                    assert_eq!(pieces.may_insert(), ended, "{length} {masked} at {at}");
                }
            }
        }
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut frames = Frames::default();
        assert!(frames.may_insert());
        frames.observe(&frame(0x88, false, 2));
        assert!(!frames.may_insert());
    }
}
