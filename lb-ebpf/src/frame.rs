//! Bounds-checked access to the bytes of a packet.
//!
//! There are two owners of bytes: [`Buffer`] here (host: tests, property tests, benches,
//! `explain`) and the `XdpContext` adapter under `program/` (kernel), which checks each access
//! against `data_end` in the form the verifier reasons about. All packet logic is generic over
//! [`Frame`], so the kernel's answer and the host's are one piece of code.

/// The bytes of one packet, from the Ethernet header on.
///
/// Reads and writes are by value and of constant length, so that each is one comparison against
/// the end of the packet, and nothing borrowed outlives a [`grow`](Self::grow).
pub trait Frame {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// True when there is not a single byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `N` words from offset `at`, or `None` when they reach beyond the end. A word's bytes are in
    /// the order of memory, and no alignment is needed.
    fn load<T: Word, const N: usize>(&self, at: usize) -> Option<[T; N]>;

    /// Overwrites `N` words from offset `at`, or does nothing and returns `None` when they reach
    /// beyond the end.
    fn store<T: Word, const N: usize>(&mut self, at: usize, words: [T; N]) -> Option<()>;

    /// Makes room for `N` bytes in front; their content is undefined. `None` when the driver
    /// left too little headroom.
    fn grow<const N: usize>(&mut self) -> Option<()>;

    /// Cuts `N` bytes off the front, or does nothing and returns `None` when there are fewer.
    fn shrink<const N: usize>(&mut self) -> Option<()>;
}

/// What packets are read and written in: 8, 16 or 32 bits, for which every bit pattern is a value.
pub trait Word: Copy {
    /// The word whose bytes lie in memory like this. `bytes` has the length of the word.
    fn from_memory(bytes: &[u8]) -> Self;

    /// Lays the word's bytes down in memory. `bytes` has the length of the word.
    fn to_memory(self, bytes: &mut [u8]);
}

macro_rules! word {
    ($($word:ty),+) => {$(
        impl Word for $word {
            fn from_memory(bytes: &[u8]) -> Self {
                let mut word = [0; size_of::<Self>()];
                word.copy_from_slice(bytes);
                Self::from_ne_bytes(word)
            }

            fn to_memory(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_ne_bytes());
            }
        }
    )+};
}
word!(u8, u16, u32);

/// Offsets that a program looks at, in bytes: link header with two tags, IPv4 header with all
/// options or IPv6 header with extension headers. A bound the verifier can use.
pub const OFFSET_MAX: usize = 1023;

/// Bytes of headroom that a driver with XDP support leaves in front of a packet
/// (`XDP_PACKET_HEADROOM`, include/uapi/linux/bpf.h).
pub const HEADROOM: usize = 256;

/// A packet on the host: a slice with the room in front that a driver would leave.
#[derive(Debug)]
pub struct Buffer<'a> {
    bytes: &'a mut [u8],
    start: usize,
}

impl<'a> Buffer<'a> {
    /// A packet that begins at `start` of `bytes`; what lies before is headroom.
    ///
    /// A `start` beyond the end stands for an empty packet.
    pub fn new(bytes: &'a mut [u8], start: usize) -> Self {
        let start = start.min(bytes.len());
        Self { bytes, start }
    }

    /// The packet as it is now.
    pub fn packet(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn range(&self, at: usize, len: usize) -> Option<core::ops::Range<usize>> {
        if at > OFFSET_MAX {
            return None;
        }
        let start = self.start + at;
        (start + len <= self.bytes.len()).then_some(start..start + len)
    }
}

impl Frame for Buffer<'_> {
    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn load<T: Word, const N: usize>(&self, at: usize) -> Option<[T; N]> {
        let bytes = &self.bytes[self.range(at, N * size_of::<T>())?];
        let word = |index| {
            let at = index * size_of::<T>();
            T::from_memory(&bytes[at..at + size_of::<T>()])
        };
        Some(core::array::from_fn(word))
    }

    fn store<T: Word, const N: usize>(&mut self, at: usize, words: [T; N]) -> Option<()> {
        let range = self.range(at, N * size_of::<T>())?;
        let places = self.bytes[range].chunks_exact_mut(size_of::<T>());
        for (word, place) in words.into_iter().zip(places) {
            word.to_memory(place);
        }
        Some(())
    }

    fn grow<const N: usize>(&mut self) -> Option<()> {
        self.start = self.start.checked_sub(N)?;
        Some(())
    }

    fn shrink<const N: usize>(&mut self) -> Option<()> {
        // The kernel keeps at least an Ethernet header (`bpf_xdp_adjust_head`, net/core/filter.c).
        if self.len() < N + crate::wire::Ethernet::LEN {
            return None;
        }
        self.start += N;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_stop_at_the_end() {
        let mut bytes = [1, 2, 3, 4, 5, 6];
        let mut frame = Buffer::new(&mut bytes, 2);
        assert_eq!(frame.len(), 4);
        assert_eq!(frame.load::<u8, 4>(0), Some([3, 4, 5, 6]));
        assert_eq!(frame.load::<u16, 2>(1), None);
        assert_eq!(frame.load::<u8, 1>(usize::MAX), None);
        assert_eq!(frame.store(3, [9_u8]), Some(()));
        assert_eq!(frame.store(3, [9_u16]), None);
        assert_eq!(frame.packet(), [3, 4, 5, 9]);
    }

    #[test]
    fn grows_into_the_headroom_only() {
        let mut bytes = [0; 30];
        let mut frame = Buffer::new(&mut bytes, 2);
        assert_eq!(frame.grow::<3>(), None);
        assert_eq!(frame.grow::<2>(), Some(()));
        assert_eq!(frame.len(), 30);
        assert_eq!(frame.shrink::<17>(), None, "an Ethernet header must stay");
        assert_eq!(frame.shrink::<16>(), Some(()));
        assert_eq!(frame.len(), 14);
    }
}
