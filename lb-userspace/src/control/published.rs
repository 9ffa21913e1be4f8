//! What the kernel has now, as the agent remembers it, or learns it anew when it adopts pinned maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_ebpf::abi::{Backend, Mark, Slot, Vip, VipKey, forward, tracking};
use tracing::warn;

use super::alloc::{Extent, Extents, Ids};
use crate::dataplane::Sizes;
use crate::table::{Member, Table};

/// Flows of full tracking that may be remembered, as pairs of a VIP's id and a backend's.
pub type Tracked = BTreeSet<(u16, u16)>;

/// Ring slots hold backend ids in 16 bits.
const BACKEND_IDS_END: u32 = 1 << 16;

/// The state of the maps.
///
/// Time is counted in *flips*: moments at which something stopped being visible to new packets. What
/// was unpublished at flip `n` may be overwritten once a grace period has passed since, that is when
/// `graced >= n`.
#[derive(Clone, Debug)]
pub struct Published {
    /// VIPs by key.
    pub vips: BTreeMap<VipKey, Ring>,
    /// Backends by id.
    pub backends: BTreeMap<u16, Entry>,
    /// Ids by address.
    pub(super) ids: BTreeMap<IpAddr, u16>,
    /// Address entries, as they stand in the map.
    pub(super) addresses: BTreeSet<VipKey>,
    /// Keys in the map that no agent can have meant; the next plan replaces or removes them.
    pub(super) strays: BTreeSet<VipKey>,
    pub(super) vip_ids: Ids,
    pub(super) backend_ids: Ids,
    pub(super) extents: Extents,
    /// Flip at which stretches or ids were last given back.
    pub(super) freed_at: u64,
    /// The latest flip.
    pub(super) flips: u64,
    /// The latest flip that a grace period has followed.
    pub(super) graced: u64,
    /// Whose flows full tracking may remember.
    pub(super) tracked: Tracked,
    /// Flip at which somebody was last taken from `tracked`, until the flow table is free of what
    /// packets in flight have remembered since.
    pub(super) lost_at: Option<u64>,
}

/// One VIP in the kernel.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Its map value.
    pub vip: Vip,
    /// Its slots.
    pub slots: Arc<[Slot]>,
    /// Times it was published by this process.
    pub generation: u64,
    /// How its ring was built, and of which members; `None` when another process built it.
    pub(super) built: Option<(Table, Arc<[Member]>)>,
    /// Ids that the slots name, now or before; ascending.
    pub(super) names: Arc<[u16]>,
    /// Slots that remember an earlier owner.
    pub moving: u32,
    /// Slots that do not yet have the owner they should have: they still move.
    pub deferred: u32,
    /// The generation that is not in use, once there was one.
    pub(super) idle: Option<Extent>,
    /// Whether slots of the ring in `idle` moved, so that it has marks. Those of a ring without are of
    /// earlier moves, and seconds repeat.
    pub(super) idle_moved: bool,
    /// Flip at which `idle` went out of use.
    pub(super) idle_since: u64,
    /// Until this second, by the clock of [`Mark`], hits may have been noted where nobody knows to look.
    pub(super) unheard_s: Option<u16>,
}

/// One backend in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where packets go.
    pub address: IpAddr,
    /// Its map value.
    pub value: Backend,
    /// Flip at which the idle generation of its next hop went out of use.
    pub(super) flipped_at: u64,
}

impl Published {
    /// Empty maps.
    pub fn new(sizes: Sizes) -> Self {
        Self {
            vips: BTreeMap::new(),
            backends: BTreeMap::new(),
            ids: BTreeMap::new(),
            addresses: BTreeSet::new(),
            strays: BTreeSet::new(),
            vip_ids: Ids::new("VIPs", 0, sizes.vips),
            backend_ids: Ids::new("backends", 1, sizes.backends.min(BACKEND_IDS_END)),
            extents: Extents::new(sizes.ring_slots),
            freed_at: 0,
            flips: 0,
            graced: 0,
            tracked: Tracked::new(),
            lost_at: None,
        }
    }

