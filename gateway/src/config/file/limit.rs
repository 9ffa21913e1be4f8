//! `[limits.NAME]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;
use crate::config::units::Rate;

/// `[limits.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Requests per period in the long run, such as `100/s`.
    pub rate: Placed<Rate>,
    /// Requests at once after a pause; left out: the count of `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Placed<u32>>,
    /// What is counted by: `client-ip`, `jwt.CLAIM`, `api-key`, `header.NAME` or `route`.
    pub key: Placed<String>,
    /// Senders remembered at a time.
    #[serde(default = "defaults::limit_keys_max")]
    pub keys_max: Placed<usize>,
    /// What happens to a new sender when `keys_max` are remembered.
    #[serde(default = "defaults::when_full")]
    pub when_full: WhenFull,
}

impl Limit {
    /// Requests at once after a pause.
    pub fn burst(&self) -> Placed<u32> {
        self.burst
            .clone()
            .unwrap_or_else(|| Placed::absent(self.rate.count.get()))
    }
}

/// What happens to a sender the limiter cannot remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Fails open: the request passes without being counted.
    Allow,
    /// Fails closed: 503.
    Refuse,
}

/// Defaults that serde wants as functions.
mod defaults {
    use super::{Placed, WhenFull};

    pub(super) fn limit_keys_max() -> Placed<usize> {
        Placed::absent(100_000)
    }

    pub(super) fn when_full() -> WhenFull {
        WhenFull::Refuse
    }
}
