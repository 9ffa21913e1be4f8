//! How much of a table moves that need not: each change at many places of many fleets.
//!
//! A slot *moves* when its owner before and after a change differ. It moves *extra* when neither of the
//! two is a backend that the change is about.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lb_userspace::table::{Member, Table};
use serde::Serialize;

use super::{member, members};
use crate::report::say;

/// Slots of a ring, and fleets: sets of addresses that each change is tried on. Much depends on who happens
/// to be there; on large rings, which take longer to build, less.
const RINGS: [(u32, u8); 2] = [(65_537, 5), (655_373, 1)];
/// Backends of a fleet that each change is tried on.
const PLACES: usize = 10;

/// What happens to a fleet.
#[derive(Clone, Copy)]
enum Change {
    Remove1,
    Remove1Percent,
    Add1,
    Double1,
}

impl Change {
    const ALL: [Self; 4] = [
        Self::Remove1,
        Self::Remove1Percent,
        Self::Add1,
        Self::Double1,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Remove1 => "remove 1",
            Self::Remove1Percent => "remove 1 %",
            Self::Add1 => "add 1",
            Self::Double1 => "double the weight of 1",
        }
    }

    /// Fleet number `fleet` after the change at `place`, and the backends that it is about.
    fn make(self, fleet: u8, before: &[Member], place: usize) -> (Vec<Member>, HashSet<IpAddr>) {
        let mut after = before.to_vec();
        let about = match self {
            Self::Remove1 => vec![after.remove(place)],
            Self::Remove1Percent => {
                // One rack: neighbours by address.
                let gone = (before.len() / 100).max(1);
                let first = place.min(before.len() - gone);
                after.drain(first..first + gone).collect()
            }
            Self::Add1 => {
                // No fleet has an address that ends so.
                let more = member(usize::from(u16::MAX) - place, fleet);
                after.push(more);
                vec![more]
            }
            Self::Double1 => {
                after[place].weight *= 2;
                vec![after[place]]
            }
        };
        (after, about.iter().map(|member| member.address).collect())
    }
}

/// One line of the comparison.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    table: &'static str,
    slots: u32,
    backends: usize,
    /// Mean over all fleets and places, of all slots.
    extra_moves_percent: f64,
    /// At the worst place of the worst fleet.
    extra_moves_percent_most: f64,
    /// Slots of the backend that has most, in its share. The largest of all fleets.
    max_over_mean: f64,
    /// The same of the backend that has least. The smallest of all fleets.
    min_over_mean: f64,
    /// Median.
    build_ms: f64,
}

/// Compares the tables, for each number of backends and each change.
pub(super) fn run(backends: &[usize]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (slots, fleets) in RINGS {
        for table in Table::ALL {
            for &backends in backends {
                for change in Change::ALL {
                    rows.push(measure(table, slots, fleets, backends, change)?);
                }
            }
        }
    }
    Ok(rows)
}

/// Prints the rows.
pub(super) fn show(rows: &[Row]) {
    say(
        "case                    table          slots  backends  extra %  most %  max/mean  min/mean  build ms",
    );
    for row in rows {
        say(&format!(
            "{:<23} {:<11} {:>8} {:>9} {:>8.3} {:>7.3} {:>9.3} {:>9.3} {:>9.2}",
            row.case,
            row.table,
            row.slots,
            row.backends,
            row.extra_moves_percent,
            row.extra_moves_percent_most,
            row.max_over_mean,
            row.min_over_mean,
            row.build_ms
        ));
    }
}

fn measure(table: Table, slots: u32, fleets: u8, backends: usize, change: Change) -> Result<Row> {
    let mut times = Vec::new();
    let mut build = |members: &[Member]| -> Result<Vec<IpAddr>> {
        let start = Instant::now();
        let ring = table.build(members, slots)?;
        times.push(start.elapsed());
        let address = |&owner: &u16| members[usize::from(owner)].address;
        Ok(ring.iter().map(address).collect())
    };
    let (mut moved, mut max_over_mean, mut min_over_mean) = (Vec::new(), 0_f64, f64::MAX);
    for fleet in 0..fleets {
        let members = members(backends, fleet);
        let before = build(&members)?;
        let (least, most) = extremes(&members, &before);
        max_over_mean = max_over_mean.max(most);
        min_over_mean = min_over_mean.min(least);
        for place in (0..PLACES).map(|i| i * backends / PLACES) {
            let (after, about) = change.make(fleet, &members, place);
            moved.push(extra_moves_percent(&before, &build(&after)?, &about));
        }
    }
    Ok(Row {
        case: change.name(),
        table: table.name(),
        slots,
        backends,
        extra_moves_percent: moved.iter().sum::<f64>() / moved.len() as f64,
        extra_moves_percent_most: moved.into_iter().fold(0.0, f64::max),
        max_over_mean,
        min_over_mean,
        build_ms: median(times).context("nothing was built")?.as_secs_f64() * 1e3,
    })
}

/// Slots of the backend that has least and of the one that has most, over the mean. The fleet is of equal
/// weights.
fn extremes(fleet: &[Member], owners: &[IpAddr]) -> (f64, f64) {
    let mut slots: HashMap<IpAddr, u32> = fleet.iter().map(|member| (member.address, 0)).collect();
    for owner in owners {
        *slots.entry(*owner).or_default() += 1;
    }
    let mean = owners.len() as f64 / fleet.len() as f64;
    let ratios = slots.values().map(|&slots| f64::from(slots) / mean);
    ratios.fold((f64::MAX, 0.0), |(least, most), ratio| {
        (least.min(ratio), most.max(ratio))
    })
}

fn extra_moves_percent(before: &[IpAddr], after: &[IpAddr], about: &HashSet<IpAddr>) -> f64 {
    let moves = before.iter().zip(after).filter(|(old, new)| old != new);
    let extra = moves.filter(|(old, new)| !about.contains(old) && !about.contains(new));
    100.0 * extra.count() as f64 / before.len() as f64
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
