//! The only printer: answers on stdout, talk on stderr.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::Failure;

/// Exit code for a refused configuration.
const REFUSED: u8 = 3;

/// Prints an answer for people.
pub(super) fn text(answer: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(answer.trim_end().as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    match written {
        // Whoever read our output has seen enough: `weir-gateway schema | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(|error| Failure::Other(error.into(), None)),
    }
}

/// Prints an answer for programs.
pub(super) fn json<T: Serialize>(answer: &T) -> Result<(), Failure> {
    let printed = serde_json::to_string_pretty(answer).map_err(anyhow::Error::from)?;
    text(&printed)
}

/// Says something that is not the answer.
pub(super) fn talk(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says why a subcommand failed. If even stderr is closed, the exit code has to do.
pub(super) fn failure(failure: &Failure) -> ExitCode {
    let mut stderr = io::stderr().lock();
    match failure {
        Failure::Refused(error) => {
            let _ = writeln!(stderr, "error: {error}");
            if !error.is_unreadable() {
                return ExitCode::from(REFUSED);
            }
        }
        Failure::RefusedByGateway(reason) => {
            let _ = writeln!(stderr, "error: not reloaded, nothing has changed: {reason}");
            return ExitCode::from(REFUSED);
        }
        Failure::Other(error, hint) => {
            let _ = writeln!(stderr, "error: {error:#}");
            if let Some(hint) = hint {
                let _ = writeln!(stderr, "\nhint: {hint}");
            }
        }
        Failure::Negative => {}
    }
    ExitCode::FAILURE
}
