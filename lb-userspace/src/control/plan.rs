//! The difference between what is wanted and what is published, as writes in a safe order. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_ebpf::abi::{Backend, Forward, HashKind, Hop, Mark, Slot, Vip, VipKey, forward};
use thiserror::Error;

use super::alloc::{Extent, Full};
use super::published::{Entry, Published, Ring};
use super::slots::{self, Clock, Next};
use crate::dataplane::backend;
use crate::table::{self, Member, Table};

/// What one VIP should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedVip {
    /// Name in the configuration, for messages.
    pub name: String,
    /// Its key.
    pub key: VipKey,
    /// Forwarding mode, one of [`forward`].
    pub forward: Forward,
    /// Which fields of the flow select the slot.
    pub hash: HashKind,
    /// Slots of the ring.
    pub ring_size: u32,
    /// Who takes new flows.
    pub members: Vec<Member>,
    /// Every backend, those that take no new flows included.
    pub backends: Vec<IpAddr>,
    /// Backends that are down: their flows are dead anyway, so slots forget them at once.
    pub dead: BTreeSet<IpAddr>,
    /// Marks of the published ring's slots, as they are now; none when no slot moves.
    pub marks: Vec<Mark>,
}

/// How packets reach one backend address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Next hop; interface 0 while it is not known.
    pub hop: Hop,
    /// Largest IP packet on the way, in bytes; 0 = not checked.
    pub mtu: u16,
}

/// Everything that should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// VIPs; keys are unique.
    pub vips: Vec<WantedVip>,
    /// Ways by backend address; a missing one is not known.
    pub ways: BTreeMap<IpAddr, Way>,
    /// The time, and how long slots move.
    pub clock: Clock,
}

/// Why something wanted cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// A table is full.
    #[error("vip {vip}: {full}")]
    Full {
        /// Name of the VIP that did not fit.
        vip: String,
        /// What has run out.
        full: Full,
    },
    /// No ring can be built.
    #[error("vip {vip}: {error}")]
    Ring {
        /// Name of the VIP.
        vip: String,
        /// Why.
        error: table::Error,
    },
}

/// Writes that lead from one published state to the next, each list in any order, the lists in the
/// order in which they stand here.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Something is overwritten that packets in flight may still read: wait first.
    pub grace_period: bool,
    /// Backends that no ring names any more.
    pub backends_removed: Vec<u16>,
    /// VIP ids whose counters start anew.
    pub vip_ids_new: Vec<u32>,
    /// New backends: id and value.
    pub backends_new: Vec<(u16, Backend)>,
    /// Next hops, into the generation that is not in use.
    pub hops_staged: Vec<(u16, Backend)>,
    /// Rings, into stretches that are not in use: start, slots and their marks.
    pub rings: Vec<(u32, Arc<[Slot]>, Vec<Mark>)>,
    /// Address entries that are not there yet.
    pub addresses_new: Vec<VipKey>,
    /// Next hops: the switches.
    pub hops: Vec<(u16, Backend)>,
    /// VIPs: the flips.
    pub vips: Vec<(VipKey, Vip)>,
    /// VIPs that go.
    pub vips_removed: Vec<VipKey>,
    /// Address entries that go.
    pub addresses_removed: Vec<VipKey>,
    /// The state afterwards.
    pub next: Published,
}

impl Plan {
    /// What has to be written so that `wanted` is published.
    ///
    /// # Errors
    ///
    /// When a table is full or a ring cannot be built. Nothing is to be written then.
    pub fn new(now: &Published, wanted: &Wanted) -> Result<Self, Refused> {
        let mut plan = Self::empty(now.clone());
        plan.forget_backends(now, wanted);
        plan.learn_backends(wanted)?;
        plan.move_hops(wanted);
        for vip in &wanted.vips {
            plan.publish(vip, &wanted.clock)?;
        }
        plan.remove_vips(now, wanted);
        plan.addresses(now);
        plan.count_time(now);
        Ok(plan)
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.backends_removed.is_empty()
            && self.backends_new.is_empty()
            && self.hops.is_empty()
            && self.vips.is_empty()
            && self.vips_removed.is_empty()
            && self.addresses_new.is_empty()
            && self.addresses_removed.is_empty()
    }

    fn empty(next: Published) -> Self {
        Self {
            grace_period: false,
            backends_removed: Vec::new(),
            vip_ids_new: Vec::new(),
            backends_new: Vec::new(),
            hops_staged: Vec::new(),
            rings: Vec::new(),
            addresses_new: Vec::new(),
            hops: Vec::new(),
            vips: Vec::new(),
            vips_removed: Vec::new(),
            addresses_removed: Vec::new(),
            next,
        }
    }

