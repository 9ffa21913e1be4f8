//! Network tests: whole hosts as namespaces, the real programs as processes. They need root.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, helpers included"
)]

mod bed;
mod chain;
mod demo;
mod every_port;
mod explain;
mod flood;
mod flow;
mod forward;
mod health;
mod restart;
mod stage;
mod survival;
mod tracking;

use tests::{object, privilege};

/// Whether a test without a balancer can run here; otherwise it has said why not.
fn granted() -> bool {
    privilege::granted("netns", privilege::missing_for_namespaces())
}

/// Whether a test with a balancer can run here; otherwise it has said why not.
fn balancer_granted() -> bool {
    privilege::granted(
        "netns",
        privilege::missing_for_namespaces().or_else(object::missing),
    )
}
