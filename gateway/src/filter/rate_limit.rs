//! Rate limits.

/// Rate limits.
#[derive(Debug)]
pub struct RateLimit {}
