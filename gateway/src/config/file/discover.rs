//! `discover` of `[services.NAME]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;
use crate::config::units::Duration;

/// `discover = { … }` of a service: one of `dns`, `srv` and `file` says where its instances are
/// found. They are used beside those that are listed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discover {
    /// A name and a port: the instances are at its addresses (A and AAAA).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Placed<String>>,
    /// A service name such as `_http._tcp.orders.internal`: its SRV records give addresses, ports,
    /// priorities and weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srv: Option<Placed<String>>,
    /// A file with a list of endpoints: TOML with `endpoints = […]`, or a JSON array. It is read
    /// again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Placed<String>>,
    /// Name servers to ask, addresses with port; left out: those of the system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Placed<String>>,
    /// From one question to the next at least, however short answers are valid.
    #[serde(default = "defaults::refresh_min")]
    pub refresh_min: Placed<Duration>,
    /// From one question to the next at most, however long answers are valid.
    #[serde(default = "defaults::refresh_max")]
    pub refresh_max: Placed<Duration>,
    /// A name that has no addresses any more keeps its last ones for this long.
    #[serde(default = "defaults::hold")]
    pub hold: Placed<Duration>,
}

/// Defaults that serde wants as functions.
mod defaults {
    use super::{Duration, Placed};

    pub(super) fn refresh_min() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(1))
    }

    pub(super) fn refresh_max() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(300))
    }

    pub(super) fn hold() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(30))
    }
}
