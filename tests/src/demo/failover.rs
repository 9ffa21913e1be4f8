//! Killing an instance and a gateway under load, and what users feel of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::load::{Load, Record, Sample};
use super::report::Report;
use super::scenes::place;
use super::topology::{Family, World};
use crate::client::inside;
use crate::wait;

/// The instance that is killed.
pub const INSTANCE: &str = "users-2";

/// The gateway that is killed.
pub const GATEWAY: &str = "gateway-1";

/// What the load asks for.
const PATH: &str = "/users/whoami";

/// How many requests must pass with the agent dead.
const UNATTENDED_REQUESTS: usize = 50;

/// How many new connections are answered before anything is killed.
const WARM_UP_REQUESTS: usize = 100;

/// How long starting the load may take.
const WARM_UP_LIMIT: Duration = Duration::from_secs(15);

/// A failover is over when no request has failed for so long.
const QUIET: Duration = Duration::from_millis(1500);

/// A failover that takes longer has failed: probes every 200 ms, three of which must fail, and
/// plenty for a busy machine.
const FAILOVER_LIMIT: Duration = Duration::from_secs(5);

/// How long a restarted program may take until it is used again.
const RETURN_LIMIT: Duration = Duration::from_secs(10);

/// What users felt.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Failover {
    /// Requests on new connections that were answered.
    pub answered: usize,
    /// Requests on new connections that failed before the kill: there should be none.
    pub failed_before: usize,
    /// Requests on new connections that failed after it.
    pub failed_after: usize,
    /// From the kill to the last failure, milliseconds; 0 when nothing failed.
    pub last_failure_ms: u128,
    /// Held connections through what was not killed.
    pub survivors: usize,
    /// Requests on those that were answered.
    pub survivor_requests: usize,
    /// What broke those of them that broke: there should be none.
    pub broken: Vec<String>,
    /// Held connections through the killed gateway that ended with it.
    pub ended: usize,
    /// Requests on those that were answered before.
    pub ended_requests: usize,
}

/// Kills an instance: the gateways know the others.
///
/// # Errors
///
/// When the load does not start, the failures do not end or the instance does not return.
pub fn instance(world: &mut World, report: &mut Report) -> Result<()> {
    let kill = |world: &mut World| world.instance(INSTANCE)?.process.crash();
    let (record, killed) = under_load(world, kill)?;
    let failover = assess(&record, killed, None);
    report.failover("instance", INSTANCE, &failover);
    world.instance(INSTANCE)?.restart()?;
    let back = until_used(world, |_, instance| instance == INSTANCE)?;
    report.back(INSTANCE, back);
    Ok(())
}

/// Kills a gateway: the balancer knows the other one.
///
/// # Errors
///
/// As [`instance`].
pub fn gateway(world: &mut World, report: &mut Report) -> Result<()> {
    let kill = |world: &mut World| world.gateway(GATEWAY)?.process().crash();
    let (record, killed) = under_load(world, kill)?;
    let failover = assess(&record, killed, Some(GATEWAY));
    report.failover("gateway", GATEWAY, &failover);
    world.gateway(GATEWAY)?.restart()?;
    let back = until_used(world, |gateway, _| gateway == GATEWAY)?;
    report.back(GATEWAY, back);
    Ok(())
}

/// Kills the agent of the balancer: packets do not need it.
///
/// # Errors
///
/// When the agent does not start again; a failed request goes into the report instead.
pub fn agent(world: &mut World, report: &mut Report) -> Result<()> {
    world.balancer.crash()?;
    let names = world.gateway_names();
    let mut answered = 0;
    for number in 0..UNATTENDED_REQUESTS {
        let client = world.user(Family::BOTH[number % 2], "unattended")?;
        let outcome = inside(&world.client, || client.once(PATH));
        match place(&outcome, &names) {
            Ok(_) => answered += 1,
            Err(problem) => report.failure(&format!("with the agent dead: {problem}")),
        }
    }
    world.balancer.start()?;
    report.agent_killed(answered, world.balancer.status()?.adopted);
    Ok(())
}

