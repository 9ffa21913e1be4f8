//! Building and publishing Maglev tables.

use std::path::Path;

use anyhow::Result;

/// Runs all cases and prints the table.
pub(crate) fn run(_json: Option<&Path>) -> Result<()> {
    Ok(())
}