    /// Backends that nobody wants and no published ring names. Rings that this plan replaces still
    /// count: their packets are in flight until the next plan.
    fn forget_backends(&mut self, now: &Published, wanted: &Wanted) {
        let wanted: BTreeSet<IpAddr> = wanted
            .vips
            .iter()
            .flat_map(|vip| vip.backends.iter().copied())
            .collect();
        for id in now
            .unnamed()
            .filter(|id| !wanted.contains(&now.backends[id].address))
        {
            if let Some(entry) = self.next.backends.remove(&id) {
                self.next.ids.remove(&entry.address);
            }
            self.next.backend_ids.free(u32::from(id));
            self.next.freed_at = now.flips;
            self.backends_removed.push(id);
            self.grace_period |= now.flips > now.graced;
        }
    }

    fn learn_backends(&mut self, wanted: &Wanted) -> Result<(), Refused> {
        for vip in &wanted.vips {
            for &address in &vip.backends {
                if self.next.ids.contains_key(&address) {
                    continue;
                }
                let id = self.next.backend_ids.take();
                let id = id.map_err(|full| Refused::Full {
                    vip: vip.name.clone(),
                    full,
                })?;
                let id = u16::try_from(id).expect("backend ids end at 2^16");
                let way = wanted.ways.get(&address).copied().unwrap_or_default();
                let value = backend::entry(address, way.hop, way.mtu);
                let flipped_at = self.next.freed_at;
                self.next.ids.insert(address, id);
                self.next.backends.insert(
                    id,
                    Entry {
                        address,
                        value,
                        flipped_at,
                    },
                );
                self.backends_new.push((id, value));
                self.grace_period |= self.next.freed_at > self.next.graced;
            }
        }
        Ok(())
    }

    fn move_hops(&mut self, wanted: &Wanted) {
        let flip = self.next.flips + 1;
        for (&id, entry) in &mut self.next.backends {
            let Some(way) = wanted.ways.get(&entry.address) else {
                continue;
            };
            if entry.value.hop() == way.hop && entry.value.mtu == way.mtu {
                continue;
            }
            self.grace_period |= entry.flipped_at > self.next.graced;
            let [staged, switched] = backend::with_hop(&entry.value, way.hop, way.mtu);
            self.hops_staged.push((id, staged));
            self.hops.push((id, switched));
            entry.value = switched;
            entry.flipped_at = flip;
        }
    }

    /// Builds the ring of one VIP, if it has to change, and its value.
    fn publish(&mut self, wanted: &WantedVip, clock: &Clock) -> Result<(), Refused> {
        let full = |full| Refused::Full {
            vip: wanted.name.clone(),
            full,
        };
        let mut ring = match self.next.vips.remove(&wanted.key) {
            Some(ring) => ring,
            None => {
                let id = self.next.vip_ids.take().map_err(full)?;
                self.vip_ids_new.push(id);
                Ring::unpublished(id)
            }
        };
        let next = self.slots(&ring, wanted, clock)?;
        let old = ring.vip;
        if let Some(next) = next {
            ring.deferred = next.deferred;
            let first = ring.generation == 0 && next.slots.is_empty();
            if first || next.slots[..] != ring.slots[..] {
                self.place_ring(&mut ring, next).map_err(full)?;
            }
        }
        ring.members = Some(wanted.members.clone());
        ring.vip.forward = wanted.forward;
        ring.vip.hash = wanted.hash;
        if ring.vip != old {
            self.vips.push((wanted.key, ring.vip));
        }
        self.next.vips.insert(wanted.key, ring);
        Ok(())
    }

    /// Puts new slots where no VIP points, and the VIP there.
    fn place_ring(&mut self, ring: &mut Ring, next: Next) -> Result<(), Full> {
        let retired = ring.live();
        let (start, idle_since) = self.place(ring, &next.slots)?;
        self.grace_period |= idle_since > self.next.graced;
        ring.vip.ring_start = start;
        ring.vip.ring_size = next.slots.len() as u32;
        ring.idle = retired;
        ring.idle_since = self.next.flips + 1;
        ring.slots = next.slots.into();
        ring.describe();
        ring.generation += 1;
        if !ring.slots.is_empty() {
            let slots = Arc::clone(&ring.slots);
            self.rings.push((start, slots, next.marks));
        }
        Ok(())
    }

