//! Building Maglev rings, and publishing them into the real maps.

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
    control::{
        apply::{Store, apply},
        plan::{Plan, Wanted, WantedVip},
        published::Published,
    },
    dataplane::{Dataplane, KernelLog, Sizes},
    maglev::{self, Member},
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

/// One line of the result.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    slots: u32,
    backends: usize,
    least_us: u128,
    median_us: u128,
    most_us: u128,
}

/// Runs all cases and prints the table.
pub(crate) fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for backends in [10, 100, 400, 1000] {
        rows.push(build(backends)?);
    }
    match object::missing() {
        None => rows.extend(publish()?),
        Some(reason) => complain(&format!("no publish rows: {reason}")),
    }
    say("case                          slots  backends  least us  median us  most us");
    for row in &rows {
        say(&format!(
            "{:<26} {:>8} {:>9} {:>9} {:>10} {:>8}",
            row.case, row.slots, row.backends, row.least_us, row.median_us, row.most_us
        ));
    }
    Ok(rows)
}

fn members(count: usize, first: u8) -> Vec<Member> {
    let address = |index: usize| {
        let [high, low] = (index as u16).to_be_bytes();
        IpAddr::from(Ipv4Addr::new(10, first, high, low))
    };
    (0..count)
        .map(|index| Member {
            address: address(index),
            weight: 100,
        })
        .collect()
}

fn row(case: &'static str, backends: usize, mut times: Vec<Duration>) -> Row {
    times.sort_unstable();
    let at = |index: usize| times[index].as_micros();
    let (least_us, median_us, most_us) = (at(0), at(times.len() / 2), at(times.len() - 1));
    Row {
        case,
        slots: RING_SIZE,
        backends,
        least_us,
        median_us,
        most_us,
    }
}

fn build(backends: usize) -> Result<Row> {
    let members = members(backends, 0);
    let mut times = Vec::new();
    for _ in 0..BUILDS {
        let start = Instant::now();
        let ring = maglev::build(&members, RING_SIZE)?;
        times.push(start.elapsed());
        ensure!(
            ring.len() == RING_SIZE as usize,
            "the ring has {} slots",
            ring.len()
        );
    }
    Ok(row("build", backends, times))
}

/// Publishes one VIP again and again, the ring already built: each time another backend leaves.
fn publish() -> Result<Vec<Row>> {
    const BACKENDS: usize = 100;
    let directory = tempfile::tempdir().context("making a directory for a bpffs")?;
    let bpffs = Bpffs::new(directory.path())?;
    let sizes = Sizes {
        vips: 4,
        backends: 512,
        ring_slots: 4 * (RING_SIZE + 1),
        exceptions: 1024,
        flows: 16,
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
        row("publish", BACKENDS, plain),
        row("publish with grace period", BACKENDS, with_wait),
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
