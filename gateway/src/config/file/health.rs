//! `health = { … }` of a service as typed: active checks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;
use super::status::StatusRange;
use crate::config::units::Duration;

/// `health = { … }` of a service; which keys belong depends on `type`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// `http`, `tcp` or `grpc`.
    #[serde(rename = "type", default = "defaults::kind")]
    pub kind: HealthKind,
    /// http: asked for with GET.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Placed<String>>,
    /// http, grpc: the `Host` of the check; left out: the name in the service's `tls`, or the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Placed<String>>,
    /// http: the statuses of a healthy instance, such as `[200, "300-399"]`; left out: 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statuses: Option<Placed<Vec<StatusRange>>>,
    /// http: a text that must be in the first 64 KiB of the answer; left out: the body is not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Placed<String>>,
    /// grpc: the service asked about; left out: the server as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Placed<String>>,
    /// The port that is checked; left out: the endpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Placed<u16>>,
    /// Whether the check goes over TLS; left out: as requests do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Placed<bool>>,
    /// From one check to the next.
    #[serde(default = "defaults::every")]
    pub every: Placed<Duration>,
    /// The same while the instance is unhealthy; left out: as `every`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_unhealthy: Option<Placed<Duration>>,
    /// How far a wait may be shorter or longer, so that checks spread, in percent of it.
    #[serde(default = "defaults::jitter_percent")]
    pub jitter_percent: Placed<u32>,
    /// Until a check counts as failed; at most `every`.
    #[serde(default = "defaults::timeout")]
    pub timeout: Placed<Duration>,
    /// Good checks in a row until an instance is used again.
    #[serde(default = "defaults::rise")]
    pub rise: Placed<u32>,
    /// Failed checks in a row until an instance is left out.
    #[serde(default = "defaults::fall")]
    pub fall: Placed<u32>,
}

impl Health {
    /// The statuses of a healthy instance.
    pub fn statuses(&self) -> Vec<StatusRange> {
        match &self.statuses {
            Some(statuses) => (**statuses).clone(),
            None => vec![StatusRange {
                first: 200,
                last: 399,
            }],
        }
    }

    /// From one check to the next while the instance is unhealthy.
    pub fn every_unhealthy(&self) -> Placed<Duration> {
        let every = || Placed::absent(*self.every);
        self.every_unhealthy.clone().unwrap_or_else(every)
    }

    /// Writes out the defaults that depend on other keys.
    pub(super) fn complete(&mut self) {
        if self.kind == HealthKind::Http {
            self.statuses = Some(Placed::absent(self.statuses()));
        }
        self.every_unhealthy = Some(self.every_unhealthy());
    }
}

/// What a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthKind {
    /// A GET for `path`, over the service's protocol.
    Http,
    /// A TCP connection that stands is enough, with TLS where the service has it.
    Tcp,
    /// `grpc.health.v1.Health/Check` over HTTP/2.
    Grpc,
}

/// Defaults that serde wants as functions.
mod defaults {
    use super::{Duration, HealthKind, Placed};

    pub(super) fn kind() -> HealthKind {
        HealthKind::Http
    }

    pub(super) fn every() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(2))
    }

    pub(super) fn jitter_percent() -> Placed<u32> {
        Placed::absent(10)
    }

    pub(super) fn timeout() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(1))
    }

    pub(super) fn rise() -> Placed<u32> {
        Placed::absent(2)
    }

    pub(super) fn fall() -> Placed<u32> {
        Placed::absent(3)
    }
}
