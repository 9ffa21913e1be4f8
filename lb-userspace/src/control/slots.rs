//! The life of a slot: settled → moving → settled. Pure.
//!
//! - A *planned* change (a backend added, drained, re-weighted, healed) gives a settled slot a new
//!   owner and keeps the old one as previous: the data path leads live flows to it.
//! - While a slot moves it takes no further planned change: the data path can tell two owners apart,
//!   not three. The change is *deferred*, slot by slot; the others go ahead.
//! - An owner that is *lost* (failed, or removed from the configuration) goes at once and is never
//!   previous: its flows are dead anyway. If the slot was moving from a live previous owner, that one
//!   stays, and the move goes on towards another owner.
//! - The owner may be *nobody* (0), when the last backend is drained: that is a planned change like any
//!   other, so live flows stay until they are quiet. There are no new ones to tell apart from, so a
//!   backend that comes back takes the slot over at once.
//! - A slot settles when its previous owner had no packet for a while, or at a deadline, which cuts
//!   the flows that previous still has. A deferred change may follow at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use lb_ebpf::abi::{Mark, Slot};

/// What time it is, and how long slots move. All in seconds; `now` as [`Mark`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The monotonic clock, modulo 2^16.
    pub now: u16,
    /// A slot settles when its previous owner had no packet for so long.
    pub quiet: u16,
    /// A slot settles when it has moved for so long.
    pub deadline: u16,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            now: 0,
            quiet: 60,
            deadline: 15 * 60,
        }
    }
}

impl Clock {
    /// Whether a moving slot with this mark is to settle.
    pub fn ends(&self, mark: Mark) -> bool {
        let age = self.now.wrapping_sub(mark.since);
        let quiet = self.now.wrapping_sub(mark.hit).min(age);
        quiet >= self.quiet || age >= self.deadline
    }
}

/// Slots and what goes with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// The slots.
    pub slots: Arc<[Slot]>,
    /// Their marks; those of settled slots are 0 and mean nothing.
    pub marks: Vec<Mark>,
    /// How many slots do not have the owner they should have: they still move.
    pub deferred: u32,
}

impl Next {
    /// Slots that remember nothing: everybody in the place he should have.
    pub fn at_once(owners: &[u16]) -> Self {
        Self {
            slots: owners.iter().map(|&owner| Slot::settled(owner)).collect(),
            marks: vec![Mark::default(); owners.len()],
            deferred: 0,
        }
    }
}

/// Gives the slots `old`, whose marks are `marks`, the owners they should have, as far as they may.
///
/// Marks may be missing: then moves begin now. Slots in another number belong to other flows, so
/// there is nothing to remember.
pub fn next(
    old: &[Slot],
    marks: &[Mark],
    owners: &[u16],
    lost: &BTreeSet<u16>,
    clock: &Clock,
) -> Next {
    if old.len() != owners.len() {
        return Next::at_once(owners);
    }
    let mut next_marks = vec![Mark::default(); old.len()];
    let mut deferred = 0;
    // Most slots of a long ring stay as they are: what is done for each is little.
    let pairs = old.iter().zip(owners).zip(&mut next_marks).enumerate();
    let slots = pairs.map(|(index, ((&slot, &owner), next_mark))| {
        if slot == Slot::settled(owner) {
            return slot;
        }
        let mark = marks.get(index).copied();
        let mark = mark.unwrap_or(Mark::begun(clock.now));
        let (slot, mark) = step(slot, mark, owner, lost, clock);
        deferred += u32::from(slot.current != owner);
        *next_mark = mark;
        slot
    });
    Next {
        slots: slots.collect(),
        marks: next_marks,
        deferred,
    }
}

