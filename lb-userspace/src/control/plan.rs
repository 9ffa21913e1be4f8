//! The difference between what is wanted and what is published, as writes in a safe order. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_ebpf::abi::{Backend, Forward, HashKind, Hop, Mark, Slot, Vip, VipKey, forward, tracking};
use thiserror::Error;

use super::alloc::Full;
use super::published::{Entry, Published, Tracked};
use super::slots::Clock;
use crate::config::Tracking;
use crate::dataplane::backend;
use crate::table::{self, Member, Table};

mod ring;

use ring::Build;

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
    /// How the owners of the slots are found.
    pub table: Table,
    /// What is remembered of its flows.
    pub tracking: Tracking,
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
    /// Full tracking may still remember what was lost before: packets in flight saw it, or still asked
    /// for it. What is not tracked now is to be forgotten before an id is used again, and before a VIP
    /// is tracked again.
    pub stale_flows: bool,
    /// Backends that no ring names any more.
    pub backends_removed: Vec<u16>,
    /// VIP ids whose counters start anew.
    pub vip_ids_new: Vec<u32>,
    /// New backends: id and value.
    pub backends_new: Vec<(u16, Backend)>,
    /// Next hops, into the generation that is not in use.
    pub hops_staged: Vec<(u16, Backend)>,
    /// Rings, into stretches that are not in use: start, slots and their marks, if some slot moves.
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
    /// Full tracking is to forget these flows, of backends that are lost now.
    pub lost_flows: Tracked,
    /// The state afterwards.
    pub next: Published,
    /// The last table that was built on the way.
    last_build: Option<Build>,
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
        plan.track(now, wanted);
        plan.count_time(now);
        Ok(plan)
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.is_invisible() && !self.stale_flows
    }

    /// Whether packets and this agent's next plans find everything as it was.
    fn is_invisible(&self) -> bool {
        self.backends_removed.is_empty()
            && self.backends_new.is_empty()
            && self.hops.is_empty()
            && self.vips.is_empty()
            && self.vips_removed.is_empty()
            && self.addresses_new.is_empty()
            && self.addresses_removed.is_empty()
            && self.lost_flows.is_empty()
    }

    fn empty(next: Published) -> Self {
        Self {
            grace_period: false,
            stale_flows: false,
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
            lost_flows: Tracked::new(),
            next,
            last_build: None,
        }
    }

    /// Backends that nobody wants, and that no published ring names and no flow of full tracking. What
    /// this plan replaces still counts: its packets are in flight until the next plan.
    fn forget_backends(&mut self, now: &Published, wanted: &Wanted) {
        let mut unnamed: BTreeMap<IpAddr, u16> = now.unnamed().collect();
        let mut backends = wanted.vips.iter().flat_map(|vip| &vip.backends);
        while !unnamed.is_empty()
            && let Some(address) = backends.next()
        {
            unnamed.remove(address);
        }
        for id in unnamed.into_values() {
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

    /// Whose flows full tracking may remember afterwards, and when it is to forget the others: those of
    /// lost backends once nobody is sent to them any more, and all when the packets in flight are
    /// through, because those may have remembered some again. Flows of a VIP that is not tracked any more
    /// wait for that: their backends live, and packets in flight still ask for them.
    fn track(&mut self, now: &Published, wanted: &Wanted) {
        let full = |vip: &&WantedVip| vip.tracking == Tracking::Full;
        let mut tracked = Tracked::new();
        let mut vip_ids = BTreeSet::new();
        let mut begins = false;
        for vip in wanted.vips.iter().filter(full) {
            let id = self.next.vips[&vip.key].vip.id as u16;
            tracked.extend(self.alive(vip).map(|backend| (id, backend)));
            vip_ids.insert(id);
            let before = now.vips.get(&vip.key);
            begins |= before.is_some_and(|ring| ring.vip.tracking != tracking::FULL);
        }
        if let Some(lost_at) = now.lost_at {
            let takes_ids = !self.vip_ids_new.is_empty() || !self.backends_new.is_empty();
            self.grace_period |= (takes_ids || begins) && lost_at > now.graced;
            self.stale_flows = self.grace_period || lost_at <= now.graced;
        }
        if self.stale_flows {
            self.next.lost_at = None;
        }
        let mut lost = now.tracked.difference(&tracked).peekable();
        if lost.peek().is_some() {
            self.next.lost_at = Some(now.flips + 1);
        }
        self.lost_flows = lost
            .filter(|(vip, _)| vip_ids.contains(vip))
            .copied()
            .collect();
        self.next.tracked = tracked;
    }

    fn count_time(&mut self, now: &Published) {
        if self.grace_period {
            self.next.graced = now.flips;
        }
        if !self.is_invisible() {
            self.next.flips = now.flips + 1;
        }
    }
}

/// The entry that marks an address as one of ours.
pub(super) const ADDRESS_ENTRY: Vip = Vip {
    ring_start: 0,
    ring_size: 0,
    id: 0,
    forward: forward::ADDRESS,
    hash: 0,
    tracking: tracking::MOVING,
    reserved: 0,
};

#[cfg(test)]
mod tests;
