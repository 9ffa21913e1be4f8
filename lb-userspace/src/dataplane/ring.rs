//! Rings and their marks in the mapped arrays: slots, two to a cell.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use lb_ebpf::abi::{Mark, SLOTS_PER_CELL, Slot};

use super::mmap::Cells;

/// What a slot of four bytes holds: half a cell.
pub(super) trait Halves: Copy + Default {
    /// As it lies in memory.
    fn bytes(self) -> [u8; 4];
    /// The opposite of [`bytes`](Self::bytes).
    fn from_bytes(bytes: [u8; 4]) -> Self;
}

impl Halves for Slot {
    fn bytes(self) -> [u8; 4] {
        join(self.current, self.previous)
    }

    fn from_bytes(bytes: [u8; 4]) -> Self {
        let [current, previous] = split(bytes);
        Self { current, previous }
    }
}

impl Halves for Mark {
    fn bytes(self) -> [u8; 4] {
        join(self.since, self.hit)
    }

    fn from_bytes(bytes: [u8; 4]) -> Self {
        let [since, hit] = split(bytes);
        Self { since, hit }
    }
}

fn join(first: u16, second: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d]
}

fn split([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

/// All slots of all rings, or all their marks.
#[derive(Debug)]
pub(super) struct Rings<T = Slot> {
    cells: Cells,
    holds: PhantomData<T>,
}

impl<T: Halves> Rings<T> {
    /// Maps the array behind `fd`, which has `cells` elements.
    pub(super) fn of_map(fd: BorrowedFd<'_>, cells: u32) -> io::Result<Self> {
        let cells = Cells::of_map(fd, cells as usize)?;
        let holds = PhantomData;
        Ok(Self { cells, holds })
    }

    /// Number of slots.
    pub(super) fn slots(&self) -> usize {
        self.cells.len() * SLOTS_PER_CELL as usize
    }

    /// Writes `slots` from slot `start` on, which must be even. A lone last slot is paired with an
    /// empty one. Returns false, with nothing written, when they do not fit.
    ///
    /// The slots must not be in use: nothing orders the cells of one call among each other.
    pub(super) fn write(&self, start: u32, slots: &[T]) -> bool {
        let Some(cells) = self.cells_of(start, slots.len()) else {
            return false;
        };
        for (cell, pair) in cells.iter().zip(slots.chunks(SLOTS_PER_CELL as usize)) {
            let second = pair.get(1).copied().unwrap_or_default();
            cell.store(pack([pair[0], second]), Ordering::Relaxed);
        }
        Cells::publish_fence();
        true
    }

    /// Reads `len` slots from slot `start` on, which must be even; `None` when they do not exist.
    pub(super) fn read(&self, start: u32, len: u32) -> Option<Vec<T>> {
        let cells = self.cells_of(start, len as usize)?;
        let slots = cells
            .iter()
            .flat_map(|cell| unpack(cell.load(Ordering::Relaxed)));
        Some(slots.take(len as usize).collect())
    }

    /// The slot at `index`.
    pub(super) fn slot(&self, index: u32) -> Option<T> {
        let cell = unpack(self.cells.load((index / SLOTS_PER_CELL) as usize)?);
        Some(cell[(index % SLOTS_PER_CELL) as usize])
    }

    fn cells_of(&self, start: u32, len: usize) -> Option<&[std::sync::atomic::AtomicU64]> {
        if !start.is_multiple_of(SLOTS_PER_CELL) {
            return None;
        }
        let first = (start / SLOTS_PER_CELL) as usize;
        self.cells
            .slice(first, len.div_ceil(SLOTS_PER_CELL as usize))
    }
}

/// A cell as one word, fields in the order in which they lie in memory.
fn pack<T: Halves>([first, second]: [T; 2]) -> u64 {
    let [a, b, c, d] = first.bytes();
    let [e, f, g, h] = second.bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The opposite of [`pack`].
fn unpack<T: Halves>(word: u64) -> [T; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [T::from_bytes([a, b, c, d]), T::from_bytes([e, f, g, h])]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(cells: usize) -> Rings {
        Rings {
            cells: Cells::anonymous(cells).unwrap(),
            holds: PhantomData,
        }
    }

    fn slots(numbers: &[u16]) -> Vec<Slot> {
        numbers
            .iter()
            .map(|&n| Slot {
                current: n,
                previous: n + 100,
            })
            .collect()
    }

    #[test]
    fn what_is_written_is_read_back_and_neighbours_stay() {
        let rings = rings(4);
        assert_eq!(rings.slots(), 8);
        assert!(rings.write(6, &slots(&[9, 10])));
        assert!(rings.write(2, &slots(&[1, 2, 3])));
        assert_eq!(rings.read(2, 3).unwrap(), slots(&[1, 2, 3]));
        assert_eq!(rings.slot(4), Some(slots(&[3])[0]));
        assert_eq!(
            rings.slot(5),
            Some(Slot::default()),
            "the lone slot's partner is empty"
        );
        assert_eq!(rings.read(6, 2).unwrap(), slots(&[9, 10]));
    }

    #[test]
    fn odd_starts_and_overlong_rings_are_refused() {
        let rings = rings(2);
        assert!(!rings.write(1, &slots(&[1])));
        assert!(!rings.write(2, &slots(&[1, 2, 3])));
        assert!(rings.read(0, 5).is_none());
        assert!(rings.slot(4).is_none());
        assert_eq!(
            rings.read(0, 4).unwrap(),
            vec![Slot::default(); 4],
            "nothing was written"
        );
    }

    #[test]
    fn a_packed_cell_has_the_memory_layout_of_the_abi() {
        let word = pack([
            Slot {
                current: 1,
                previous: 2,
            },
            Slot {
                current: 3,
                previous: 4,
            },
        ]);
        let expected = [1_u16, 2, 3, 4].map(u16::to_ne_bytes).concat();
        assert_eq!(word.to_ne_bytes().as_slice(), expected);
    }
}
