//! What this machine lets us do, and what to say when it does not.

use nix::unistd::geteuid;

/// When this variable is set, a missing privilege is a failure instead of a reason to skip.
pub const REQUIRE_VARIABLE: &str = "WEIR_REQUIRE_PRIVILEGED";

/// What keeps a routed test bed from working here, in one sentence that says what to do.
#[must_use]
pub fn missing_for_namespaces() -> Option<String> {
    if !geteuid().is_root() {
        return Some("network namespaces need root: run it with sudo".to_owned());
    }
    ["ip", "ethtool"]
        .into_iter()
        .find(|tool| !in_path(tool))
        .map(|tool| {
            format!("`{tool}` is not installed: `apt-get install iproute2 ethtool` as root")
        })
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
    crate::output::say(&format!("SKIP {suite}: {reason}"));
    false
}

fn in_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
