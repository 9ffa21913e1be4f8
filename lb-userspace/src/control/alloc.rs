//! Who gets which numbers: ids and stretches of the ring map. Pure.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// A table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("all {limit} {what} are in use")]
pub struct Full {
    /// What has run out.
    pub what: &'static str,
    /// How many there are.
    pub limit: u32,
}

/// Ids from a range, lowest free first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    what: &'static str,
    first: u32,
    end: u32,
    used: BTreeSet<u32>,
    /// No id below is free.
    lowest: u32,
}

impl Ids {
    /// Ids from `first` up to, but without, `end`.
    pub fn new(what: &'static str, first: u32, end: u32) -> Self {
        Self {
            what,
            first,
            end,
            used: BTreeSet::new(),
            lowest: first,
        }
    }

    /// The lowest free id.
    pub fn take(&mut self) -> Result<u32, Full> {
        let free = (self.lowest..self.end).find(|id| !self.used.contains(id));
        let full = Full {
            what: self.what,
            limit: self.end.saturating_sub(self.first),
        };
        let id = free.ok_or(full)?;
        self.used.insert(id);
        self.lowest = id + 1;
        Ok(id)
    }

    /// Marks `id` as used. False when it is used already or out of range.
    pub fn claim(&mut self, id: u32) -> bool {
        (self.first..self.end).contains(&id) && self.used.insert(id)
    }

    /// Gives `id` back.
    pub fn free(&mut self, id: u32) {
        if self.used.remove(&id) {
            self.lowest = self.lowest.min(id);
        }
    }
}

/// A stretch of ring slots: one generation of one VIP's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First slot; even.
    pub start: u32,
    /// Slots; even.
    pub len: u32,
}

impl Extent {
    /// The stretch that a ring of `ring_size` slots at `start` takes up.
    pub fn of_ring(start: u32, ring_size: u32) -> Self {
        Self {
            start,
            len: ring_size.next_multiple_of(2),
        }
    }
}

/// The ring map, as stretches in use. First fit: with rings of few sizes, holes are filled again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    slots: u32,
    /// Length by start.
    used: BTreeMap<u32, u32>,
}

impl Extents {
    /// A map of `slots` slots, all free.
    pub fn new(slots: u32) -> Self {
        Self {
            slots,
            used: BTreeMap::new(),
        }
    }

    /// A stretch for a ring of `ring_size` slots.
    pub fn take(&mut self, ring_size: u32) -> Result<Extent, Full> {
        let full = Full {
            what: "ring slots",
            limit: self.slots,
        };
        let len = ring_size.checked_next_multiple_of(2).ok_or(full)?;
        let mut start = 0_u32;
        for (&used, &used_len) in &self.used {
            if used - start >= len {
                break;
            }
            start = used + used_len;
        }
        if self.slots - start < len {
            return Err(full);
        }
        self.used.insert(start, len);
        Ok(Extent { start, len })
    }

    /// Marks `extent` as used. False when part of it is used already, or beyond the end, or odd.
    pub fn claim(&mut self, extent: Extent) -> bool {
        let Some(end) = extent.start.checked_add(extent.len) else {
            return false;
        };
        let even = extent.start.is_multiple_of(2) && extent.len.is_multiple_of(2);
        let before = self.used.range(..end).next_back();
        let overlaps = before.is_some_and(|(start, len)| start + len > extent.start);
        if !even || overlaps || end > self.slots || extent.len == 0 {
            return false;
        }
        self.used.insert(extent.start, extent.len);
        true
    }

    /// Gives `extent` back.
    pub fn free(&mut self, extent: Extent) {
        self.used.remove(&extent.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_lowest_free_ones_up_to_the_limit() {
        let mut ids = Ids::new("backends", 1, 4);
        assert!(ids.claim(2));
        assert!(!ids.claim(2), "claimed twice");
        assert!(!ids.claim(0) && !ids.claim(4), "out of range");
        assert_eq!([ids.take(), ids.take()], [Ok(1), Ok(3)]);
        assert_eq!(
            ids.take(),
            Err(Full {
                what: "backends",
                limit: 3
            })
        );
        ids.free(2);
        assert_eq!(ids.take(), Ok(2));
    }

    #[test]
    fn extents_are_even_first_fit_and_disjoint() {
        let mut extents = Extents::new(20);
        let take = |extents: &mut Extents, size| extents.take(size).map(|e| (e.start, e.len));
        assert_eq!(take(&mut extents, 5), Ok((0, 6)));
        assert_eq!(take(&mut extents, 4), Ok((6, 4)));
        assert_eq!(take(&mut extents, 6), Ok((10, 6)));
        assert!(take(&mut extents, 5).is_err(), "only 4 are left");
        extents.free(Extent { start: 6, len: 4 });
        assert_eq!(take(&mut extents, 3), Ok((6, 4)), "the hole is filled");
        assert_eq!(
            take(&mut extents, 4),
            Ok((16, 4)),
            "the last slot can be had"
        );
        assert_eq!(
            take(&mut extents, 1),
            Err(Full {
                what: "ring slots",
                limit: 20
            })
        );
    }

    #[test]
    fn claims_that_overlap_or_leave_the_map_are_refused() {
        let mut extents = Extents::new(20);
        assert!(extents.claim(Extent { start: 8, len: 4 }));
        for (start, len) in [
            (8, 4),
            (6, 4),
            (10, 2),
            (0, 20),
            (18, 4),
            (7, 2),
            (0, 0),
            (u32::MAX, 2),
        ] {
            assert!(!extents.claim(Extent { start, len }), "{start}+{len}");
        }
        assert!(extents.claim(Extent { start: 0, len: 8 }));
        assert!(extents.claim(Extent { start: 12, len: 8 }));
    }
}
