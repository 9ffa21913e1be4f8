//! Prints rows as a table and writes them as JSON.

use std::{io::Write, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

/// Prints a line of a table.
pub(crate) fn say(line: &str) {
    // Nobody reads a closed pipe: then the figures are in the file, or unwanted.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Says why there is no table.
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
