//! The gateway's own log, for people who operate it: on stderr, apart from the access log.
//!
//! `RUST_LOG` chooses what is said (`info` without it), and can be overruled while the process
//! runs. `WEIR_LOG_FORMAT=json` writes an object for each event instead of a line for people.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::admin::types::{Level, Problem, Reason};

/// The environment variable that chooses the form.
const FORMAT: &str = "WEIR_LOG_FORMAT";
/// Bytes of a filter at most.
const FILTER_BYTES_MAX: usize = 1024;

/// What is said, for those who change it.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging to stderr.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let json = std::env::var(FORMAT).is_ok_and(|format| format == "json");
    let form = if json {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .with_target(false)
            .boxed()
    } else {
        fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed()
    };
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(form)
        .try_init();
    // An error: somebody else logs already, in a process the gateway is only part of.
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Says from now on what `filter` lets through: a level, or `gateway=debug,hyper=warn`.
pub(crate) fn set_level(filter: &str) -> Result<Level, Problem> {
    let bad = |detail: String| Problem::new(Reason::BadRequest, detail);
    if filter.is_empty() || filter.len() > FILTER_BYTES_MAX {
        let hint = "name a level: error, warn, info, debug or trace";
        return Err(bad(hint.to_owned()));
    }
    let read = EnvFilter::builder().parse(filter);
    let new = read.map_err(|error| bad(format!("`{filter}` is no filter: {error}")))?;
    let level = new.to_string();
    let handle = FILTER.get();
    let handle = handle.ok_or_else(|| bad("this process does not log".to_owned()))?;
    handle.reload(new).map_err(|error| bad(error.to_string()))?;
    tracing::warn!(level, "the error log says this from now on");
    Ok(Level { level })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_refused() {
        let long = "a".repeat(FILTER_BYTES_MAX + 1);
        for (filter, reason) in [
            ("", "name a level"),
            (long.as_str(), "name a level"),
            ("gateway=loud", "`gateway=loud` is no filter"),
        ] {
            let problem = set_level(filter).unwrap_err();
            assert_eq!(problem.reason, Reason::BadRequest);
            assert!(problem.detail.starts_with(reason), "{}", problem.detail);
        }
    }
}
