//! What this machine lets us do, and what to say when it does not.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::output::say;

/// When this variable is set, a missing privilege is a failure instead of a reason to skip.
pub const REQUIRE_VARIABLE: &str = "WEIR_REQUIRE_PRIVILEGED";

/// What making namespaces and mounting a bpffs take (linux/capability.h).
const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// What keeps a routed test bed from working here, in one sentence that says what to do.
#[must_use]
pub fn missing_for_namespaces() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(capability) = missing_capability(&status) {
        return Some(format!(
            "network namespaces need root with {capability}: run it with sudo"
        ));
    }
    ["ip", "ethtool"]
        .into_iter()
        .find(|tool| !in_path(tool))
        .map(|tool| {
            format!("`{tool}` is not installed: `apt-get install iproute2 ethtool` as root")
        })
}

/// The first capability that the effective set in a process status lacks; root in a container may
/// lack them too.
fn missing_capability(status: &str) -> Option<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let lacking = |bit: u32| effective & (1 << bit) == 0;
    CAPABILITIES
        .into_iter()
        .find(|(_, bit)| lacking(*bit))
        .map(|(name, _)| name)
}

/// Whether `suite` can run here. If not, says so in one line, or panics when privileges are
/// required.
///
/// # Panics
///
/// When something is missing and [`REQUIRE_VARIABLE`] is set.
#[must_use]
pub fn granted(suite: &str, missing: Option<String>) -> bool {
    let Some(reason) = missing else { return true };
    assert!(
        std::env::var_os(REQUIRE_VARIABLE).is_none(),
        "{suite} cannot run here, and {REQUIRE_VARIABLE} is set: {reason}"
    );
    say_once(format!("SKIP {suite}: {reason}"));
    false
}

/// Lets this process, and those it starts from now on, open `number` files and sockets.
///
/// # Errors
///
/// When the hard limit is lower and we may not raise it.
pub fn allow_descriptors(number: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= number {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, number, hard.max(number))
        .with_context(|| format!("{number} open files are needed, `ulimit -Hn` says {hard}"))
}

/// A suite has many tests, but one line is enough for all of them.
fn say_once(line: String) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.contains(&line) {
        say(&line);
        said.insert(line);
    }
}

fn in_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_allowed_up_to_the_hard_limit() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        allow_descriptors(soft).unwrap();
        allow_descriptors(hard).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let cases = [
            ("root", "CapPrm:\t0\nCapEff:\t000001ffffffffff\n", None),
            (
                "user",
                "CapPrm:\t000001ffffffffff\nCapEff:\t0\n",
                Some("CAP_NET_ADMIN"),
            ),
            (
                "container",
                "CapEff:\t00000000a80435fb\n",
                Some("CAP_SYS_ADMIN"),
            ),
            ("no status", "", Some("CAP_NET_ADMIN")),
        ];
        for (description, status, expected) in cases {
            assert_eq!(missing_capability(status), expected, "{description}");
        }
    }
}
