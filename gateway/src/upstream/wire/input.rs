//! What an instance sends, as it is read: in pieces that follow how much comes.

use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Room for the first read, and for each as long as little comes.
const READ_BYTES_MIN: usize = 4 * 1024;
/// Room for a read at most.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Reads in a row that leave most of the room empty, after which there is less of it.
const SMALL_READS_MAX: u8 = 8;

/// Bytes that were read and not used yet.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) bytes: BytesMut,
    /// Room for the next read.
    room: usize,
    small_reads: u8,
}

impl Input {
    /// Without room yet.
    pub(super) fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            room: READ_BYTES_MIN,
            small_reads: 0,
        }
    }

    /// Reads once; 0 bytes are the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = self.bytes.capacity() - self.bytes.len();
        if room < self.room {
            // What was read before is used up by now, most often, and its room used again.
            self.bytes.reserve(self.room);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let read = poll_read_buf(std::pin::Pin::new(io), cx, &mut self.bytes);
        if let Poll::Ready(Ok(bytes)) = &read {
            self.learn(*bytes, room);
        }
        read
    }

    /// Frees the room that nothing stands in.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() {
            *self = Self::new();
        }
    }

    /// A read that filled all there was asks for more; several small ones for less.
    fn learn(&mut self, bytes: usize, room: usize) {
        if bytes >= room {
            self.room = (room * 2).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
            self.small_reads = 0;
        } else if self.room > READ_BYTES_MIN && bytes < self.room / 4 {
            self.small_reads += 1;
            if self.small_reads == SMALL_READS_MAX {
                self.room /= 2;
                self.small_reads = 0;
            }
        } else {
            self.small_reads = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_follows_what_comes() {
        const K: usize = 1024;
        let full = |room: usize| (room, room);
        type Reads = Vec<(usize, usize)>;
        // Reads as bytes and the room they had, and the room of the next.
        let table: [(&str, Reads, usize); 6] = [
            ("little", vec![(300, 4 * K); 20], 4 * K),
            ("a full read", vec![full(4 * K)], 8 * K),
            ("many full reads", vec![full(64 * K); 5], 64 * K),
            (
                "a large one among small ones",
                vec![full(8 * K), (100, 16 * K), (9000, 16 * K), (100, 16 * K)],
                16 * K,
            ),
            (
                "small ones after a large one",
                [vec![full(8 * K)], vec![(100, 16 * K); 8]].concat(),
                8 * K,
            ),
            (
                "down to the least",
                [vec![full(64 * K)], vec![(100, 64 * K); 80]].concat(),
                4 * K,
            ),
        ];
        for (what, reads, expected) in table {
            let mut input = Input::new();
            for (bytes, room) in reads {
                input.learn(bytes, room);
            }
            assert_eq!(input.room, expected, "{what}");
        }
    }
}
