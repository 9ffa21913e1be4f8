//! Kernel tests: the real objects under `BPF_PROG_TEST_RUN`, as tables of packets.
//!
//! They need root and the built objects. Elsewhere the suite says so in one line and passes;
//! under `cargo xtask test` the lack is a failure.

mod balancer;
mod decap;
mod host;
mod mixed;
mod moving;
mod tracked;

use tests::{object, privilege};

/// Whether kernel tests can run here.
fn granted() -> bool {
    privilege::granted("datapath", object::missing())
}