fn under_load(
    world: &mut World,
    kill: impl FnOnce(&mut World) -> Result<()>,
) -> Result<(Record, Instant)> {
    let load = Load::start(world, PATH)?;
    wait::until("the load to run", WARM_UP_LIMIT, || {
        load.has_settled(WARM_UP_REQUESTS).then_some(())
    })?;
    let killed = Instant::now();
    kill(world)?;
    let quiet = wait::until("failures to end", FAILOVER_LIMIT + QUIET, || {
        let last = load.last_failure().map_or(killed, |at| at.max(killed));
        (last.elapsed() >= QUIET).then_some(())
    });
    let record = load.stop();
    quiet.with_context(|| format!("last failure: {}", last_words(&record)))?;
    Ok((record, killed))
}

fn last_words(record: &Record) -> &str {
    let mut failures = record
        .fresh
        .iter()
        .rev()
        .filter_map(|sample| sample.outcome.as_ref().err());
    failures.next().map_or("none", String::as_str)
}

/// Reads the record; `dead` is the gateway whose held connections end with it.
fn assess(record: &Record, killed: Instant, dead: Option<&str>) -> Failover {
    let mut failover = Failover::default();
    for Sample { at, outcome } in &record.fresh {
        match outcome {
            Ok(_) => failover.answered += 1,
            Err(_) if *at < killed => failover.failed_before += 1,
            Err(_) => {
                failover.failed_after += 1;
                let after = at.duration_since(killed).as_millis();
                failover.last_failure_ms = failover.last_failure_ms.max(after);
            }
        }
    }
    for held in &record.held {
        if dead.is_some() && held.gateway() == dead {
            failover.ended += usize::from(held.failure().is_some());
            failover.ended_requests += held.answered();
        } else {
            failover.survivors += 1;
            failover.survivor_requests += held.answered();
            let broken = held.failure().map(|why| format!("{}: {why}", held.local));
            failover.broken.extend(broken);
        }
    }
    failover
}

/// Sends requests until one is answered where `wanted` says, and returns how long that took.
fn until_used(world: &World, wanted: impl Fn(&str, &str) -> bool) -> Result<Duration> {
    let started = Instant::now();
    let names = world.gateway_names();
    let client = world.user(Family::V4, "return")?;
    wait::until("the restarted program to be used", RETURN_LIMIT, || {
        let outcome = inside(&world.client, || client.once(PATH));
        let place = place(&outcome, &names).ok()?;
        wanted(&place.gateway, &place.instance).then_some(())
    })?;
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::load::Held;
    use crate::demo::scenes::Place;

    fn answered(at: Instant, gateway: &str) -> Sample {
        let place = Place {
            gateway: gateway.to_owned(),
            instance: "users-1".to_owned(),
        };
        Sample {
            at,
            outcome: Ok(place),
        }
    }

    fn failed(at: Instant) -> Sample {
        Sample {
            at,
            outcome: Err("connection refused".to_owned()),
        }
    }

    fn held(samples: Vec<Sample>) -> Held {
        Held {
            local: "10.0.1.2:40000".parse().unwrap(),
            samples,
        }
    }

    #[test]
    fn failures_count_from_the_kill_and_the_last_one_gives_the_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let record = Record {
            fresh: vec![
                failed(at(5)),
                answered(at(10), "gateway-1"),
                failed(at(130)),
                failed(at(420)),
            ],
            held: Vec::new(),
        };
        let failover = assess(&record, at(20), None);
        assert_eq!(
            (
                failover.answered,
                failover.failed_before,
                failover.failed_after
            ),
            (1, 1, 2)
        );
        assert_eq!(failover.last_failure_ms, 400);
    }

    #[test]
    fn only_connections_through_the_living_are_survivors() {
        let now = Instant::now();
        let record = Record {
            fresh: Vec::new(),
            held: vec![
                held(vec![answered(now, "gateway-1"), failed(now)]),
                held(vec![answered(now, "gateway-2"), answered(now, "gateway-2")]),
                held(vec![answered(now, "gateway-2"), failed(now)]),
            ],
        };
        let failover = assess(&record, now, Some("gateway-1"));
        assert_eq!((failover.survivors, failover.survivor_requests), (2, 3));
        assert_eq!(failover.broken, ["10.0.1.2:40000: connection refused"]);
        assert_eq!((failover.ended, failover.ended_requests), (1, 1));
        assert_eq!(assess(&record, now, None).broken.len(), 2);
    }
}
