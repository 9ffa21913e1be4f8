//! The health of instances: active checks.
//!
//! One prober checks each instance for all workers and bars it from use by [`Bar::Check`]. A worker
//! that cannot connect marks the instance *suspect* for a moment, which all workers see at once:
//! it is then used only where no other is left. The state machine (`Streak`) is pure.

mod checks;
mod probe;

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::checks::Checks;
use super::availability::Bar;
use super::balance::Random;
use super::instance::Instance;
use super::outlier;
use super::transport::Connector;
use crate::config::{Check, HealthConfig, ServiceConfig, UpstreamProtocol};

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
    /// `None`: in the clear.
    tls: Option<Rc<Connector>>,
    check: HealthConfig,
    instance: Arc<Instance>,
}

impl Target {
    /// An instance of a service that has checks.
    fn new(service: &ServiceConfig, check: &HealthConfig, instance: Arc<Instance>) -> Self {
        let address = checked(instance.address, check.port);
        // Health over gRPC is a matter of HTTP/2 whatever requests are.
        let protocol = match check.check {
            Check::Grpc { .. } => UpstreamProtocol::Http2,
            Check::Http { .. } | Check::Tcp => service.protocol,
        };
        let name = (service.name.as_str(), address);
        let tls = check.tls.as_ref();
        Self {
            service: service.name.clone(),
            address,
            protocol,
            tls: tls.map(|tls| Rc::new(Connector::new(tls, name, protocol))),
            check: check.clone(),
            instance,
        }
    }

    /// How it is asked.
    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Where an instance is checked.
fn checked(mut address: SocketAddr, port: Option<u16>) -> SocketAddr {
    if let Some(port) = port {
        address.set_port(port);
    }
    address
}

async fn watch(target: Target) {
    let availability = &target.instance.availability;
    let mut streak = Streak::new(!availability.is_barred(Bar::Check, Instant::now()));
    let random = Random::seeded(RandomState::new().hash_one(target.address));
    let spread = wait(&target.check, streak.healthy, random.next()).abs_diff(target.check.every);
    // All would be checked at the same moment, after a reload as after the start.
    tokio::time::sleep(spread).await;
    loop {
        let began = tokio::time::Instant::now();
        let outcome = probe::probe(&target).await;
        if let Some(healthy) = streak.observe(outcome.is_ok(), target.check.rise, target.check.fall)
        {
            turn(&target, healthy, outcome);
        }
        let wait = wait(&target.check, streak.healthy, random.next());
        tokio::time::sleep_until(began + wait).await;
    }
}

/// Publishes a verdict that has turned.
fn turn(target: &Target, healthy: bool, outcome: Result<(), probe::Failure>) {
    let availability = &target.instance.availability;
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

/// How long to wait from one check to the next: as configured, and by `random` some percent more
/// or less.
fn wait(check: &HealthConfig, healthy: bool, random: u64) -> Duration {
    let every = if healthy {
        check.every
    } else {
        check.every_unhealthy
    };
    let jitter = f64::from(check.jitter_percent) / 100.0;
    let share = random as f64 / u64::MAX as f64;
    every.mul_f64(1.0 + jitter * (2.0 * share - 1.0))
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
    fn waits_differ_by_the_jitter_at_most() {
        let ms = Duration::from_millis;
        let check = |jitter_percent| HealthConfig {
            check: crate::config::Check::Tcp,
            port: None,
            tls: None,
            every: ms(1000),
            every_unhealthy: ms(100),
            jitter_percent,
            timeout: ms(100),
            rise: 1,
            fall: 1,
        };
        let table = [
            (0, true, 0, ms(1000)),
            (0, true, u64::MAX, ms(1000)),
            (10, true, 0, ms(900)),
            (10, true, u64::MAX, ms(1100)),
            (50, true, 0, ms(500)),
            (10, false, u64::MAX, ms(110)),
        ];
        for (jitter_percent, healthy, random, expected) in table {
            let wait = wait(&check(jitter_percent), healthy, random);
            assert_eq!(wait, expected, "{jitter_percent} % {healthy} {random}");
        }
    }
}
