//! The agent, without what waits and listens: the same core, in the same order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_ebpf::abi::{Hop, Mark};
use lb_userspace::config::{Config, Tracking, Vip};
use lb_userspace::control::apply::apply;
use lb_userspace::control::plan::{Plan, Wanted, Way};
use lb_userspace::control::published::Published;
use lb_userspace::control::runtime::{Change, Effective, Runtime};
use lb_userspace::control::slots::Clock;
use lb_userspace::control::state::{self, Healths};
use lb_userspace::dataplane::Sizes;

use crate::seen::Kept;
use crate::store::NotWritten;
use crate::wire::Wire;

/// What outlives an agent, beside the maps.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) config: Config,
    pub(crate) runtime: Runtime,
}

/// One life of the agent.
pub(crate) struct Agent {
    pub(crate) files: Files,
    effective: Effective,
    healths: Healths,
    pub(crate) published: Published,
    /// The flip that the grace period under way will have followed.
    grace: Option<u64>,
}

impl Agent {
    /// An agent that finds empty maps.
    pub(crate) fn new(files: Files, sizes: Sizes) -> Self {
        Self::over(Published::new(sizes), files)
    }

    /// An agent that finds what another one has left.
    pub(crate) fn adopt(files: Files, sizes: Sizes, wire: &Wire) -> Self {
        let memory = &wire.memory;
        let ring = |start, len| memory.read_ring(start, len);
        let vips = memory.vip_and_address_entries();
        Self::over(
            Published::adopt(
                sizes,
                vips,
                memory.known_backends(),
                ring,
                memory.now_s as u16,
            ),
            files,
        )
    }

    fn over(published: Published, files: Files) -> Self {
        let (effective, runtime) = files.runtime.over(&files.config);
        let mut healths = Healths::default();
        healths.follow(&effective.config, &published);
        Self {
            files: Files { runtime, ..files },
            effective,
            healths,
            published,
            grace: None,
        }
    }

    /// The files with one backend changed; `None` when that makes no sense.
    pub(crate) fn changed(&self, (vip, backend): (&str, &str), change: &Change) -> Option<Files> {
        let Files { config, runtime } = &self.files;
        let runtime = runtime.with(config, vip, backend, change).ok()?;
        let config = config.clone();
        Some(Files { config, runtime })
    }

    /// Reads other files: all the way, or not at all.
    pub(crate) fn follow(&mut self, wire: &mut Wire, files: Files) -> Result<(), NotWritten> {
        let (effective, runtime) = files.runtime.over(&files.config);
        let mut healths = self.healths.clone();
        healths.follow(&effective.config, &self.published);
        let before = (
            std::mem::replace(&mut self.effective, effective),
            std::mem::replace(&mut self.healths, healths),
        );
        // They are on disk before anything is published; what is refused is taken back there too.
        let before_files = std::mem::replace(&mut self.files, Files { runtime, ..files });
        let result = self.publish(wire);
        if result == Err(NotWritten::Refused) {
            (self.effective, self.healths) = before;
            self.files = before_files;
        }
        result
    }

    /// Hears from a probe. A failure is confirmed if other backends of the VIP answered meanwhile.
    pub(crate) fn observe(&mut self, vip: &str, backend: &str, healthy: bool, confirmed: bool) {
        let name = (vip.to_owned(), backend.to_owned());
        let reason = "probed".to_owned();
        self.healths.observe(&name, healthy, confirmed, reason);
    }

    /// Publishes what is desired.
    pub(crate) fn publish(&mut self, wire: &mut Wire) -> Result<(), NotWritten> {
        let wanted = self.wanted(wire);
        let plan = Plan::new(&self.published, &wanted).expect("the maps have room");
        let keeps = keeps(&wanted);
        wire.note_publish(&keeps);
        let marks = wanted.vips.into_iter().map(|vip| (vip.key, vip.marks));
        wire.planned = marks.collect();
        wire.clock = wanted.clock;
        wire.faults.writes = 0;
        wire.faults.taking_back = false;
        wire.faults.publishes += 1;
        if plan.is_empty() {
            self.published = plan.next;
        } else {
            wire.faults.publishing = true;
            let applied = apply(wire, &self.published, plan);
            wire.faults.publishing = false;
            if wire.faults.is_dead() {
                return Err(NotWritten::Dead);
            }
            let now_s = wire.memory.now_s as u16;
            self.published = applied.inspect_err(|_| self.published.taken_back(now_s))?;
        }
        wire.note_published(keeps);
        self.grace = self.grace.or(self.published.pending_flip());
        Ok(())
    }

    /// A grace period has passed; there may be something to clean up.
    pub(crate) fn grace_passed(&mut self, wire: &mut Wire) -> Result<(), NotWritten> {
        let Some(flip) = self.grace.take() else {
            return Ok(());
        };
        wire.pass_all();
        self.published.grace_passed(flip);
        self.publish(wire)?;
        if self.published.pending_flip().is_none() {
            wire.forget_stragglers();
        }
        Ok(())
    }

    /// Whether a slot moves: then the agent looks every now and then.
    pub(crate) fn moves(&self) -> bool {
        self.published.vips.values().any(|ring| ring.moving > 0)
    }

    fn wanted(&self, wire: &Wire) -> Wanted {
        let config = &self.effective.config;
        let wanted = |vip: &Vip| {
            let marks = self.marks(wire, vip);
            let draining = &self.effective.draining;
            state::wanted(vip, draining, &self.healths, |_| true, marks).0
        };
        let seconds = |time: std::time::Duration| time.as_secs() as u16;
        Wanted {
            vips: config.vips.values().map(wanted).collect(),
            ways: ways(config),
            clock: Clock {
                now: wire.memory.now_s as u16,
                quiet: seconds(config.agent.settle_after),
                deadline: seconds(config.agent.settle_deadline),
            },
        }
    }

    fn marks(&self, wire: &Wire, vip: &Vip) -> Vec<Mark> {
        let read = |start, len| Some(wire.memory.read_marks(start, len));
        let marks = self.published.marks(&state::key(vip), read);
        marks.unwrap_or_default()
    }

    /// Backends of a VIP, as configured now.
    pub(crate) fn backends(&self, vip: &str) -> BTreeMap<String, IpAddr> {
        let vip = &self.effective.config.vips[vip];
        let backends = vip.backends.values();
        backends
            .map(|backend| (backend.name.clone(), backend.address))
            .collect()
    }
}

/// Whom flows may reach with full tracking: backends that are configured and do not count as failed.
fn keeps(wanted: &Wanted) -> Kept {
    let vips = wanted.vips.iter();
    let full = vips.filter(|vip| vip.tracking == Tracking::Full);
    let keeps = full.map(|vip| {
        let backends = vip.backends.iter().copied();
        let alive = backends.filter(|backend| !vip.dead.contains(backend));
        (vip.key, alive.collect())
    });
    keeps.collect()
}

/// Every backend can be reached.
fn ways(config: &Config) -> BTreeMap<IpAddr, Way> {
    let backends = config.vips.values().flat_map(|vip| vip.backends.values());
    let addresses: BTreeSet<IpAddr> = backends.map(|backend| backend.address).collect();
    let hop = Hop::new([2, 0, 0, 0, 0, 9].into(), [2, 0, 0, 0, 0, 1].into(), 2);
    let way = Way { hop, mtu: 1500 };
    addresses
        .into_iter()
        .map(|address| (address, way))
        .collect()
}
