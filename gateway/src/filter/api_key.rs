//! API keys.

/// API keys.
#[derive(Debug)]
pub struct ApiKeys {}
