//! `cargo xtask`: build, test, demo and benchmark tasks.
fn main() {}
