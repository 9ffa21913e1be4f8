//! Rings in the mapped ring array: slots, two to a cell.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use lb_ebpf::abi::{RingCell, SLOTS_PER_CELL, Slot};

use super::mmap::Cells;

/// All slots of all rings.
#[derive(Debug)]
pub(super) struct Rings {
    cells: Cells,
}

impl Rings {
    /// Maps the array behind `fd`, which has `cells` elements.
    pub(super) fn of_map(fd: BorrowedFd<'_>, cells: u32) -> io::Result<Self> {
        let cells = Cells::of_map(fd, cells as usize)?;
        Ok(Self { cells })
    }

    /// Number of slots.
    pub(super) fn slots(&self) -> usize {
        self.cells.len() * SLOTS_PER_CELL as usize
    }

    /// Writes `slots` from slot `start` on, which must be even. A lone last slot is paired with an
    /// empty one. Returns false, with nothing written, when they do not fit.
    ///
    /// The slots must not be in use: nothing orders the cells of one call among each other.
    pub(super) fn write(&self, start: u32, slots: &[Slot]) -> bool {
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
    pub(super) fn read(&self, start: u32, len: u32) -> Option<Vec<Slot>> {
        let cells = self.cells_of(start, len as usize)?;
        let slots = cells
            .iter()
            .flat_map(|cell| unpack(cell.load(Ordering::Relaxed)).slots);
        Some(slots.take(len as usize).collect())
    }

    /// The slot at `index`.
    pub(super) fn slot(&self, index: u32) -> Option<Slot> {
        let cell = unpack(self.cells.load((index / SLOTS_PER_CELL) as usize)?);
        Some(cell.slots[(index % SLOTS_PER_CELL) as usize])
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

/// A cell as one word, fields in the order in which [`RingCell`] lays them out in memory.
fn pack([first, second]: [Slot; 2]) -> u64 {
    let [a, b] = first.current.to_ne_bytes();
    let [c, d] = first.previous.to_ne_bytes();
    let [e, f] = second.current.to_ne_bytes();
    let [g, h] = second.previous.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The opposite of [`pack`].
fn unpack(word: u64) -> RingCell {
    let bytes = word.to_ne_bytes();
    let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let slot = |at: usize| Slot {
        current: half(at),
        previous: half(at + 2),
    };
    RingCell {
        slots: [slot(0), slot(4)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(cells: usize) -> Rings {
        Rings {
            cells: Cells::anonymous(cells).unwrap(),
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
