//! ns per packet of the balancer, by forwarding mode, packet kind, number of flows, and what is
//! remembered about them.

pub(crate) mod case;
mod target;

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use lb_ebpf::track::Event;
use serde::Serialize;
use tests::object::Object;

use self::{
    case::{Case, Known},
    target::Target,
};
use crate::{
    harness::{self, Harness, PACKETS},
    report::{complain, table},
};

/// Turns through floor and program; the least time of each counts.
const ROUNDS: u32 = 5;
/// The same where flows are remembered: what is measured there is larger, and takes longer.
const ROUNDS_REMEMBERED: u32 = 3;

/// One of so many packets may do something else: a few flows of millions meet in full buckets.
const TOLERANCE: u64 = 1000;

/// One line of the result.
#[derive(Serialize)]
pub(crate) struct Row {
    case: String,
    family: &'static str,
    mode: &'static str,
    packet: &'static str,
    flows: u32,
    /// VIPs that there are.
    vips: u32,
    /// VIPs that packets go to, in no order.
    vips_used: u32,
    backends: usize,
    /// Slots that move, in percent.
    moving: u32,
    /// Which flows are remembered: `moving`, those on slots that move; `full`, all.
    tracking: &'static str,
    /// The program under test with the harness.
    ns_per_packet: u64,
    /// Bare encapsulation with the harness.
    floor_ns: u64,
}

impl Row {
    /// Nanoseconds above the floor.
    fn above(&self) -> u64 {
        self.ns_per_packet.saturating_sub(self.floor_ns)
    }

    /// What targets are about.
    fn is_common(&self) -> bool {
        self.mode == "ipip" && self.family == "v4" && self.tracking == "moving"
    }
}

/// Runs all cases whose name contains `only`, and prints the table.
pub(crate) fn run(only: &str) -> Result<Vec<Row>> {
    harness::pin_to_first_cpu()?;
    let mut harness = Harness::load()?;
    let mut rows = Vec::new();
    for case in case::all().iter().filter(|case| case.name().contains(only)) {
        let fixture = case.fixture();
        for flows in case
            .flows()
            .chunk_by(|one, next| case.room(*one) == case.room(*next))
        {
            let object = Object::balancer_within(&fixture, case.room(flows[0]), u32::MAX)?;
            let program = object.xdp().fd()?.try_clone()?;
            for &flows in flows {
                rows.push(measure(&mut harness, &object, &program, case, flows)?);
            }
        }
        complain(&progress(case, &rows));
    }
    print(&rows);
    Ok(rows)
}

/// The least of several runs, floor and program in turn: noise only ever adds.
fn measure(
    harness: &mut Harness,
    object: &Object,
    program: &ProgramFd,
    case: &Case,
    flows: u32,
) -> Result<Row> {
    let (frame, settings) = (case.frame(), case.settings(flows));
    let floor = harness.floor(case.growth())?;
    if case.first_pass(flows) > 0 {
        harness.run(program, settings, &frame, case.first_pass(flows))?;
    }
    let before = Happened::so_far(object)?;
    let rounds = if case.remembers() {
        ROUNDS_REMEMBERED
    } else {
        ROUNDS
    };
    let (mut ns_per_packet, mut floor_ns) = (u64::MAX, u64::MAX);
    for _ in 0..rounds {
        floor_ns = floor_ns.min(harness.run(&floor, settings, &frame, PACKETS)?);
        ns_per_packet = ns_per_packet.min(harness.run(program, settings, &frame, PACKETS)?);
    }
    Happened::so_far(object)?
        .since(before)
        .check(case, rounds * PACKETS)?;
    Ok(Row {
        case: case.name(),
        family: case.family_name(),
        mode: case.mode_name(),
        packet: case.packet,
        flows,
        vips: case.vips,
        vips_used: case.vips_used,
        backends: case.backends,
        moving: case.moving.percent(),
        tracking: case.tracking_name(),
        ns_per_packet,
        floor_ns,
    })
}

