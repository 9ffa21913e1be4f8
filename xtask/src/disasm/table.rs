//! The figures as text for people.
use super::Figures;
use super::cases::{Row, TRACKING};

/// The lines of all tables.
pub(super) fn lines(figures: &Figures) -> Vec<String> {
    let mut lines = sizes(figures);
    lines.push(String::new());
    lines.push("Executed for a packet: instructions (of which calls of helpers)".to_owned());
    lines.push(String::new());
    lines.extend(executed(&figures.rows));
    lines
}

/// One line for each row, with the helpers by name.
pub(super) fn flat(rows: &[Row]) -> Vec<String> {
    let mut cells = vec![
        ["row", "instructions", "helper calls"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for row in rows {
        let helpers: Vec<String> = row
            .helpers
            .iter()
            .map(|(name, calls)| format!("{name} {calls}"))
            .collect();
        cells.push(vec![
            row.name(),
            row.instructions.to_string(),
            helpers.join(", "),
        ]);
    }
    aligned(&cells)
}

fn sizes(figures: &Figures) -> Vec<String> {
    let header = ["program", "object", "instructions", "bytes", "functions"];
    let mut cells = vec![header.map(str::to_owned).to_vec()];
    for size in &figures.sizes {
        let mut functions: Vec<_> = size.functions.iter().collect();
        functions.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let functions: Vec<String> = functions
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        cells.push(vec![
            size.program.clone(),
            size.object.to_owned(),
            size.total.to_string(),
            size.bytes.to_string(),
            functions.join(", "),
        ]);
    }
    aligned(&cells)
}

/// What is forwarded, a column for each kind of tracking; then the rest.
fn executed(rows: &[Row]) -> Vec<String> {
    let cell = |row: &Row| format!("{} ({})", row.instructions, row.helper_calls());
    let is_tracked = |row: &&Row| !row.tracking.is_empty();
    let mut header = vec![String::new()];
    header.extend(TRACKING.iter().map(|tracking| tracking.name.to_owned()));
    let mut tracked = vec![header];
    for rows in rows
        .iter()
        .filter(is_tracked)
        .collect::<Vec<_>>()
        .chunk_by(is_same)
    {
        let first = rows.first().copied();
        let mut line = vec![first.map(packet).unwrap_or_default()];
        line.extend(rows.iter().map(|row| cell(row)));
        tracked.push(line);
    }
    let rest = rows.iter().filter(|row| !is_tracked(row));
    let rest: Vec<_> = rest.map(|row| vec![packet(row), cell(row)]).collect();
    let mut lines = aligned(&tracked);
    lines.push(String::new());
    lines.extend(aligned(&rest));
    lines
}

fn is_same(one: &&Row, other: &&Row) -> bool {
    packet(one) == packet(other)
}

/// A row's name without what is remembered.
fn packet(row: &Row) -> String {
    let name = row.name();
    name.trim_end_matches(row.tracking).trim_end().to_owned()
}

/// Columns as wide as they need to be; numbers to the right.
fn aligned(cells: &[Vec<String>]) -> Vec<String> {
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = cells.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let is_number = |cell: &String| cell.starts_with(|first: char| first.is_ascii_digit());
    let line = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| {
            if is_number(cell) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        let text = cells.collect::<Vec<_>>().join("  ");
        text.trim_end().to_owned()
    };
    cells.iter().map(line).collect()
}
