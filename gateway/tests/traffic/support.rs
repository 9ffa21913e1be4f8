//! The test bed: a gateway process, origin servers, clients.

pub(crate) mod certs;
pub(crate) mod checked;
pub(crate) mod client;
pub(crate) mod gateway;
pub(crate) mod hostile;
pub(crate) mod names;
pub(crate) mod origin;
pub(crate) mod secure;

use std::time::Duration;

/// A wait longer than this is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// When this variable is set, what is missing on this host is a failure, not a reason to skip.
const REQUIRE_VARIABLE: &str = "WEIR_REQUIRE_PRIVILEGED";

/// Says in one line that `what` is not tested here, and why.
///
/// # Panics
///
/// When nothing may be skipped.
pub(crate) fn skip(what: &str, reason: &str) {
    assert!(
        std::env::var_os(REQUIRE_VARIABLE).is_none(),
        "{what} cannot run here, and {REQUIRE_VARIABLE} is set: {reason}"
    );
    // Past the test harness, which keeps what passing tests print to itself.
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIP {what}: {reason}");
}

/// Waits until `condition` gives a value; panics with `what` when that takes too long.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}
