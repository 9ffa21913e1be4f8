//! The health of instances: active checks, and what failed connections tell.
//!
//! One prober checks each instance for all workers and bars it from use by [`Bar::Check`]. A worker
//! that cannot connect marks the instance *suspect* for a moment, which all workers see at once:
//! it is then used only where no other is left. The state machine (`Streak`) is pure.

mod probe;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::availability::Bar;
use super::cluster::SharedService;
use super::instance::Instance;
use crate::config::{HealthConfig, ServiceConfig, UpstreamProtocol};

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
    instance: Arc<Instance>,
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
        for instance in &shared.instances {
            checks.spawn_local(watch(Target {
                service: service.name.clone(),
                address: instance.address,
                protocol: service.protocol,
                check: check.clone(),
                instance: Arc::clone(instance),
            }));
        }
    }
    checks
}

async fn watch(target: Target) {
    let availability = &target.instance.availability;
    let mut streak = Streak::new(!availability.is_barred(Bar::Check, Instant::now()));
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
        if healthy {
            availability.lift(Bar::Check, Instant::now());
            target.instance.trust();
        } else {
            availability.bar(Bar::Check, None);
        }
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
}
