//! Memory: after start, with many routes, and for each idle connection.

use anyhow::Result;
use std::time::Duration;

use super::Ground;
use super::load::{Load, Pace, Plan};
use super::proxy::{Program, Running};
use super::row::Row;
use super::usage::memory;
use crate::report::complain;

pub(super) const CASE_START: &str = "memory after start";
pub(super) const CASE_ROUTES: &str = "memory with 5000 routes";
pub(super) const CASE_IDLE: &str = "memory per idle connection";
const ROUTES: usize = 5000;
/// Connections held, each after one request.
const HELD: usize = 10_000;
const BODY: usize = 95;
/// Memory is at rest when it has not changed by more than this part for so many looks; allocators
/// give free memory back after a second or more.
const SETTLED_PART: u64 = 100;
const SETTLED_LOOKS: usize = 30;
/// How often it is looked at until then, at most.
const SETTLE_LOOKS: usize = 150;
const SETTLE_EVERY: Duration = Duration::from_millis(100);

/// Each program alone: what two processes of one file share would count half.
pub(super) fn run(ground: &mut Ground, programs: &[Program]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (case, measure) in [
        (CASE_START, after_start as Measure),
        (CASE_ROUTES, with_routes),
        (CASE_IDLE, per_connection),
    ] {
        if !ground.wants(case) {
            continue;
        }
        let measured: Vec<Row> = programs
            .iter()
            .map(|program| row(ground, program, case, measure))
            .collect();
        Row::table(&measured);
        rows.extend(measured);
    }
    Ok(rows)
}

/// Bytes, and how many requests were made for them.
type Measure = fn(&mut Ground, &Program) -> Result<(u64, u64)>;

fn row(ground: &mut Ground, program: &Program, case: &str, measure: Measure) -> Row {
    let mut row = Row::empty(case, program.name, &program.version);
    match measure(ground, program) {
        Ok((bytes, requests)) => {
            row.memory_bytes = Some(bytes);
            row.requests = requests;
        }
        Err(error) => {
            complain(&format!("{case}: {}: {error:#}", program.name));
            row.failure = Some(format!("{error:#}"));
        }
    }
    row
}

fn after_start(ground: &mut Ground, program: &Program) -> Result<(u64, u64)> {
    let proxy = program.start(&ground.setup(&format!("{}-start", program.name))?)?;
    Ok((settled(&proxy)?, 0))
}

/// The last route of all is asked for once, so that they are known to be there.
fn with_routes(ground: &mut Ground, program: &Program) -> Result<(u64, u64)> {
    let mut setup = ground.setup(&format!("{}-routes", program.name))?;
    setup.routes = ROUTES;
    let proxy = program.start(&setup)?;
    let path = format!("/r/{}/{BODY}", ROUTES - 1);
    let load = Load {
        requests: vec![super::load::request(&path, "")].into(),
        ..Load::new(proxy.setup.plain, BODY, 1)
    };
    let outcome = ground.bed.run(&load, once(), || Ok(()))?;
    Ok((settled(&proxy)?, outcome.requests))
}

fn per_connection(ground: &mut Ground, program: &Program) -> Result<(u64, u64)> {
    let proxy = program.start(&ground.setup(&format!("{}-idle", program.name))?)?;
    // What the first requests bring with them is not the connections'.
    let few = Load::new(proxy.setup.plain, BODY, 64);
    ground.bed.run(&few, once(), || Ok(()))?;
    let before = settled(&proxy)?;
    let many = Load::new(proxy.setup.plain, BODY, HELD);
    let outcome = ground.bed.run(&many, once(), || Ok(()))?;
    let after = settled(&proxy)?;
    let held = outcome.held.count();
    anyhow::ensure!(held == HELD, "only {held} connections are open");
    Ok((after.saturating_sub(before) / HELD as u64, outcome.requests))
}

fn once() -> Plan {
    Plan {
        pace: Pace::Once,
        warm_up: Duration::ZERO,
        window: Duration::ZERO,
        spin: false,
    }
}

/// Memory when it does not change any more.
fn settled(proxy: &Running) -> Result<u64> {
    let mut last = memory(proxy.pids())?;
    let mut same = 0;
    for _ in 0..SETTLE_LOOKS {
        // A process has no way to tell that it is done.
        std::thread::park_timeout(SETTLE_EVERY);
        let now = memory(proxy.pids())?;
        if now.abs_diff(last) > last / SETTLED_PART {
            (last, same) = (now, 0);
            continue;
        }
        same += 1;
        if same == SETTLED_LOOKS {
            break;
        }
    }
    memory(proxy.pids())
}
