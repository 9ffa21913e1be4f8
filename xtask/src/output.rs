//! The only printer: results to standard output, talk to standard error.
//!
//! A closed pipe at the other end (`cargo xtask ebpf | head -1`) is not an error.
use std::io::{IsTerminal, Write};

/// Columns assumed of a terminal that does not say how wide it is.
const COLUMNS_DEFAULT: usize = 80;

/// A line of the task's result.
pub(crate) fn result(line: &str) {
    let mut out = std::io::stdout().lock();
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A line for the person who waits.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// True if somebody watches: one line can then be rewritten in place.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Rewrites the current line, cut to the width of the terminal so that it stays one line.
pub(crate) fn rewrite(line: &str) {
    let shown: String = line
        .chars()
        .filter(|c| !c.is_control())
        .take(columns() - 1)
        .collect();
    eprint!("\r\x1b[K{shown}");
}

fn columns() -> usize {
    let told = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    told.filter(|&columns| columns >= 20)
        .unwrap_or(COLUMNS_DEFAULT)
}
