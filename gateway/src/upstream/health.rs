//! The health of instances: active checks, and what failed connections tell.
//!
//! One prober checks each instance for all workers and publishes the outcome as an atomic. A worker
//! that cannot connect marks the instance *suspect* for a moment, which all workers see at once:
//! it is then used only where no other is left. The state machine (`Streak`) is pure.

mod probe;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::cluster::SharedService;
use crate::config::{HealthConfig, ServiceConfig, UpstreamProtocol};

/// How long a failed connection keeps an instance from being chosen while others are usable.
const SUSPECT_FOR: Duration = Duration::from_secs(2);

/// The published health of one instance, shared by all workers.
#[derive(Debug)]
pub struct Health {
    epoch: Instant,
    healthy: AtomicBool,
    /// Milliseconds after `epoch` until which the instance is suspect.
    suspect_until: AtomicU64,
}

impl Health {
    /// Healthy until shown otherwise: a gateway that starts must not refuse its first requests.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            healthy: AtomicBool::new(true),
            suspect_until: AtomicU64::new(0),
        }
    }

    /// Whether active checks let the instance be used at all.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether a connection to it failed a moment ago.
    pub fn is_suspect(&self, now: Instant) -> bool {
        let until = self.suspect_until.load(Ordering::Relaxed);
        until > 0 && self.millis(now) < until
    }

    /// A connection to it has failed.
    pub fn suspect(&self, now: Instant) {
        self.suspect_until
            .store(self.millis(now + SUSPECT_FOR), Ordering::Relaxed);
    }

    /// A connection to it stands: it is as good as any other.
    pub fn trust(&self) {
        if self.suspect_until.load(Ordering::Relaxed) != 0 {
            self.suspect_until.store(0, Ordering::Relaxed);
        }
    }

    fn publish(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
        if healthy {
            self.trust();
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

/// Counts checks in a row until they turn the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Streak {
    healthy: bool,
    against: u32,
}

impl Streak {
    fn new(healthy: bool) -> Self {
        Self {
            healthy,
            against: 0,
        }
    }

    /// Takes the outcome of one check; returns the new verdict if it turned.
    fn observe(&mut self, passed: bool, rise: u32, fall: u32) -> Option<bool> {
        if passed == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if passed { rise } else { fall } {
            return None;
        }
        *self = Self::new(passed);
        Some(passed)
    }
}

/// One instance to check.
#[derive(Debug, Clone)]
struct Target {
    service: String,
    address: SocketAddr,
    protocol: UpstreamProtocol,
    check: HealthConfig,
    health: Arc<Health>,
}

/// Starts the checks of every service that has them, on the current [`tokio::task::LocalSet`].
/// They end when the returned set is dropped.
///
/// `shared` is in the order of `services`.
pub(crate) fn start(services: &[ServiceConfig], shared: &[SharedService]) -> JoinSet<()> {
    let mut checks = JoinSet::new();
    for (service, shared) in services.iter().zip(shared) {
        let Some(check) = &service.health else {
            continue;
        };
        for (address, health) in service.endpoints.iter().zip(&shared.health) {
            checks.spawn_local(watch(Target {
                service: service.name.clone(),
                address: *address,
                protocol: service.protocol,
                check: check.clone(),
                health: Arc::clone(health),
            }));
        }
    }
    checks
}

async fn watch(target: Target) {
    let mut streak = Streak::new(target.health.is_healthy());
    let mut ticks = tokio::time::interval(target.check.every);
    // A check that took longer than the interval must not be followed by a burst.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = probe::probe(&target).await;
        let passed = outcome.is_ok();
        let Some(healthy) = streak.observe(passed, target.check.rise, target.check.fall) else {
            continue;
        };
        target.health.publish(healthy);
        let (service, address) = (&target.service, target.address);
        match outcome {
            Ok(()) => tracing::info!(%service, %address, "instance is healthy"),
            Err(error) => tracing::warn!(%service, %address, %error, "instance is unhealthy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_turn_after_rise_and_fall() {
        // `+` a passed check, `-` a failed one; below, the verdict after each (U up, D down).
        let table = [
            ("fall 3", 2, 3, "---", "UUD"),
            ("a pass starts over", 2, 3, "--+---", "UUUUUD"),
            ("rise 2", 2, 1, "-++", "DDU"),
            ("a fail starts over", 2, 1, "-+-++", "DDDDU"),
            ("flapping below both", 2, 2, "-+-+-+", "UUUUUU"),
            ("one is enough", 1, 1, "-+-+", "DUDU"),
        ];
        for (what, rise, fall, checks, expected) in table {
            let mut streak = Streak::new(true);
            let mut seen = String::new();
            for check in checks.chars() {
                streak.observe(check == '+', rise, fall);
                seen.push(if streak.healthy { 'U' } else { 'D' });
            }
            assert_eq!(seen, expected, "{what}");
        }
    }

    #[test]
    fn suspicion_passes_with_time_or_success() {
        let epoch = Instant::now();
        let health = Health::new(epoch);
        assert!(!health.is_suspect(epoch));

        health.suspect(epoch);
        assert!(health.is_suspect(epoch + SUSPECT_FOR - Duration::from_millis(1)));
        assert!(!health.is_suspect(epoch + SUSPECT_FOR));

        health.suspect(epoch);
        health.trust();
        assert!(!health.is_suspect(epoch));
    }
}