    /// Maps as another process left them, which are read at `now_s`, by the clock of [`Mark`]. `ring`
    /// reads slots from the ring map.
    ///
    /// Entries that contradict each other, which no agent can have written, become strays.
    pub fn adopt(
        sizes: Sizes,
        vips: Vec<(VipKey, Vip)>,
        backends: Vec<(u16, Backend)>,
        ring: impl Fn(u32, u32) -> Option<Vec<Slot>>,
        now_s: u16,
    ) -> Self {
        // Nothing is known about the past: whatever is overwritten first waits for a grace period, and
        // full tracking may remember anybody.
        let mut adopted = Self {
            flips: 1,
            freed_at: 1,
            lost_at: Some(1),
            ..Self::new(sizes)
        };
        for (id, value) in backends {
            // Of two entries for one address, the later one is as good as gone.
            let address = IpAddr::from(value.address);
            if !adopted.ids.contains_key(&address) && adopted.backend_ids.claim(u32::from(id)) {
                let entry = Entry {
                    address,
                    value,
                    flipped_at: 1,
                };
                adopted.ids.insert(address, id);
                adopted.backends.insert(id, entry);
            }
        }
        for (key, vip) in vips {
            adopted.adopt_vip(key, vip, &ring, now_s);
        }
        let full = |ring: &&Ring| ring.vip.tracking == tracking::FULL;
        let vips = adopted.vips.values().filter(full);
        let pairs = vips.flat_map(|ring| {
            let id = ring.vip.id as u16;
            adopted.backends.keys().map(move |&backend| (id, backend))
        });
        adopted.tracked = pairs.collect();
        adopted
    }

    fn adopt_vip(
        &mut self,
        key: VipKey,
        vip: Vip,
        ring: impl Fn(u32, u32) -> Option<Vec<Slot>>,
        now_s: u16,
    ) {
        if vip.forward == forward::ADDRESS {
            self.addresses.insert(key);
            return;
        }
        let extent = Extent::of_ring(vip.ring_start, vip.ring_size);
        let slots = match vip.ring_size {
            0 => Some(Vec::new()),
            size => ring(vip.ring_start, size).filter(|_| self.extents.claim(extent)),
        };
        match slots {
            Some(slots) if self.vip_ids.claim(vip.id) => {
                self.vips.insert(key, Ring::adopted(vip, slots, now_s));
            }
            _ => {
                warn!(
                    ?key,
                    ?vip,
                    "a pinned VIP contradicts the others; it is replaced"
                );
                self.strays.insert(key);
            }
        }
    }

    /// The latest flip, if packets in flight may still see what it took out of use.
    pub fn pending_flip(&self) -> Option<u64> {
        (self.flips > self.graced).then_some(self.flips)
    }

    /// Notes that a publish has failed half-way and was taken back at `now_s`, by the clock of [`Mark`]:
    /// packets may have seen what it had written, and may have left their hits there. So whatever is
    /// overwritten next waits until they are through, and everybody counts as heard now.
    pub fn taken_back(&mut self, now_s: u16) {
        self.flips += 1;
        self.freed_at = self.flips;
        for ring in self.vips.values_mut() {
            ring.idle_since = self.flips;
            ring.unheard_s = Some(now_s);
        }
        for entry in self.backends.values_mut() {
            entry.flipped_at = self.flips;
        }
    }

    /// Notes that a grace period has passed which began after `flip`.
    pub fn grace_passed(&mut self, flip: u64) {
        self.graced = self.graced.max(flip.min(self.flips));
    }

    /// The id of the backend at `address`.
    pub fn backend_id(&self, address: IpAddr) -> Option<u16> {
        self.ids.get(&address).copied()
    }

    /// Addresses that own slots of the VIP `key`, with the number of slots.
    pub fn owners(&self, key: &VipKey) -> BTreeMap<IpAddr, u32> {
        // A ring has tens of thousands of slots, so they are counted without a look-up for each.
        let mut counts = vec![0_u32; BACKEND_IDS_END as usize];
        for slot in self.vips.get(key).map_or(&[][..], |ring| &ring.slots) {
            counts[usize::from(slot.current)] += 1;
        }
        let mut owners = BTreeMap::new();
        for (id, entry) in &self.backends {
            let slots = counts[usize::from(*id)];
            if slots > 0 {
                *owners.entry(entry.address).or_default() += slots;
            }
        }
        owners
    }

