//! `weir`: agent and command line.
fn main() {}
