//! `[services.NAME]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;
use crate::config::units::Duration;

/// `[services.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Addresses of equal instances, such as `10.0.1.11:8080`.
    pub endpoints: Placed<Vec<Placed<String>>>,
    /// How an instance is chosen.
    #[serde(default = "defaults::balance")]
    pub balance: Placed<Balance>,
    /// The key of `consistent-hash`: `client-ip`, `jwt.CLAIM`, `api-key` or `header.NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_by: Option<Placed<String>>,
    /// What is spoken to the instances.
    #[serde(default = "defaults::protocol")]
    pub protocol: Protocol,
    /// Until a new connection stands.
    #[serde(default = "defaults::connect_timeout")]
    pub connect_timeout: Placed<Duration>,
    /// An unused pooled connection is closed after this.
    #[serde(default = "defaults::pool_idle_timeout")]
    pub idle_timeout: Placed<Duration>,
    /// Connections to one instance at a time, per worker.
    #[serde(default = "defaults::upstream_connections_max")]
    pub connections_max: Placed<usize>,
    /// Active checks; left out: instances count as healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// How an instance is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// The one of two random instances with fewer requests in flight.
    LeastRequest,
    /// The same instance for the same `hash_by`.
    ConsistentHash,
}

/// The HTTP version spoken to instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge, without TLS.
    Http2,
}

/// `health = { … }` of a service.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Asked for with GET; 200 to 399 is healthy.
    pub path: Placed<String>,
    /// From one check to the next.
    #[serde(default = "defaults::health_every")]
    pub every: Placed<Duration>,
    /// Until a check counts as failed; at most `every`.
    #[serde(default = "defaults::health_timeout")]
    pub timeout: Placed<Duration>,
    /// Good checks in a row until an instance is used again.
    #[serde(default = "defaults::health_rise")]
    pub rise: Placed<u32>,
    /// Failed checks in a row until an instance is left out.
    #[serde(default = "defaults::health_fall")]
    pub fall: Placed<u32>,
}

/// Defaults that serde wants as functions.
mod defaults {
    use super::{Balance, Duration, Placed, Protocol};

    pub(super) fn balance() -> Placed<Balance> {
        Placed::absent(Balance::RoundRobin)
    }

    pub(super) fn protocol() -> Protocol {
        Protocol::Http1
    }

    pub(super) fn connect_timeout() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(1))
    }

    pub(super) fn pool_idle_timeout() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(60))
    }

    pub(super) fn upstream_connections_max() -> Placed<usize> {
        Placed::absent(1024)
    }

    pub(super) fn health_every() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(2))
    }

    pub(super) fn health_timeout() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(1))
    }

    pub(super) fn health_rise() -> Placed<u32> {
        Placed::absent(2)
    }

    pub(super) fn health_fall() -> Placed<u32> {
        Placed::absent(3)
    }
}
