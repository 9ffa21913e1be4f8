//! The one place of the test bed that prints.

use std::io::Write;

/// Prints one line on standard output. A closed pipe is no reason to fail: the exit code still
/// tells the result.
///
/// It writes to the handle, past the capture of the test harness, so that a skipped suite is seen.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints one line on standard error.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
