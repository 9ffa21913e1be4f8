//! Carries out a plan: all of it, or none.

use lb_ebpf::abi::{Backend, Mark, Slot, Vip, VipKey};
use tracing::error;

use super::plan::{ADDRESS_ENTRY, Plan};
use super::published::{Published, Tracked};

/// The writes that a plan is made of. The kernel's maps do them; tests count them.
pub trait Store {
    /// Why a write failed.
    type Error: std::error::Error;

    /// Returns when every packet that was in flight at the call is through.
    fn wait_grace_period(&mut self);
    /// Writes slots and their marks, if there are any, from `start` on; nobody reads them yet.
    fn write_ring(&mut self, start: u32, slots: &[Slot], marks: &[Mark])
    -> Result<(), Self::Error>;
    /// Replaces, adds or (`None`) removes a VIP or address entry, visible at once.
    fn write_vip(&mut self, key: VipKey, vip: Option<Vip>) -> Result<(), Self::Error>;
    /// Replaces a backend, visible at once, 8 bytes at a time.
    fn write_backend(&mut self, id: u16, backend: &Backend) -> Result<(), Self::Error>;
    /// Sets the counters of a VIP id to 0.
    fn clear_vip_counts(&mut self, id: u32) -> Result<(), Self::Error>;
    /// Sets the counters of a backend id to 0.
    fn clear_backend_counts(&mut self, id: u16) -> Result<(), Self::Error>;
    /// Makes full tracking forget flows.
    fn forget_flows(&mut self, which: Forget<'_>);
}

/// Flows that full tracking is to forget.
#[derive(Clone, Copy, Debug)]
pub enum Forget<'a> {
    /// These.
    Only(&'a Tracked),
    /// All but these.
    AllBut(&'a Tracked),
}

impl Forget<'_> {
    /// Whether a flow is among them: by its VIP's id (the low half, as in its tag), and its backend's.
    pub fn covers(self, vip_id: u16, backend_id: u16) -> bool {
        let flow = (vip_id, backend_id);
        match self {
            Self::Only(lost) => lost.contains(&flow),
            Self::AllBut(kept) => !kept.contains(&flow),
        }
    }
}

/// Writes `plan` into `store`, where `now` is published, and returns what is published then.
///
/// Packets see each VIP before or after, never between: rings are written where no VIP points yet,
/// and one map update per VIP points it there.
///
/// # Errors
///
/// The first failure, after everything that had become visible was taken back; `now` still holds, and
/// is to be told of it ([`Published::taken_back`]).
pub fn apply<S: Store>(store: &mut S, now: &Published, plan: Plan) -> Result<Published, S::Error> {
    stage(store, now, plan)?.publish(store, now)
}

/// A plan of which everything is written that packets do not see.
///
/// It has to be published, with the store and the state that it was staged with.
#[must_use]
pub struct Staged {
    plan: Plan,
    undo: Vec<Before>,
}

/// The first and longer part of [`apply`]: all waiting, and all rings.
///
/// # Errors
///
/// As [`apply`].
pub fn stage<S: Store>(store: &mut S, now: &Published, plan: Plan) -> Result<Staged, S::Error> {
    let mut undo = Vec::new();
    let written = write_unseen(store, now, &plan, &mut undo);
    or_take_back(written, store, &mut undo)?;
    Ok(Staged { plan, undo })
}

impl Staged {
    /// The second part of [`apply`], which packets see: a write or two for each VIP that changes.
    ///
    /// # Errors
    ///
    /// As [`apply`].
    pub fn publish<S: Store>(
        mut self,
        store: &mut S,
        now: &Published,
    ) -> Result<Published, S::Error> {
        let written = write_seen(store, now, &self.plan, &mut self.undo);
        or_take_back(written, store, &mut self.undo)?;
        if !self.plan.lost_flows.is_empty() {
            store.forget_flows(Forget::Only(&self.plan.lost_flows));
        }
        Ok(self.plan.next)
    }
}

fn or_take_back<S: Store>(
    written: Result<(), S::Error>,
    store: &mut S,
    undo: &mut Vec<Before>,
) -> Result<(), S::Error> {
    if written.is_err() {
        while let Some(step) = undo.pop() {
            take_back(store, step);
        }
    }
    written
}

/// What stood where something visible was written.
enum Before {
    Vip(VipKey, Option<Vip>),
    Backend(u16, Backend),
}

fn write_unseen<S: Store>(
    store: &mut S,
    now: &Published,
    plan: &Plan,
    undo: &mut Vec<Before>,
) -> Result<(), S::Error> {
    if plan.grace_period {
        store.wait_grace_period();
    }
    if plan.stale_flows {
        store.forget_flows(Forget::AllBut(&now.tracked));
    }
    for &id in &plan.backends_removed {
        undo.push(backend_before(now, id));
        store.write_backend(id, &Backend::default())?;
    }
    for &id in &plan.vip_ids_new {
        store.clear_vip_counts(id)?;
    }
    for (id, backend) in &plan.backends_new {
        undo.push(backend_before(now, *id));
        store.clear_backend_counts(*id)?;
        store.write_backend(*id, backend)?;
    }
    for (id, staged) in &plan.hops_staged {
        undo.push(backend_before(now, *id));
        store.write_backend(*id, staged)?;
    }
    for (start, slots, marks) in &plan.rings {
        store.write_ring(*start, slots, marks)?;
    }
    Ok(())
}

fn write_seen<S: Store>(
    store: &mut S,
    now: &Published,
    plan: &Plan,
    undo: &mut Vec<Before>,
) -> Result<(), S::Error> {
    for &key in &plan.addresses_new {
        undo.push(Before::Vip(key, None));
        store.write_vip(key, Some(ADDRESS_ENTRY))?;
    }
    for (id, backend) in &plan.hops {
        undo.push(backend_before(now, *id));
        store.write_backend(*id, backend)?;
    }
    for &(key, vip) in &plan.vips {
        undo.push(Before::Vip(key, now.vips.get(&key).map(|ring| ring.vip)));
        store.write_vip(key, Some(vip))?;
    }
    for &key in &plan.vips_removed {
        undo.push(Before::Vip(key, now.vips.get(&key).map(|ring| ring.vip)));
        store.write_vip(key, None)?;
    }
    for &key in &plan.addresses_removed {
        undo.push(Before::Vip(key, Some(ADDRESS_ENTRY)));
        store.write_vip(key, None)?;
    }
    Ok(())
}

fn backend_before(now: &Published, id: u16) -> Before {
    Before::Backend(
        id,
        now.backends
            .get(&id)
            .map(|entry| entry.value)
            .unwrap_or_default(),
    )
}

fn take_back<S: Store>(store: &mut S, step: Before) {
    let result = match step {
        Before::Vip(key, vip) => store.write_vip(key, vip),
        Before::Backend(id, backend) => store.write_backend(id, &backend),
    };
    if let Err(error) = result {
        error!(%error, "could not take back a change; the next change tries again");
    }
}
