//! Prints rows as a table and writes them as JSON.

use std::{io::Write, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

/// Prints a line.
pub(crate) fn say(line: &str) {
    // Nobody reads a closed pipe: then the figures are in the file, or unwanted.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes `rows` as a JSON array to `path`, when there is one.
pub(crate) fn write_json<T: Serialize>(path: Option<&Path>, rows: &[T]) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(rows).context("turning the rows into JSON")?;
    std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}
