//! `[concurrency.NAME]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;

/// `[concurrency.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SenderConcurrency {
    /// Requests of one sender under way at a time; over it: 429.
    pub in_flight_max: Placed<u32>,
    /// What is counted by: `client-ip`, `jwt.CLAIM`, `api-key`, `header.NAME` or `route`.
    pub key: Placed<String>,
}