    /// The marks of the slots of the VIP `key`, as the data path left them; none while no slot moves.
    /// `read` reads from the mark map.
    ///
    /// A ring is published with the marks that the ring before it had when it was planned. Hits between
    /// that moment and the flip were noted at the earlier ring's place, which nobody has overwritten.
    /// Where that place is, only the process knows that has published the ring; and what was published
    /// and taken back nobody remembers. Then all who are previous' count as heard at that moment: slots
    /// that move do so a little longer.
    pub fn marks(
        &self,
        key: &VipKey,
        read: impl Fn(u32, u32) -> Option<Vec<Mark>>,
    ) -> Option<Vec<Mark>> {
        let ring = self.vips.get(key).filter(|ring| ring.moving > 0)?;
        let size = ring.vip.ring_size;
        let mut marks = read(ring.vip.ring_start, size)?;
        let before = ring
            .idle
            .filter(|idle| ring.idle_moved && idle.len == Extent::of_ring(0, size).len);
        let before = before.and_then(|idle| read(idle.start, size));
        for (mark, before) in marks.iter_mut().zip(before.into_iter().flatten()) {
            *mark = later_hit(*mark, before);
        }
        if let Some(hit) = ring.unheard_s {
            for mark in &mut marks {
                *mark = later_hit(*mark, Mark { hit, ..*mark });
            }
        }
        Some(marks)
    }

    /// Whether no slot of the VIP `key` remembers an earlier owner.
    pub fn is_settled(&self, key: &VipKey) -> bool {
        self.vips.get(key).is_none_or(|ring| ring.moving == 0)
    }

    /// Backends that no ring names, and that full tracking does not remember: address and id.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        let mut named = vec![false; BACKEND_IDS_END as usize];
        let names = self.vips.values().flat_map(|ring| &*ring.names);
        for &id in names.chain(self.tracked.iter().map(|(_, backend)| backend)) {
            named[usize::from(id)] = true;
        }
        let backends = self.backends.iter();
        let unnamed = backends.filter(move |(id, _)| !named[usize::from(**id)]);
        unnamed.map(|(id, entry)| (entry.address, *id))
    }
}

/// `mark`, with the hit of `other` if that one is of the same move and later.
fn later_hit(mark: Mark, other: Mark) -> Mark {
    // Seconds modulo 2^16, of which a move lasts less. The data path's clock may lag behind the one by
    // which the move was dated, and be a second short.
    let age_s = |mark: Mark| match mark.hit.wrapping_sub(mark.since) {
        u16::MAX => 0,
        age_s => age_s,
    };
    if age_s(other) > age_s(mark) && other.since == mark.since {
        other
    } else {
        mark
    }
}

impl Ring {
    fn adopted(vip: Vip, slots: Vec<Slot>, now_s: u16) -> Self {
        let mut ring = Self {
            slots: slots.into(),
            idle_since: 1,
            unheard_s: Some(now_s),
            ..Self::unpublished(vip)
        };
        ring.describe();
        ring
    }

    /// A VIP without a ring.
    pub(super) fn unpublished(vip: Vip) -> Self {
        Self {
            vip,
            slots: Arc::from([]),
            generation: 0,
            built: None,
            names: Arc::from([]),
            moving: 0,
            deferred: 0,
            idle: None,
            idle_moved: false,
            idle_since: 0,
            unheard_s: None,
        }
    }

    /// The stretch in use.
    pub(super) fn live(&self) -> Option<Extent> {
        (self.vip.ring_size > 0).then(|| Extent::of_ring(self.vip.ring_start, self.vip.ring_size))
    }

