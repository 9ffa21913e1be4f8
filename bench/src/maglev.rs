//! Building rings by Maglev and by the other table, what of them moves, and publishing them into the
//! real maps.

mod moves;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_ebpf::{
    abi::{VipKey, forward, hash_kind},
    address::Address,
    wire::protocol::TCP,
};
use lb_userspace::{
    config::Tracking,
    control::{
        apply::{Store, apply},
        plan::{Plan, Wanted, WantedVip},
        published::Published,
    },
    dataplane::{Dataplane, KernelLog, Sizes},
    table::{Member, Table},
};
use serde::Serialize;
use tests::{bpffs::Bpffs, object};

use crate::report::{complain, say};

/// Slots of the rings under test.
const RING_SIZE: u32 = 65_537;
/// The least of so many turns counts for a build: noise only ever adds.
const BUILDS: usize = 15;
/// Publishes whose median and extremes are shown.
const PUBLISHES: usize = 51;

/// Backends of the rings that are built and compared.
const FLEET_SIZES: [usize; 4] = [10, 100, 400, 1000];

/// One line of the result.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Row {
    Times(Times),
    Moves(moves::Row),
}

/// How long something took.
#[derive(Serialize)]
pub(crate) struct Times {
    case: &'static str,
    table: &'static str,
    slots: u32,
    backends: usize,
    least_us: u128,
    median_us: u128,
    most_us: u128,
}

/// Runs all cases and prints the tables.
pub(crate) fn run() -> Result<Vec<Row>> {
    let mut times = Vec::new();
    for table in Table::ALL {
        for backends in FLEET_SIZES {
            times.push(build(table, backends)?);
        }
    }
    match object::missing() {
        None => times.extend(publish()?),
        Some(reason) => complain(&format!("no publish rows: {reason}")),
    }
    show(&times);
    let moves = moves::run(&FLEET_SIZES)?;
    moves::show(&moves);
    let times = times.into_iter().map(Row::Times);
    Ok(times.chain(moves.into_iter().map(Row::Moves)).collect())
}

fn show(rows: &[Times]) {
    say("case                       table          slots  backends  least us  median us  most us");
    for row in rows {
        say(&format!(
            "{:<26} {:<11} {:>8} {:>9} {:>9} {:>10} {:>8}",
            row.case, row.table, row.slots, row.backends, row.least_us, row.median_us, row.most_us
        ));
    }
}

/// Backends 10.`fleet`.0.0, 10.`fleet`.0.1, … of equal weight.
fn members(count: usize, fleet: u8) -> Vec<Member> {
    (0..count).map(|index| member(index, fleet)).collect()
}

fn member(index: usize, fleet: u8) -> Member {
    let [high, low] = (index as u16).to_be_bytes();
    Member {
        address: IpAddr::from(Ipv4Addr::new(10, fleet, high, low)),
        weight: 100,
    }
}

fn row(case: &'static str, table: Table, backends: usize, mut times: Vec<Duration>) -> Times {
    times.sort_unstable();
    let at = |index: usize| times[index].as_micros();
    let (least_us, median_us, most_us) = (at(0), at(times.len() / 2), at(times.len() - 1));
    Times {
        case,
        table: table.name(),
        slots: RING_SIZE,
        backends,
        least_us,
        median_us,
        most_us,
    }
}

fn build(table: Table, backends: usize) -> Result<Times> {
    let members = members(backends, 0);
    let mut times = Vec::new();
    for _ in 0..BUILDS {
        let start = Instant::now();
        let ring = table.build(&members, RING_SIZE)?;
        times.push(start.elapsed());
        ensure!(
            ring.len() == RING_SIZE as usize,
            "the ring has {} slots",
            ring.len()
        );
    }
    Ok(row("build", table, backends, times))
}

/// Publishes one VIP again and again, the ring already built: each time another backend leaves.
fn publish() -> Result<Vec<Times>> {
    const BACKENDS: usize = 100;
    let directory = tempfile::tempdir().context("making a directory for a bpffs")?;
    let bpffs = Bpffs::new(directory.path())?;
    let sizes = Sizes {
        vips: 4,
        backends: 512,
        ring_slots: 4 * (RING_SIZE + 1),
        exceptions: 1024,
        flows: 16,
        inserts_per_second: 100,
    };
    let mut dataplane = Dataplane::open(&bpffs.directory("bench")?, sizes, KernelLog::Off)?;
    let mut published = Published::new(sizes);
    let (mut plain, mut with_wait) = (Vec::new(), Vec::new());
    for turn in 0..PUBLISHES {
        let mut plan = Plan::new(&published, &wanted(BACKENDS, turn % BACKENDS))?;
        let start = Instant::now();
        if std::mem::take(&mut plan.grace_period) {
            dataplane.maps_mut().wait_grace_period();
        }
        let waited = start.elapsed();
        let start = Instant::now();
        published = apply(dataplane.maps_mut(), &published, plan)?;
        let applied = start.elapsed();
        if turn > 0 {
            plain.push(applied);
            with_wait.push(waited + applied);
        }
    }
    Ok(vec![
        row("publish", Table::Maglev, BACKENDS, plain),
        row(
            "publish with grace period",
            Table::Maglev,
            BACKENDS,
            with_wait,
        ),
    ])
}

/// One VIP whose ring lacks backend `without`.
fn wanted(backends: usize, without: usize) -> Wanted {
    let all = members(backends, 1);
    let mut members = all.clone();
    members.remove(without);
    let vip = WantedVip {
        name: "bench".to_owned(),
        key: VipKey::new(Address::v4([203, 0, 113, 10]), 443, TCP),
        forward: forward::IPIP,
        hash: hash_kind::FIVE_TUPLE,
        ring_size: RING_SIZE,
        table: Table::default(),
        tracking: Tracking::default(),
        members,
        backends: all.iter().map(|member| member.address).collect(),
        dead: std::collections::BTreeSet::new(),
        marks: Vec::new(),
    };
    Wanted {
        vips: vec![vip],
        ..Wanted::default()
    }
}
