//! The ring of one VIP: who should own its slots, and where they are written.

use std::collections::BTreeSet;
use std::sync::Arc;

use lb_ebpf::abi::{Slot, Vip, tracking};

use super::{ADDRESS_ENTRY, Plan, Refused, WantedVip};
use crate::config::Tracking;
use crate::control::alloc::{Extent, Full};
use crate::control::published::Ring;
use crate::control::slots::{self, Clock, Next};
use crate::table::{Member, Table};

/// A table as it was built.
#[derive(Clone, Debug)]
pub(super) struct Build {
    table: Table,
    members: Vec<Member>,
    /// Backend id by slot.
    owners: Arc<[u16]>,
}

impl Build {
    /// Whether it is the one that is wanted.
    fn is_of(&self, wanted: &WantedVip) -> bool {
        self.table == wanted.table
            && self.owners.len() == wanted.ring_size as usize
            && self.members == wanted.members
    }
}

impl Plan {
    /// Builds the ring of one VIP, if it has to change, and its value.
    pub(super) fn publish(&mut self, wanted: &WantedVip, clock: &Clock) -> Result<(), Refused> {
        let full = |full| Refused::Full {
            vip: wanted.name.clone(),
            full,
        };
        let mut ring = match self.next.vips.remove(&wanted.key) {
            Some(ring) => ring,
            None => {
                let id = self.next.vip_ids.take().map_err(full)?;
                self.vip_ids_new.push(id);
                Ring::unpublished(Vip {
                    id,
                    ..ADDRESS_ENTRY
                })
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
        if !is_built_so(&ring, wanted) {
            ring.built = Some((wanted.table, wanted.members[..].into()));
        }
        ring.vip.forward = wanted.forward;
        ring.vip.hash = wanted.hash;
        ring.vip.tracking = match wanted.tracking {
            Tracking::None | Tracking::Moving => tracking::MOVING,
            Tracking::Full => tracking::FULL,
        };
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
        ring.idle_moved = ring.moving > 0;
        ring.idle_since = self.next.flips + 1;
        ring.unheard_s = None;
        ring.slots = next.slots;
        ring.describe();
        ring.generation += 1;
        if !ring.slots.is_empty() {
            let slots = Arc::clone(&ring.slots);
            let marks = if ring.moving > 0 {
                next.marks
            } else {
                Vec::new()
            };
            self.rings.push((start, slots, marks));
        }
        Ok(())
    }

    /// The slots `ring` should have; `None` when nothing has happened that could change them.
    fn slots(
        &mut self,
        ring: &Ring,
        wanted: &WantedVip,
        clock: &Clock,
    ) -> Result<Option<Next>, Refused> {
        // Full tracking keeps a ring of nobody's slots, since flows that it knows go on.
        let may_be_empty = wanted.tracking != Tracking::Full && !has_members(wanted);
        if may_be_empty && ring.vip.ring_size == 0 {
            return Ok((ring.generation == 0).then(Next::default));
        }
        let same = ring.vip.ring_size == wanted.ring_size && is_built_so(ring, wanted);
        let lost = self.lost(ring, wanted);
        if same && lost.is_empty() && !some_end(ring, wanted, clock) {
            return Ok(None);
        }
        let owners = if same && ring.deferred == 0 {
            ring.slots.iter().map(|slot| slot.current).collect()
        } else {
            self.owners(wanted)?
        };
        let next = match wanted.tracking {
            Tracking::None => Next::at_once(&owners),
            Tracking::Moving | Tracking::Full => {
                slots::next(&ring.slots, &wanted.marks, &owners, &lost, clock)
            }
        };
        let is_empty = may_be_empty && next.slots.iter().all(|slot| *slot == Slot::default());
        Ok(Some(if is_empty { Next::default() } else { next }))
    }

    /// Who should own each slot, by the table: nobody when nobody takes new flows.
    fn owners(&mut self, wanted: &WantedVip) -> Result<Arc<[u16]>, Refused> {
        if !has_members(wanted) {
            return Ok(vec![0; wanted.ring_size as usize].into());
        }
        // VIPs of the same backends, which fail together, have the same table.
        if let Some(last) = self.last_build.as_ref().filter(|last| last.is_of(wanted)) {
            return Ok(Arc::clone(&last.owners));
        }
        let build = wanted.table.build(&wanted.members, wanted.ring_size);
        let build = build.map_err(|error| Refused::Ring {
            vip: wanted.name.clone(),
            error,
        })?;
        let id = |member: &Member| self.next.backend_id(member.address).unwrap_or(0);
        let ids: Vec<u16> = wanted.members.iter().map(id).collect();
        let owners = build.into_iter().map(|index| ids[usize::from(index)]);
        let last = self.last_build.insert(Build {
            table: wanted.table,
            members: wanted.members.clone(),
            owners: owners.collect(),
        });
        Ok(Arc::clone(&last.owners))
    }

    /// Ids of the backends that flows of a VIP can reach: those that have not failed.
    pub(super) fn alive(&self, wanted: &WantedVip) -> impl Iterator<Item = u16> {
        let backends = wanted.backends.iter();
        let alive = backends.filter(|address| !wanted.dead.contains(address));
        alive.filter_map(|&address| self.next.backend_id(address))
    }

    /// Ids that the ring names and that no flow can reach any more: failed, or removed.
    fn lost(&self, ring: &Ring, wanted: &WantedVip) -> BTreeSet<u16> {
        let alive: BTreeSet<u16> = self.alive(wanted).collect();
        let names = ring.names.iter().copied();
        names.filter(|id| !alive.contains(id)).collect()
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

    pub(super) fn give_back(&mut self, extent: Option<Extent>) {
        if let Some(extent) = extent {
            self.next.extents.free(extent);
            self.next.freed_at = self.next.flips + 1;
        }
    }
}

/// Whether somebody takes new flows.
fn has_members(wanted: &WantedVip) -> bool {
    wanted.members.iter().any(|member| member.weight > 0)
}

/// Whether the table that is wanted is the one the ring was built of.
fn is_built_so(ring: &Ring, wanted: &WantedVip) -> bool {
    let built = ring.built.as_ref();
    built
        .is_some_and(|(table, members)| *table == wanted.table && members[..] == wanted.members[..])
}

/// Whether some slot that moves is to settle.
fn some_end(ring: &Ring, wanted: &WantedVip, clock: &Clock) -> bool {
    if ring.moving == 0 || wanted.tracking == Tracking::None {
        return ring.moving > 0;
    }
    let mut moving = ring.slots.iter().zip(&wanted.marks);
    moving.any(|(slot, mark)| slot.moves() && clock.ends(*mark))
}