    /// Notes what the slots say: whom they name, and whether they are settled.
    pub(super) fn describe(&mut self) {
        // Ids are handed out from below, so a table up to the highest one is short.
        let highest = self
            .slots
            .iter()
            .map(|slot| slot.current.max(slot.previous));
        let highest = highest.max().unwrap_or(0);
        let mut named = vec![false; usize::from(highest) + 1];
        self.moving = 0;
        for slot in &*self.slots {
            named[usize::from(slot.current)] = true;
            named[usize::from(slot.previous)] = true;
            self.moving += u32::from(slot.moves());
        }
        let ids = 1..=highest;
        self.names = ids.filter(|&id| named[usize::from(id)]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::ADDRESS_ENTRY;
    use super::*;

    const SIZES: Sizes = Sizes {
        vips: 1,
        backends: 3,
        ring_slots: 8,
        exceptions: 2,
        flows: 2,
        inserts_per_second: 1,
    };

    #[test]
    fn what_nobody_told_the_new_agent_came_when_it_adopted_the_ring() {
        let vip = Vip {
            ring_size: 4,
            forward: forward::IPIP,
            ..ADDRESS_ENTRY
        };
        let key = VipKey::new(IpAddr::from([192, 0, 2, 1]).into(), 443, 6);
        let moves = Slot {
            current: 1,
            previous: 2,
        };
        let mark = |since, hit| Mark { since, hit };
        // When it is adopted; mark in the map, and as the agent takes it.
        for (now_s, noted, taken) in [
            (1030, mark(1000, 1005), mark(1000, 1030)),
            (1030, mark(1000, 1040), mark(1000, 1040)),
            (1030, mark(1030, 1029), mark(1030, 1029)),
            (40_000, mark(1000, 1005), mark(1000, 40_000)),
            (3, mark(65_530, 65_535), mark(65_530, 3)),
            (65_535, mark(65_530, 2), mark(65_530, 2)),
        ] {
            let ring = |_, len| Some(vec![moves; len as usize]);
            let published = Published::adopt(SIZES, vec![(key, vip)], Vec::new(), ring, now_s);
            let read = |_, len| Some(vec![noted; len as usize]);
            assert_eq!(published.marks(&key, read), Some(vec![taken; 4]), "{now_s}");
            // It publishes, and that is taken back a second later.
            let mut failed = published.clone();
            failed.taken_back(now_s.wrapping_add(1));
            let marks = failed.marks(&key, |_, len| Some(vec![mark(1000, 1005); len as usize]));
            let hit = marks.map(|marks| marks[0].hit);
            assert_eq!(hit, Some(now_s.wrapping_add(1)), "{now_s}");
        }
    }

    #[test]
    fn what_lies_where_no_slot_moved_is_of_earlier_moves() {
        let vip = Vip {
            ring_size: 4,
            forward: forward::IPIP,
            ..ADDRESS_ENTRY
        };
        let key = VipKey::new(IpAddr::from([192, 0, 2, 1]).into(), 443, 6);
        let moves = Slot {
            current: 1,
            previous: 2,
        };
        // A move of 18 hours ago, to the second, was hit until 180.
        let mark = |hit| Mark { since: 100, hit };
        let read = |start, len| {
            let hit = if start == 0 { 120 } else { 180 };
            Some(vec![mark(hit); len as usize])
        };
        for (idle_moved, hit) in [(true, 180), (false, 120)] {
            let ring = Ring {
                idle: Some(Extent::of_ring(4, 4)),
                idle_moved,
                unheard_s: None,
                ..Ring::adopted(vip, vec![moves; 4], 100)
            };
            let published = Published {
                vips: BTreeMap::from([(key, ring)]),
                ..Published::new(SIZES)
            };
            assert_eq!(published.marks(&key, read), Some(vec![mark(hit); 4]));
        }
    }

    #[test]
    fn the_later_hit_of_the_same_move_counts() {
        let mark = |since, hit| Mark { since, hit };
        for (now, before, result) in [
            (mark(100, 120), mark(100, 121), mark(100, 121)),
            (mark(100, 120), mark(100, 119), mark(100, 120)),
            (mark(100, 120), mark(99, 121), mark(100, 120)),
            (mark(65_530, 65_535), mark(65_530, 2), mark(65_530, 2)),
            (mark(65_530, 2), mark(65_530, 65_535), mark(65_530, 2)),
            // Hits that are far apart, and one by a clock that lags.
            (mark(0, 10), mark(0, 50_000), mark(0, 50_000)),
            (mark(0, 50_000), mark(0, 10), mark(0, 50_000)),
            (mark(100, 120), mark(100, 99), mark(100, 120)),
            (mark(100, 99), mark(100, 120), mark(100, 120)),
        ] {
            assert_eq!(later_hit(now, before), result, "{now:?} {before:?}");
        }
    }
}
