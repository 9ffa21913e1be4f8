//! From what is desired to what is published.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_ebpf::abi::Mark;
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::{Agent, Desired, RETRY_AFTER};
use crate::config::{Config, Vip};
use crate::control::apply::stage;
use crate::control::plan::{self, Plan, Wanted, Way};
use crate::control::slots::Clock;
use crate::control::state::{self, key};
use crate::dataplane::{self, clock, grace};
use crate::health::Target;
use crate::net::Known;

/// How often the agent looks whether slots may settle, as a part of the time after which they do.
const SETTLE_LOOKS: u32 = 12;

/// And at most.
const SETTLE_LOOK_MIN: Duration = Duration::from_secs(1);

/// Why something was not published. What was published before still is.
#[derive(Debug, Error)]
pub(super) enum Error {
    #[error(transparent)]
    Refused(#[from] plan::Refused),
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
}

impl From<Error> for super::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refused) => refused.into(),
            Error::Dataplane(error) => error.into(),
        }
    }
}

/// How far things had gone when a grace period began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flips {
    /// The latest flip of what is published.
    pub(super) published: u64,
    /// Changes of the VIP table.
    pub(super) vip_changes: u64,
}

impl Agent {
    /// Publishes what is desired.
    pub(super) fn publish(&mut self) -> Result<(), Error> {
        let desired = Arc::clone(&self.desired);
        self.try_publish(&desired)
    }

