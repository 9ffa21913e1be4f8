//! Tables published under load, and what packets that look at whole tables see of it.

use anyhow::Result;
use serde::Serialize;
use tests::mixed::{self, Writer};

use crate::report::{complain, table};

/// Slots of each ring.
const RING_SIZE: u32 = 65_537;
/// Tables published as the agent does it.
const PUBLISHES: u32 = 10_000;
/// Tables written over the one in use: so few suffice to see what comes of it.
const OVERWRITES: u32 = 1000;

/// One line of the result.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    slots: u32,
    publishes: u32,
    /// Packets, each of which looked at one table.
    packets: u64,
    /// Those that saw parts of two tables.
    mixed: u64,
    /// Those that saw none.
    absent: u64,
    seconds: f64,
}

/// Runs the cases whose name contains `only`, and prints the table.
pub(crate) fn run(only: &str) -> Result<Vec<Row>> {
    let cases = [
        ("publish under load", Writer::Agent, PUBLISHES),
        ("control: overwritten in use", Writer::InPlace, OVERWRITES),
    ];
    let mut rows = Vec::new();
    for (case, writer, publishes) in cases {
        if !case.contains(only) {
            continue;
        }
        complain(&format!("{case}: {publishes} tables of {RING_SIZE} slots"));
        let seen = mixed::publish(writer, publishes, RING_SIZE)?;
        rows.push(Row {
            case,
            slots: RING_SIZE,
            publishes,
            packets: seen.packets,
            mixed: seen.mixed,
            absent: seen.absent,
            seconds: seen.took.as_secs_f64(),
        });
    }
    print(&rows);
    Ok(rows)
}

fn print(rows: &[Row]) {
    let cells = |row: &Row| {
        let case = format!("{}, {} slots", row.case, row.slots);
        let counts = [u64::from(row.publishes), row.packets, row.mixed, row.absent];
        let seconds = format!("{:.0}", row.seconds);
        let counts = counts.map(|count| count.to_string());
        [case].into_iter().chain(counts).chain([seconds]).collect()
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let header = ["tables", "published", "packets", "mixed", "none", "seconds"];
    table(&header, &rows);
}