fn step(slot: Slot, mark: Mark, owner: u16, lost: &BTreeSet<u16>, clock: &Clock) -> (Slot, Mark) {
    let Slot { current, previous } = slot;
    let moves = slot.moves() && !lost.contains(&previous) && !clock.ends(mark);
    // Without an owner there is nobody to remember, but whoever the slot comes from.
    if current == 0 || lost.contains(&current) {
        let previous = if moves { previous } else { owner };
        let slot = Slot {
            current: owner,
            previous,
        };
        return (slot, if slot.moves() { mark } else { Mark::default() });
    }
    if moves {
        return (slot, mark);
    }
    if current == owner {
        return (Slot::settled(current), Mark::default());
    }
    let moved = Slot {
        current: owner,
        previous: current,
    };
    (moved, Mark::begun(clock.now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock {
        now: 1000,
        quiet: 60,
        deadline: 900,
    };

    fn slot(current: u16, previous: u16) -> Slot {
        Slot { current, previous }
    }

    #[test]
    fn every_step_of_a_life() {
        let young = Mark {
            since: 950,
            hit: 999,
        };
        let silent = Mark {
            since: 900,
            hit: 940,
        };
        let late = Mark {
            since: 100,
            hit: 1000,
        };
        let none = Mark::default();
        let begun = Mark::begun(1000);
        let cases = [
            // What, slot, mark, wanted owner, lost, slot and mark afterwards.
            ("stays", slot(1, 1), none, 1, 9, slot(1, 1), none),
            ("begins to move", slot(1, 1), none, 2, 9, slot(2, 1), begun),
            ("fails settled", slot(1, 1), none, 2, 1, slot(2, 2), none),
            ("goes on", slot(2, 1), young, 2, 9, slot(2, 1), young),
            ("is deferred", slot(2, 1), young, 3, 9, slot(2, 1), young),
            (
                "turns back later",
                slot(2, 1),
                young,
                1,
                9,
                slot(2, 1),
                young,
            ),
            ("loses current", slot(2, 1), young, 3, 2, slot(3, 1), young),
            (
                "loses current, back",
                slot(2, 1),
                young,
                1,
                2,
                slot(1, 1),
                none,
            ),
            ("loses previous", slot(2, 1), young, 2, 1, slot(2, 2), none),
            (
                "loses previous, moves",
                slot(2, 1),
                young,
                3,
                1,
                slot(3, 2),
                begun,
            ),
            ("is quiet", slot(2, 1), silent, 2, 9, slot(2, 2), none),
            (
                "is quiet, moves on",
                slot(2, 1),
                silent,
                3,
                9,
                slot(3, 2),
                begun,
            ),
            ("is late", slot(2, 1), late, 2, 9, slot(2, 2), none),
            ("had no owner", slot(0, 0), none, 2, 9, slot(2, 2), none),
            ("stays nobody's", slot(0, 0), none, 0, 9, slot(0, 0), none),
            ("moves to nobody", slot(1, 1), none, 0, 9, slot(0, 1), begun),
            (
                "goes on to nobody",
                slot(0, 1),
                young,
                0,
                9,
                slot(0, 1),
                young,
            ),
            ("is nobody's", slot(0, 1), silent, 0, 9, slot(0, 0), none),
            (
                "is nobody's, late",
                slot(0, 1),
                late,
                0,
                9,
                slot(0, 0),
                none,
            ),
            ("fails to nobody", slot(1, 1), none, 0, 1, slot(0, 0), none),
            (
                "fails as nobody's",
                slot(0, 1),
                young,
                0,
                1,
                slot(0, 0),
                none,
            ),
            (
                "has an owner again",
                slot(0, 1),
                young,
                2,
                9,
                slot(2, 1),
                young,
            ),
            (
                "has its owner again",
                slot(0, 1),
                young,
                1,
                9,
                slot(1, 1),
                none,
            ),
            (
                "has an owner at last",
                slot(0, 1),
                silent,
                2,
                9,
                slot(2, 2),
                none,
            ),
            (
                "loses current to nobody",
                slot(2, 1),
                young,
                0,
                2,
                slot(0, 1),
                young,
            ),
            (
                "is deferred to nobody",
                slot(2, 1),
                young,
                0,
                9,
                slot(2, 1),
                young,
            ),
        ];
        for (what, before, mark, owner, lost, after, mark_after) in cases {
            let next = next(
                &[before],
                &[mark],
                &[owner],
                &BTreeSet::from([lost]),
                &CLOCK,
            );
            assert_eq!(*next.slots, [after], "{what}");
            assert_eq!(next.deferred, u32::from(after.current != owner), "{what}");
            assert_eq!(next.marks, [mark_after], "{what}");
        }
    }

    #[test]
    fn a_slot_settles_at_its_very_second_also_when_the_clock_wraps() {
        for (now, since, hit, ends) in [
            (1000, 900, 941, false),
            (1000, 900, 940, true),
            (1000, 941, 941, false),
            (1000, 101, 1000, false),
            (1000, 100, 1000, true),
            (10, 65_500, 65_487, false),
            (24, 65_500, 65_500, true),
        ] {
            let clock = Clock { now, ..CLOCK };
            let what = format!("at {now}: since {since}, hit {hit}");
            assert_eq!(clock.ends(Mark { since, hit }), ends, "{what}");
        }
    }

    #[test]
    fn at_once_is_without_memory() {
        let next = Next::at_once(&[3, 0]);
        assert_eq!(*next.slots, [slot(3, 3), slot(0, 0)]);
        assert_eq!((next.marks.len(), next.deferred), (2, 0));
    }

    #[test]
    fn another_ring_size_remembers_nothing_and_missing_marks_begin_now() {
        let none = BTreeSet::new();
        let resized = next(&[slot(1, 2)], &[], &[3, 4], &none, &CLOCK);
        assert_eq!(*resized.slots, [Slot::settled(3), Slot::settled(4)]);
        let adopted = next(&[slot(1, 2)], &[], &[1], &none, &CLOCK);
        assert_eq!(
            (&*adopted.slots, adopted.marks),
            (&[slot(1, 2)][..], vec![Mark::begun(1000)])
        );
    }
}
