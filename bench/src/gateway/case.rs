//! The cases that all proxies share: protocol, size of the body, connections kept or new.

use std::fmt;

use anyhow::Result;

use super::load::{BODY_SIZES, Load, Pace, Plan, tls_client};
use super::proxy::{Running, Setup};
use super::row::{Row, Turn, Turns};
use super::usage::{self, Usage};
use super::{Ground, load::Outcome};
use crate::report::complain;

/// Requests in flight, and those of bodies that fill buffers.
const IN_FLIGHT: usize = 64;
const IN_FLIGHT_LARGE: usize = 16;
/// A body from which on it is large.
const LARGE_BYTES: usize = 1 << 20;
/// Requests at a time on one connection of HTTP/2.
const STREAMS: usize = 8;

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    H1,
    TlsH1,
    TlsH2,
}

/// One case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) protocol: Protocol,
    pub(crate) body: usize,
    pub(crate) renew: bool,
}

impl Case {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let protocols = [Protocol::H1, Protocol::TlsH1, Protocol::TlsH2];
        protocols.into_iter().flat_map(|protocol| {
            BODY_SIZES.into_iter().flat_map(move |body| {
                [false, true].map(|renew| Self {
                    protocol,
                    body,
                    renew,
                })
            })
        })
    }

    pub(crate) fn name(&self) -> String {
        self.to_string()
    }

    /// What is sent to a proxy.
    pub(crate) fn load(&self, setup: &Setup) -> Result<Load> {
        let in_flight = match self.body {
            LARGE_BYTES.. => IN_FLIGHT_LARGE,
            _ => IN_FLIGHT,
        };
        let target = match self.protocol {
            Protocol::H1 => setup.plain,
            Protocol::TlsH1 | Protocol::TlsH2 => setup.tls,
        };
        let mut load = Load::new(target, self.body, in_flight);
        match self.protocol {
            Protocol::H1 => {}
            Protocol::TlsH1 => load.tls = Some(tls_client(&["http/1.1"])?),
            Protocol::TlsH2 => {
                load.tls = Some(tls_client(&["h2"])?);
                load.streams = Some(STREAMS);
                if !self.renew {
                    load.connections /= STREAMS;
                }
            }
        }
        Ok(if self.renew { load.renewed() } else { load })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::H1 => "h1",
            Protocol::TlsH1 => "TLS h1",
            Protocol::TlsH2 => "TLS h2→h1",
        };
        let size = match self.body {
            LARGE_BYTES.. => format!("{}MiB", self.body >> 20),
            1024.. => format!("{}KiB", self.body >> 10),
            _ => format!("{}B", self.body),
        };
        let connections = if self.renew {
            "new connection"
        } else {
            "keep-alive"
        };
        write!(f, "{protocol} {size} {connections}")
    }
}

/// Gives each proxy its turns, and prints the table.
pub(crate) fn run(ground: &mut Ground, running: &[Running], case: &Case) -> Result<Vec<Row>> {
    let loads: Result<Vec<Load>> = running
        .iter()
        .map(|proxy| case.load(&proxy.setup))
        .collect();
    let proxies: Vec<&Running> = running.iter().collect();
    let rows = turns(ground, &proxies, &loads?, &case.name());
    Row::table(&rows);
    Ok(rows)
}

/// Each proxy has its turns under the load of the same place.
pub(crate) fn turns(
    ground: &mut Ground,
    proxies: &[&Running],
    loads: &[Load],
    name: &str,
) -> Vec<Row> {
    let mut turns: Vec<Turns> = proxies.iter().map(|_| Turns::default()).collect();
    for round in 0..ground.rounds {
        for place in order(proxies.len(), round) {
            if turns[place].failure.is_none() {
                match turn(ground, proxies[place], &loads[place]) {
                    Ok(turn) => turns[place].add(turn),
                    Err(error) => {
                        let (proxy, error) = (proxies[place].program.name, format!("{error:#}"));
                        complain(&format!("{name}: {proxy}: {error}"));
                        turns[place].failure = Some(error);
                    }
                }
            }
        }
    }
    let both = proxies.iter().zip(turns);
    both.map(|(proxy, turns)| turns.row(name, proxy)).collect()
}

/// Another one begins each round, and every other round goes backwards, so that nobody always
/// follows the same one.
pub(super) fn order(count: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count)
        .map(|place| (place + round / 2) % count)
        .collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// One proxy under one load, as fast as it goes.
fn turn(ground: &mut Ground, proxy: &Running, load: &Load) -> Result<Turn> {
    let plan = Plan {
        pace: Pace::Closed,
        warm_up: ground.warm_up,
        window: ground.window,
        spin: false,
    };
    let outcome = ground.bed.run(load, plan, || Usage::of(proxy.pids()))?;
    measured(proxy, outcome)
}

/// What a turn comes to.
fn measured(proxy: &Running, outcome: Outcome<Usage>) -> Result<Turn> {
    Ok(Turn {
        requests: outcome.requests,
        elapsed: outcome.elapsed,
        used: outcome.after.since(outcome.before),
        latencies: outcome.latencies,
        memory_bytes: usage::memory(proxy.pids())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighteen_cases_with_a_name_each() {
        let names: Vec<String> = Case::all().map(|case| case.name()).collect();
        assert_eq!(names.len(), 18);
        assert_eq!(names[0], "h1 95B keep-alive");
        assert_eq!(names[9], "TLS h1 16KiB new connection");
        assert_eq!(names[17], "TLS h2→h1 1MiB new connection");
    }

    #[test]
    fn everybody_begins_and_follows_everybody() {
        let orders: Vec<_> = (0..6).map(|round| order(3, round)).collect();
        let expected = [
            [0, 1, 2],
            [2, 1, 0],
            [1, 2, 0],
            [0, 2, 1],
            [2, 0, 1],
            [1, 0, 2],
        ];
        assert_eq!(orders, expected);
    }
}
