//! What a proxy adds to the latency of one request at a time, and the latency at a given rate.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::case::order;
use super::load::{Load, Pace, Plan};
use super::proxy::{Program, Running};
use super::row::Row;
use super::usage::Usage;
use super::{Ground, awake};
use crate::report::{complain, say};

pub(super) const CASE_ONE: &str = "h1 95B one connection";
pub(super) const CASE_ADDED: &str = "h1 95B one connection, added";
/// With proxies that do not sleep between requests, which not all can.
pub(super) const CASE_BUSY: &str = "h1 95B one connection, busy polling";
pub(super) const CASE_BUSY_ADDED: &str = "h1 95B one connection, busy polling, added";
pub(super) const CASE_OWN: &str = "h1 95B open loop, 80 % of its own saturation";
pub(super) const CASE_COMMON: &str = "h1 95B open loop, same rate for all";
/// Of which proxies run for it.
pub(super) const CASES: [&str; 4] = [CASE_ONE, CASE_ADDED, CASE_OWN, CASE_COMMON];
/// Of which they run that stay awake.
pub(super) const BUSY_CASES: [&str; 2] = [CASE_BUSY, CASE_BUSY_ADDED];
const BODY: usize = 95;
const CONNECTIONS: usize = 64;
/// Of saturation.
const SHARE: f64 = 0.8;
/// Whose saturation the common rate is taken from: the least of theirs.
const COMPARED: [&str; 3] = ["weir", "nginx", "haproxy"];
/// Requests that may still be waiting when turns of an open loop end, in parts of all.
const UNSENT_SHARE: f64 = 0.01;

/// One request at a time, direct and through each proxy alternately.
pub(super) fn one_connection(ground: &mut Ground, running: &[Running]) -> Result<Vec<Row>> {
    if !ground.wants(CASE_ONE) && !ground.wants(CASE_ADDED) {
        return Ok(Vec::new());
    }
    alternately(ground, running, (CASE_ONE, CASE_ADDED))
}

/// The same for those that can poll busily, each alone: one that never sleeps leaves the CPU to
/// nobody.
pub(super) fn busy_polling(ground: &mut Ground, programs: &[Program]) -> Result<Vec<Row>> {
    if !BUSY_CASES.iter().any(|case| ground.wants(case)) {
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for program in programs.iter().filter(|one| one.kind.can_poll_busily()) {
        let mut setup = ground.setup(&format!("{}-busy", program.name))?;
        setup.busy_poll = true;
        let running = match program.start(&setup) {
            Ok(running) => running,
            Err(error) => {
                complain(&format!("without {}: {error:#}", program.name));
                continue;
            }
        };
        rows.extend(alternately(
            ground,
            &[running],
            (CASE_BUSY, CASE_BUSY_ADDED),
        )?);
    }
    Ok(rows)
}

/// Rows of `case`, and what each proxy adds to the row without one.
fn alternately(
    ground: &mut Ground,
    running: &[Running],
    (case, case_added): (&str, &str),
) -> Result<Vec<Row>> {
    let _awake = awake::keep();
    let mut direct = Sum::new()?;
    let mut sums: Vec<Sum> = running.iter().map(|_| Sum::new()).collect::<Result<_>>()?;
    for round in 0..ground.rounds {
        for place in order(running.len(), round) {
            let origin = ground.bed.origin();
            direct.add(slice(ground, origin, 1, Pace::Closed));
            sums[place].add(slice(ground, running[place].setup.plain, 1, Pace::Closed));
        }
    }
    let mut rows = vec![direct.row(case, "direct", "")];
    let mut added = Vec::new();
    for (proxy, sum) in running.iter().zip(sums) {
        let program = &proxy.program;
        let row = sum.row(case, program.name, &program.version);
        added.push(difference(case_added, &row, &rows[0]));
        rows.push(row);
    }
    rows.extend(added);
    Row::table(&rows);
    Ok(rows)
}

/// `row` without what `direct` takes.
fn difference(case: &str, row: &Row, direct: &Row) -> Row {
    let less = |all: Option<f64>, less: Option<f64>| {
        let (all, less) = all.zip(less)?;
        Some(((all - less) * 10.0).round() / 10.0)
    };
    Row {
        case: case.to_owned(),
        p50_us: less(row.p50_us, direct.p50_us),
        p99_us: less(row.p99_us, direct.p99_us),
        ..row.clone()
    }
}

/// Requests at a given rate, timed from when they were due.
pub(super) fn open_loop(ground: &mut Ground, running: &[Running]) -> Result<Vec<Row>> {
    if !ground.wants(CASE_OWN) && !ground.wants(CASE_COMMON) {
        return Ok(Vec::new());
    }
    let _awake = awake::keep();
    let saturations = saturations(ground, running);
    let compared = |proxy: &&(&Running, f64)| COMPARED.contains(&proxy.0.program.name);
    let rates = saturations.iter().filter(compared).map(|(_, rate)| *rate);
    let common = SHARE * rates.fold(f64::INFINITY, f64::min);
    let own: Vec<(&Running, f64)> = saturations
        .iter()
        .map(|(proxy, rate)| (*proxy, SHARE * rate))
        .collect();
    // Who is saturated by less has no latency at that rate, only a queue.
    let able = saturations.iter().filter(|(_, rate)| *rate > common);
    let same: Vec<(&Running, f64)> = able.map(|(proxy, _)| (*proxy, common)).collect();
    let mut rows = at_rates(ground, CASE_OWN, &own)?;
    if common.is_finite() {
        say(&format!(
            "\nThe same rate for all: {common:.0} requests a second"
        ));
        rows.extend(at_rates(ground, CASE_COMMON, &same)?);
    }
    Ok(rows)
}

/// Requests a second of each proxy that gets as many as it can take; the best of the rounds.
fn saturations<'a>(ground: &mut Ground, running: &'a [Running]) -> Vec<(&'a Running, f64)> {
    let mut saturations = Vec::new();
    for proxy in running {
        let mut best = 0.0_f64;
        for _ in 0..2 {
            match slice(ground, proxy.setup.plain, CONNECTIONS, Pace::Closed) {
                Ok(slice) => best = best.max(slice.requests as f64 / slice.elapsed.as_secs_f64()),
                Err(error) => complain(&format!("{}: {error:#}", proxy.program.name)),
            }
        }
        if best > 0.0 {
            say(&format!(
                "{} is saturated by {best:.0} requests a second",
                proxy.program.name
            ));
            saturations.push((proxy, best));
        }
    }
    saturations
}

