//! What services and routes do about instances that fail, as meant.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::ServiceTls;

/// Active health checks of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// What a check does.
    pub check: Check,
    /// The port that is checked; `None`: the endpoint's.
    pub port: Option<u16>,
    /// TLS of the check; `None`: it goes in the clear.
    pub tls: Option<Arc<ServiceTls>>,
    /// From one check to the next.
    pub every: Duration,
    /// The same while the instance is unhealthy.
    pub every_unhealthy: Duration,
    /// How far a wait may differ, in percent of it, 0 to 50.
    pub jitter_percent: u32,
    /// Until a check counts as failed.
    pub timeout: Duration,
    /// Good checks in a row until an instance is used again, at least 1.
    pub rise: u32,
    /// Failed checks in a row until an instance is left out, at least 1.
    pub fall: u32,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Connects.
    Tcp,
    /// `GET path` over the service's protocol.
    Http {
        /// Path with query.
        path: String,
        /// `Host` or `:authority`; `None`: the address.
        host: Option<String>,
        /// The statuses of a healthy instance.
        statuses: Vec<RangeInclusive<u16>>,
        /// What must be in the answer's body.
        body: Option<String>,
    },
    /// `grpc.health.v1.Health/Check` over HTTP/2.
    Grpc {
        /// The service asked about; empty: the server as a whole.
        service: String,
        /// `:authority`; `None`: the address.
        host: Option<String>,
    },
}

/// When instances are ejected for what their answers are.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierConfig {
    /// Failures in a row, at least 1.
    pub consecutive_failures: u32,
    /// 5xx and failures in a row, at least 1; `None`: not looked at.
    pub consecutive_5xx: Option<u32>,
    /// Failed requests of a hundred within an interval, 1 to 100.
    pub failure_percent: Option<u32>,
    /// Standard deviations below the mean rate of success.
    pub success_deviations: Option<f64>,
    /// Requests of an interval from which on rates are looked at.
    pub requests_min: u32,
    /// Instances with that many requests from which on a deviation is looked at.
    pub instances_min: u32,
    /// The interval over which rates are taken.
    pub every: Duration,
    /// The first ejection; the nth is n times as long.
    pub ejection: Duration,
    /// The longest ejection.
    pub ejection_max: Duration,
    /// Instances of a hundred that may be ejected at a time, 1 to 100.
    pub ejected_percent_max: u32,
}

/// When a service as a whole is given up for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failed requests of a hundred, 1 to 100.
    pub failure_percent: u32,
    /// Requests within `window` from which on the share counts.
    pub requests_min: u32,
    /// The time over which the share is taken.
    pub window: Duration,
    /// How long everything is refused.
    pub open: Duration,
    /// Requests let through after that, which must all be answered well.
    pub probes: u32,
}

/// How much retries and hedges may add to the load of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryBudgetConfig {
    /// Retries for each hundred requests.
    pub percent: u32,
    /// Retries a second in any case.
    pub min_per_second: u32,
    /// Retries under way at a time.
    pub in_flight_max: u32,
}

/// How a request that failed is tried again. The default is not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryConfig {
    /// Attempts after the first.
    pub attempts: u32,
    /// After a failed connection.
    pub on_connect: bool,
    /// After a connection that ended before the answer.
    pub on_reset: bool,
    /// After an attempt that took too long.
    pub on_timeout: bool,
    /// After an answer with one of these statuses, in ascending order.
    pub on_statuses: Vec<u16>,
    /// For the head of the answer of one attempt.
    pub per_try_timeout: Option<Duration>,
    /// The longest wait before the second attempt; doubled for each further one.
    pub backoff: Duration,
    /// The longest wait of all.
    pub backoff_max: Duration,
    /// Bytes of a request body that are kept for another attempt.
    pub body_bytes_max: u64,
    /// Whether methods that are not idempotent are repeated too.
    pub non_idempotent: bool,
}

/// How slow requests are asked of a second instance.
#[derive(Clone, Debug, PartialEq)]
pub struct HedgeConfig {
    /// When.
    pub after: HedgeAfter,
    /// Further instances at most, at least 1.
    pub attempts: u32,
}

/// When the next instance is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeAfter {
    /// After this time.
    Time(Duration),
    /// When slower than this many of a hundred answers.
    Percentile(f64),
}