/// What the program counted where flows are told apart.
#[derive(Clone, Copy)]
struct Happened {
    hits: u64,
    inserts: u64,
    evictions: u64,
    failures: u64,
}

impl Happened {
    fn so_far(object: &Object) -> Result<Self> {
        let sum = |events: &[Event]| -> Result<u64> {
            events.iter().map(|event| object.event_count(*event)).sum()
        };
        Ok(Self {
            hits: sum(&[Event::Hit, Event::FlowHit])?,
            inserts: sum(&[Event::Insert, Event::FlowInsert])?,
            evictions: sum(&[Event::Evict, Event::FlowEvict])?,
            failures: sum(&[
                Event::OverBudget,
                Event::InsertFailed,
                Event::FlowInsertFailed,
            ])?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            hits: self.hits - before.hits,
            inserts: self.inserts - before.inserts,
            evictions: self.evictions - before.evictions,
            failures: self.failures - before.failures,
        }
    }

    /// Fails when the packets took another way than that of `case`: its time would be another's.
    fn check(self, case: &Case, packets: u32) -> Result<()> {
        let some = match (case.remembers(), case.moving.percent()) {
            (false, _) => 0..=0,
            // Flows do not divide evenly among slots; one flow alone is on a slot that moves.
            (true, 33) => 30..=100,
            (true, _) => 100..=100,
        };
        let (mut hits, mut inserts, mut evictions) = (0..=0, 0..=0, 0..=0);
        if case.packet == "tcp syn" {
            inserts = some;
        } else {
            hits = some;
        }
        if case.known == Known::NoneAndFull {
            evictions = 95..=100;
        }
        let expected = [
            ("hits", self.hits, hits),
            ("inserts", self.inserts, inserts),
            ("evictions", self.evictions, evictions),
            ("failed inserts", self.failures, 0..=0),
        ];
        for (what, found, percent) in expected {
            let (least, most) = share(&percent, u64::from(packets));
            ensure!(
                (least..=most).contains(&found),
                "{}: {found} {what} in {packets} packets, not {least} to {most}",
                case.name()
            );
        }
        Ok(())
    }
}

/// `percent` of all packets, give or take [`TOLERANCE`].
fn share(percent: &RangeInclusive<u64>, packets: u64) -> (u64, u64) {
    let tolerance = packets / TOLERANCE;
    let least = (percent.start() * packets / 100).saturating_sub(tolerance);
    (least, percent.end() * packets / 100 + tolerance)
}

/// What is known of the last case, while the others run.
fn progress(case: &Case, rows: &[Row]) -> String {
    let name = case.name();
    let rows = rows.iter().filter(|row| row.case == name);
    let cells: Vec<String> = rows.map(cell).collect();
    format!("{name:<60} {}", cells.join("  "))
}

/// Above the floor, and as measured.
fn cell(row: &Row) -> String {
    format!("{} ({})", row.above(), row.ns_per_packet)
}

/// One line for each case, one column for each number of flows.
fn print(rows: &[Row]) {
    let (mut known, mut new) = (Vec::new(), Vec::new());
    for case in rows.chunk_by(|one, other| one.case == other.case) {
        let line = std::iter::once(case[0].case.clone()).chain(case.iter().map(cell));
        let part = if case[0].flows == case::FLOWS_ENDLESS {
            &mut new
        } else {
            &mut known
        };
        part.push(line.collect::<Vec<_>>());
    }
    table(
        &["ns above floor (raw)", "1 flow", "64 k", "1 M", "4 M"],
        &known,
    );
    table(&["ns above floor (raw)", "every packet a new flow"], &new);
    let targets: Vec<_> = target::all(rows).iter().map(Target::cells).collect();
    table(&["ipip v4 tcp", "at most", "above floor", "raw"], &targets);
}
