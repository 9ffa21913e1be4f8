//! Network tests: whole hosts as namespaces, the real programs as processes. They need root.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, helpers included"
)]

mod bed;

use tests::privilege;

/// Whether the suite can run here; otherwise it has said why not.
fn granted(suite: &str) -> bool {
    privilege::granted(suite, privilege::missing_for_namespaces())
}
