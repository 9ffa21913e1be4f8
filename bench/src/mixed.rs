//! Tables published under load, and what packets that look at whole tables see of it.

use anyhow::Result;
use serde::Serialize;
use tests::mixed::{self, Writer};

use crate::report::{complain, table};

/// How tables are written, how many of them, and their slots.
const CASES: [(&str, Writer, u32, u32); 3] = [
    ("publish under load", Writer::Agent, 10_000, 65_537),
    (
        "control: over the ring in use",
        Writer::InPlace,
        1000,
        65_537,
    ),
    // Small rings, which are written over while packets are still in flight.
    ("control: no grace period", Writer::Hasty, 100_000, 251),
];

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
    let mut rows = Vec::new();
    for (case, writer, publishes, slots) in CASES {
        if !case.contains(only) {
            continue;
        }
        complain(&format!("{case}: {publishes} tables of {slots} slots"));
        let seen = mixed::publish(writer, publishes, slots)?;
        rows.push(Row {
            case,
            slots,
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
