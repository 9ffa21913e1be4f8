//! Bearer tokens.

/// Bearer tokens.
#[derive(Debug)]
pub struct Jwt {}
