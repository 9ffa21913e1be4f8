//! `weir-gateway`: the API gateway.
fn main() {}