    /// The slots `ring` should have; `None` when nothing has happened that could change them.
    fn slots(
        &self,
        ring: &Ring,
        wanted: &WantedVip,
        clock: &Clock,
    ) -> Result<Option<Next>, Refused> {
        let same_size = ring.vip.ring_size == wanted.ring_size;
        let same = ring.members.as_ref() == Some(&wanted.members);
        let empty = wanted.members.iter().all(|member| member.weight == 0);
        if empty {
            return Ok((ring.generation == 0 || ring.vip.ring_size > 0).then(Next::default));
        }
        let lost = self.lost(ring, wanted);
        let moving = ring.slots.iter().zip(&wanted.marks);
        let ends = ring.moving > 0
            && moving
                .into_iter()
                .any(|(slot, mark)| slot.moves() && clock.ends(*mark));
        if same_size && same && lost.is_empty() && !ends {
            return Ok(None);
        }
        let owners: Vec<u16> = if same_size && same && !ring.deferred {
            ring.slots.iter().map(|slot| slot.current).collect()
        } else {
            let build = Table::Maglev.build(&wanted.members, wanted.ring_size);
            let build = build.map_err(|error| Refused::Ring {
                vip: wanted.name.clone(),
                error,
            })?;
            let ids = self.member_ids(&wanted.members);
            build
                .into_iter()
                .map(|index| ids[usize::from(index)])
                .collect()
        };
        let next = slots::next(&ring.slots, &wanted.marks, &owners, &lost, clock);
        Ok(Some(next))
    }

    /// Ids that the ring names and that no flow can reach any more: failed, or removed.
    fn lost(&self, ring: &Ring, wanted: &WantedVip) -> BTreeSet<u16> {
        let alive = wanted.backends.iter().copied();
        let alive = alive.filter(|address| !wanted.dead.contains(address));
        let alive: BTreeSet<u16> = alive
            .filter_map(|address| self.next.backend_id(address))
            .collect();
        ring.names.difference(&alive).copied().collect()
    }

    /// Where the new slots go, and since when that place is out of use.
    fn place(&mut self, ring: &mut Ring, slots: &[Slot]) -> Result<(u32, u64), Full> {
        let size = slots.len() as u32;
        if size == 0 {
            // No ring: the old places stay with the VIP until it has one again.
            self.give_back(ring.idle.take());
            return Ok((0, 0));
        }
        match ring.idle.take() {
            Some(idle) if idle.len == Extent::of_ring(0, size).len => {
                Ok((idle.start, ring.idle_since))
            }
            other => {
                let extent = self.next.extents.take(size)?;
                let since = self.next.freed_at;
                self.give_back(other);
                Ok((extent.start, since))
            }
        }
    }

    fn give_back(&mut self, extent: Option<Extent>) {
        if let Some(extent) = extent {
            self.next.extents.free(extent);
            self.next.freed_at = self.next.flips + 1;
        }
    }

    fn remove_vips(&mut self, now: &Published, wanted: &Wanted) {
        let keys: BTreeSet<VipKey> = wanted.vips.iter().map(|vip| vip.key).collect();
        for (key, ring) in now.vips.iter().filter(|(key, _)| !keys.contains(key)) {
            self.next.vips.remove(key);
            self.next.vip_ids.free(ring.vip.id);
            self.give_back(ring.live());
            self.give_back(ring.idle);
            self.vips_removed.push(*key);
        }
        let strays = std::mem::take(&mut self.next.strays);
        self.vips_removed
            .extend(strays.into_iter().filter(|key| !keys.contains(key)));
    }

    fn addresses(&mut self, now: &Published) {
        let keys = self.next.vips.keys();
        let after: BTreeSet<VipKey> = keys.map(|key| VipKey::address_entry(key.address)).collect();
        self.addresses_new = after.difference(&now.addresses).copied().collect();
        self.addresses_removed = now.addresses.difference(&after).copied().collect();
        self.next.addresses = after;
    }

    fn count_time(&mut self, now: &Published) {
        if self.grace_period {
            self.next.graced = now.flips;
        }
        if !self.is_empty() {
            self.next.flips = now.flips + 1;
        }
    }

    fn member_ids(&self, members: &[Member]) -> Vec<u16> {
        let id = |member: &Member| self.next.backend_id(member.address).unwrap_or(0);
        members.iter().map(id).collect()
    }
}

/// The entry that marks an address as one of ours.
pub(super) const ADDRESS_ENTRY: Vip = Vip {
    ring_start: 0,
    ring_size: 0,
    id: 0,
    forward: forward::ADDRESS,
    hash: 0,
    tracking: 0,
    reserved: 0,
};

impl Ring {
    fn unpublished(id: u32) -> Self {
        Self {
            vip: Vip {
                id,
                ..ADDRESS_ENTRY
            },
            slots: Arc::from([]),
            generation: 0,
            members: None,
            names: BTreeSet::new(),
            moving: 0,
            deferred: false,
            idle: None,
            idle_since: 0,
        }
    }
}

#[cfg(test)]
mod tests;
