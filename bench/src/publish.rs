//! Publishing a change that touches every one of many VIPs at once, into the real maps.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_userspace::control::{
    apply::{Store as _, stage},
    plan::{Plan, Wanted},
    slots::Clock,
};
use serde::Serialize;
use tests::publisher::{self, Publisher};

use crate::report::{complain, table};

/// VIPs, all of the same backends.
const VIPS: u16 = 512;
/// Backends of each VIP, one of which leaves at a time.
const BACKENDS: u16 = 100;
/// Slots of each ring.
const RING_SIZES: [u32; 2] = [4093, 65_537];
/// Publishes whose median and extremes are shown.
const PUBLISHES: u16 = 11;

/// One line of the result.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    vips: u16,
    slots: u32,
    backends: u16,
    least_us: u128,
    median_us: u128,
    most_us: u128,
}

/// Runs both sizes and prints the table.
pub(crate) fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for ring_size in RING_SIZES {
        complain(&format!("publishing {VIPS} VIPs of {ring_size} slots"));
        rows.extend(publish(ring_size)?);
    }
    print(&rows);
    Ok(rows)
}

/// How long the parts of one publish took.
struct Times {
    planned: Duration,
    staged: Duration,
    flipped: Duration,
}

fn publish(ring_size: u32) -> Result<Vec<Row>> {
    let mut publisher = Publisher::new(u32::from(VIPS), ring_size)?;
    // The first publish takes numbers and places, the second one the other half of the places.
    for turn in 0..2 {
        publish_once(&mut publisher, &wanted(ring_size, turn))?;
    }
    let mut times = Vec::new();
    for turn in 2..PUBLISHES + 2 {
        times.push(publish_once(&mut publisher, &wanted(ring_size, turn))?);
    }
    let part = |case, part: fn(&Times) -> Duration| {
        let mut times: Vec<_> = times.iter().map(part).collect();
        times.sort_unstable();
        let at = |index: usize| times[index].as_micros();
        Row {
            case,
            vips: VIPS,
            slots: ring_size,
            backends: BACKENDS,
            least_us: at(0),
            median_us: at(times.len() / 2),
            most_us: at(times.len() - 1),
        }
    };
    Ok(vec![
        part("tables built and compared", |times| times.planned),
        part("rings written", |times| times.staged),
        part("flips", |times| times.flipped),
        part("publish: rings written and flips", |times| {
            times.staged + times.flipped
        }),
    ])
}

/// Publishes `wanted`. The grace period that the agent lets pass in the background is waited for
/// before time counts.
fn publish_once(publisher: &mut Publisher, wanted: &Wanted) -> Result<Times> {
    let start = Instant::now();
    let mut plan = Plan::new(&publisher.published, wanted)?;
    let planned = start.elapsed();
    ensure!(
        plan.vips.len() == usize::from(VIPS),
        "the change touches {} VIPs",
        plan.vips.len()
    );
    let maps = publisher.dataplane.maps_mut();
    if std::mem::take(&mut plan.grace_period) {
        maps.wait_grace_period();
    }
    let start = Instant::now();
    let unseen = stage(maps, &publisher.published, plan)?;
    let staged = start.elapsed();
    let start = Instant::now();
    let next = unseen.publish(maps, &publisher.published)?;
    let flipped = start.elapsed();
    publisher.published = next;
    Ok(Times {
        planned,
        staged,
        flipped,
    })
}

/// Rings that lack backend number `turn`.
fn wanted(ring_size: u32, turn: u16) -> Wanted {
    let all = publisher::members(BACKENDS);
    let mut members = all.clone();
    members.remove(usize::from(turn % BACKENDS));
    let vip = |number| publisher::vip(number, ring_size, members.clone(), &all);
    Wanted {
        vips: (0..VIPS).map(vip).collect(),
        // Every slot has settled before the next change.
        clock: Clock {
            quiet: 0,
            ..Clock::default()
        },
        ..Wanted::default()
    }
}

fn print(rows: &[Row]) {
    let cells = |row: &Row| {
        let case = format!("{}, {} VIPs of {} slots", row.case, row.vips, row.slots);
        let times = [row.least_us, row.median_us, row.most_us];
        let times = times.map(|us| format!("{:.2}", us as f64 / 1000.0));
        [case].into_iter().chain(times).collect()
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table(&["ms", "least", "median", "most"], &rows);
}
