//! A hash table from texts of the configuration to small numbers, made for few cache misses: a
//! slot holds 32 bits of the hash beside the number, so that the line it stands in tells almost
//! always which entry is the right one, and eight slots share a line.
//!
//! What a request brings is only looked up, so nobody can fill it with texts that collide, and a
//! quick hash will do. How long a look-up may take is settled when the table is made.

use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::FixedState;

/// In place of a number: the slot is free.
const FREE: u32 = u32::MAX;

/// The table.
#[derive(Debug)]
pub(super) struct Slots {
    /// A power of two of them, at least one free.
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The upper half of the hash; the lower half chose the slot.
    fingerprint: u32,
    number: u32,
}

/// The hash of a text below something that has a number.
pub(super) fn hash(below: u32, text: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(text);
    hasher.write_u32(below);
    hasher.finish()
}

impl Slots {
    /// A table of hashes with their numbers, which are below `u32::MAX`.
    pub(super) fn new(entries: &[(u64, u32)]) -> Self {
        // At most two thirds are taken.
        let slots = (entries.len() + entries.len() / 2 + 1).next_power_of_two();
        let free = Slot {
            fingerprint: 0,
            number: FREE,
        };
        let mut slots = vec![free; slots].into_boxed_slice();
        let mask = slots.len() - 1;
        for (hash, number) in entries {
            let mut at = *hash as usize & mask;
            while slots[at].number != FREE {
                at = (at + 1) & mask;
            }
            slots[at] = Slot {
                fingerprint: (hash >> 32) as u32,
                number: *number,
            };
        }
        Self { slots }
    }

    /// The number of this hash for which `is` holds, which compares the whole text.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.number == FREE {
                return None;
            }
            if slot.fingerprint == (hash >> 32) as u32 && is(slot.number) {
                return Some(slot.number);
            }
            at = (at + 1) & mask;
        }
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_and_nothing_else() {
        for count in [0, 1, 2, 3, 4, 5, 100, 1000] {
            let texts: Vec<String> = (0..count).map(|n| format!("text{n}")).collect();
            let entries: Vec<(u64, u32)> = texts
                .iter()
                .zip(0..)
                .map(|(text, number)| (hash(7, text.as_bytes()), number))
                .collect();
            let table = Slots::new(&entries);
            let find = |below, text: &str| {
                let is = |number: u32| texts[number as usize] == text;
                table.find(hash(below, text.as_bytes()), is)
            };
            for (text, number) in texts.iter().zip(0..) {
                assert_eq!(find(7, text), Some(number), "{text} of {count}");
                assert_eq!(find(8, text), None, "{text} below another");
            }
            assert_eq!(find(7, "other"), None);
        }
    }

    #[test]
    fn entries_of_one_hash_are_told_apart_by_their_text() {
        let table = Slots::new(&[(5, 0), (5, 1), (5, 2)]);
        for wanted in 0..3 {
            assert_eq!(table.find(5, |number| number == wanted), Some(wanted));
        }
        assert_eq!(table.find(5, |_| false), None);
        // The same slot, another fingerprint.
        assert_eq!(table.find(5 | 1 << 32, |_| true), None);
    }
}
