//! Prints rows as a table and writes them as JSON.

use std::{io::Write, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

/// Prints a line of a table.
pub(crate) fn say(line: &str) {
    // Nobody reads a closed pipe: then the figures are in the file, or unwanted.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a table in Markdown, its columns aligned; nothing when it has no rows.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&header]);
        cells
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}", cells.collect::<String>())
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    say("");
    say(&line(&header));
    say(&line(&rule));
    rows.iter().for_each(|row| say(&line(row)));
}

/// Says why there is no table, or how far things are.
pub(crate) fn complain(line: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes `rows` to `path`, when there is one.
pub(crate) fn write_json(path: Option<&Path>, rows: &Value) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(rows).context("turning the rows into JSON")?;
    std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}