fn at_rates(ground: &mut Ground, case: &str, rates: &[(&Running, f64)]) -> Result<Vec<Row>> {
    if !ground.wants(case) {
        return Ok(Vec::new());
    }
    let mut sums: Vec<Sum> = rates.iter().map(|_| Sum::new()).collect::<Result<_>>()?;
    for round in 0..ground.rounds {
        for place in order(rates.len(), round) {
            let (proxy, rate) = rates[place];
            let slice = slice(ground, proxy.setup.plain, CONNECTIONS, Pace::Rate(rate));
            sums[place].add(slice);
        }
    }
    let both = rates.iter().zip(sums);
    let rows: Vec<Row> = both
        .map(|((proxy, rate), sum)| {
            let program = &proxy.program;
            sum.kept_up(*rate).row(case, program.name, &program.version)
        })
        .collect();
    Row::table(&rows);
    Ok(rows)
}

/// A part of a measurement.
struct Slice {
    requests: u64,
    elapsed: Duration,
    latencies: Histogram<u64>,
    unsent: usize,
}

fn slice(
    ground: &mut Ground,
    target: std::net::SocketAddr,
    connections: usize,
    pace: Pace,
) -> Result<Slice> {
    let plan = Plan {
        pace,
        warm_up: ground.warm_up,
        window: ground.window,
        spin: true,
    };
    let load = Load::new(target, BODY, connections);
    let outcome = ground.bed.run(&load, plan, || Ok(Usage::default()))?;
    Ok(Slice {
        requests: outcome.requests,
        elapsed: outcome.elapsed,
        latencies: outcome.latencies,
        unsent: outcome.unsent,
    })
}

/// All slices of one proxy.
struct Sum {
    latencies: Histogram<u64>,
    requests: u64,
    unsent: usize,
    failure: Option<String>,
}

impl Sum {
    fn new() -> Result<Self> {
        Ok(Self {
            latencies: Histogram::new(3)?,
            requests: 0,
            unsent: 0,
            failure: None,
        })
    }

    fn add(&mut self, slice: Result<Slice>) {
        match slice {
            Ok(slice) => {
                self.requests += slice.requests;
                self.unsent += slice.unsent;
                if let Err(error) = self.latencies.add(slice.latencies) {
                    self.failure = Some(error.to_string());
                }
            }
            Err(error) => {
                complain(&format!("{error:#}"));
                self.failure = Some(format!("{error:#}"));
            }
        }
    }

    /// Where too much could not be sent that was due, the queue was measured and not the proxy.
    fn kept_up(mut self, rate: f64) -> Self {
        let allowed = self.requests as f64 * UNSENT_SHARE;
        if self.failure.is_none() && self.unsent as f64 > allowed {
            let (unsent, requests) = (self.unsent, self.requests);
            self.failure = Some(format!(
                "not up to {rate:.0} requests a second: {unsent} were waiting, {requests} answered"
            ));
        }
        self
    }

    fn row(self, case: &str, proxy: &str, version: &str) -> Row {
        let mut row = Row::empty(case, proxy, version);
        row.requests = self.requests;
        match self.failure {
            Some(failure) => row.failure = Some(failure),
            None => row.latencies(&self.latencies),
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(requests: u64, unsent: usize) -> Sum {
        Sum {
            requests,
            unsent,
            ..Sum::new().unwrap()
        }
    }

    #[test]
    fn one_request_of_a_hundred_may_wait_at_the_end() {
        assert_eq!(sum(100, 1).kept_up(7.0).failure, None);
        let failure = sum(100, 2).kept_up(7.0).failure.unwrap();
        assert_eq!(
            failure,
            "not up to 7 requests a second: 2 were waiting, 100 answered"
        );
    }

    #[test]
    fn what_is_added_is_the_difference_of_the_quantiles() {
        let row = |p50, p99| Row {
            p50_us: Some(p50),
            p99_us: Some(p99),
            ..Row::empty(CASE_ONE, "weir", "1")
        };
        let added = difference(CASE_ADDED, &row(30.5, 70.0), &row(11.25, 20.0));
        assert_eq!(
            (added.case.as_str(), added.proxy.as_str()),
            (CASE_ADDED, "weir")
        );
        assert_eq!((added.p50_us, added.p99_us), (Some(19.3), Some(50.0)));
        assert_eq!(
            difference(
                CASE_ADDED,
                &Row::empty(CASE_ONE, "weir", "1"),
                &row(1.0, 1.0)
            )
            .p50_us,
            None
        );
    }
}