    /// Publishes what is desired, or sees to it that it is tried again.
    pub(super) fn publish_or_retry(&mut self, because: &str) {
        if let Err(error) = self.publish() {
            error!(%error, because, "cannot publish; packets flow by the state before");
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
    }

    /// Publishes `desired` whole, or changes nothing.
    pub(super) fn try_publish(&mut self, desired: &Desired) -> Result<(), Error> {
        self.retry_at = None;
        let (wanted, panics) = self.wanted(desired);
        let plan = Plan::new(&self.published, &wanted)?;
        self.update_sources()?;
        if plan.is_empty() {
            // What was learnt on the way (the members a ring was built of) is worth remembering.
            self.published = plan.next;
        } else {
            self.carry_out(plan)?;
        }
        self.note_panics(panics);
        self.note_moving();
        self.let_grace_pass();
        Ok(())
    }

    fn carry_out(&mut self, plan: Plan) -> Result<(), Error> {
        let started = Instant::now();
        let (vips, waited) = (plan.vips.len(), plan.grace_period);
        let (maps, now) = (self.dataplane.maps_mut(), &self.published);
        let published = stage(maps, now, plan).and_then(|staged| {
            let began = Instant::now();
            Ok((staged.publish(maps, now)?, began.elapsed()))
        });
        let (next, flips_took) = published.inspect_err(|_| {
            self.meters.publish_failures.inc();
            self.published.taken_back(clock::now_s() as u16);
        })?;
        self.published = next;
        let took = started.elapsed();
        self.meters.published(took);
        info!(vips, waited, ?took, ?flips_took, "published");
        Ok(())
    }

    /// Has a grace period pass in the background, so that the next change need not wait for it. When it
    /// has, there may be something to clean up.
    fn let_grace_pass(&mut self) {
        if let (None, Some(flip)) = (&self.grace, self.published.pending_flip()) {
            let vip_changes = self.dataplane.maps().vip_changes();
            let flips = Flips {
                published: flip,
                vip_changes,
            };
            self.grace = Some((flips, tokio::task::spawn_blocking(grace::wait)));
        }
    }

    /// Returns when the grace period under way has passed; never when there is none.
    pub(super) async fn grace_passed(grace: &mut Option<(Flips, JoinHandle<()>)>) -> Flips {
        let Some((flips, task)) = grace else {
            return std::future::pending().await;
        };
        // A task that panicked proves nothing: then changes wait in line, as they would without it.
        let passed = if task.await.is_ok() {
            *flips
        } else {
            Flips::default()
        };
        *grace = None;
        passed
    }

    /// Desired state and what is known of the network, in the form of a plan's input.
    fn wanted(&self, desired: &Desired) -> (Wanted, BTreeSet<String>) {
        let known = self.net.ways.borrow();
        let ways: BTreeMap<IpAddr, Way> = known
            .ways
            .iter()
            .filter_map(|(&address, way)| Some((address, to_way(way.as_ref().ok()?))))
            .collect();
        let reachable = |address| {
            let published = || self.published.backend_id(address);
            ways.contains_key(&address)
                || published()
                    .is_some_and(|id| self.published.backends[&id].value.hop().ifindex > 0)
        };
        let mut panics = BTreeSet::new();
        let mut vips = Vec::new();
        let Desired {
            effective, healths, ..
        } = desired;
        for vip in effective.config.vips.values() {
            let marks = self.marks(vip);
            let (wanted, panic) =
                state::wanted(vip, &effective.draining, healths, reachable, marks);
            vips.push(wanted);
            if panic {
                panics.insert(vip.name.clone());
            }
        }
        let clock = clock_of(&effective.config);
        (Wanted { vips, ways, clock }, panics)
    }

    /// What the data path noted about the slots of a VIP; nothing while none of them moves.
    fn marks(&self, vip: &Vip) -> Vec<Mark> {
        let maps = self.dataplane.maps();
        let marks = self
            .published
            .marks(&key(vip), |start, len| maps.read_marks(start, len));
        marks.unwrap_or_default()
    }

    fn note_panics(&mut self, panics: BTreeSet<String>) {
        for vip in panics.difference(&self.panics) {
            warn!(
                vip,
                "no backend is healthy and reachable: all of them are used"
            );
        }
        for vip in self.panics.difference(&panics) {
            info!(vip, "some backend is healthy again: only those are used");
        }
        self.panics = panics;
    }

    /// Sees to it that slots that move are looked at again.
    fn note_moving(&mut self) {
        let moves = self.published.vips.values().any(|ring| ring.moving > 0);
        let after = self.desired.config.agent.settle_after;
        let look = (after / SETTLE_LOOKS).max(SETTLE_LOOK_MIN);
        self.settle_at = moves.then(|| Instant::now() + look);
    }

    /// Outer source addresses: as configured, else what this host would use itself on the way to a
    /// backend. One that is still in use stays.
    fn update_sources(&mut self) -> Result<(), dataplane::Error> {
        let settings = self.dataplane.maps().read_settings()?;
        let agent = &self.desired.config.agent;
        let known = self.net.ways.borrow();
        let routes = &known.snapshot.routes;
        let choose = |configured: Option<IpAddr>, current: IpAddr, v4: bool| {
            let of_family = |ip: &IpAddr| ip.is_ipv4() == v4;
            let ways = routes
                .iter()
                .filter(|(to, route)| of_family(to) && !route.local);
            let used: Vec<IpAddr> = ways
                .filter_map(|(_, route)| route.source.filter(of_family))
                .collect();
            let kept = used.contains(&current).then_some(current);
            configured.or(kept).or(used.first().copied())
        };
        let v4 = choose(agent.source_v4, settings.source_v4.into(), true);
        let v6 = choose(agent.source_v6, settings.source_v6.into(), false);
        drop(known);
        let window = agent.settle_after.as_secs();
        self.dataplane
            .set_quiet(u32::try_from(window).unwrap_or(u32::MAX))?;
        self.dataplane.set_sources(v4, v6)
    }
}

/// The time, and how long slots move.
fn clock_of(config: &Config) -> Clock {
    let seconds = |time: Duration| u16::try_from(time.as_secs()).unwrap_or(u16::MAX);
    Clock {
        now: clock::now_s() as u16,
        quiet: seconds(config.agent.settle_after),
        deadline: seconds(config.agent.settle_deadline),
    }
}

/// The way in the form of the data plane.
fn to_way(known: &Known) -> Way {
    Way {
        hop: known.hop,
        mtu: u16::try_from(known.mtu).unwrap_or(u16::MAX),
    }
}

/// What is to be probed.
pub(super) fn targets(config: &Config) -> Vec<Target> {
    let checked = config
        .vips
        .values()
        .filter_map(|vip| Some((vip, vip.health.as_ref()?)));
    checked
        .flat_map(|(vip, check)| {
            vip.backends.values().map(|backend| Target {
                vip: vip.name.clone(),
                backend: backend.name.clone(),
                address: SocketAddr::new(backend.address, check.port),
                check: check.clone(),
            })
        })
        .collect()
}
