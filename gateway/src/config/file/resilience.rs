//! What a service and a route do about instances that fail, as typed.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::super::error::HINT_MARK;
use super::Placed;
use super::status::RetryOn;
use crate::config::units::{Duration, Size};

/// `outlier = { … }` of a service: instances whose answers fail are left out for a while.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outlier {
    /// Failures in a row until an instance is ejected: no connection, no answer, or 502 to 504.
    pub consecutive_failures: Placed<u32>,
    /// The same, counting every 5xx; left out: not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_5xx: Option<Placed<u32>>,
    /// Ejects who failed this share, or more, of an interval's requests; left out: not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_percent: Option<Placed<u32>>,
    /// Ejects whose rate of success lies this many standard deviations below the mean of all
    /// instances; left out: not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_deviations: Option<Placed<f64>>,
    /// Requests of an interval from which on an instance's rates are looked at.
    pub requests_min: Placed<u32>,
    /// Instances with that many requests from which on a deviation means something.
    pub instances_min: Placed<u32>,
    /// The interval over which rates are taken.
    pub every: Placed<Duration>,
    /// How long an instance is left out the first time; each further time as much longer.
    pub ejection: Placed<Duration>,
    /// The longest ejection.
    pub ejection_max: Placed<Duration>,
    /// The share of instances ejected at a time; one may always be, and one always stays.
    pub ejected_percent_max: Placed<u32>,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_failures: Placed::absent(5),
            consecutive_5xx: None,
            failure_percent: None,
            success_deviations: None,
            requests_min: Placed::absent(100),
            instances_min: Placed::absent(5),
            every: Placed::absent(Duration::from_secs(10)),
            ejection: Placed::absent(Duration::from_secs(30)),
            ejection_max: Placed::absent(Duration::from_secs(300)),
            ejected_percent_max: Placed::absent(50),
        }
    }
}

/// `breaker = { … }` of a service: when too much of it fails, requests are refused at once.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// The share of failed requests from which on the breaker opens.
    pub failure_percent: Placed<u32>,
    /// Requests within `window` from which on the share means something.
    pub requests_min: Placed<u32>,
    /// The time over which the share is taken.
    pub window: Placed<Duration>,
    /// How long everything is refused, with 503 and `Retry-After`.
    pub open: Placed<Duration>,
    /// Requests let through after that; if all are answered well, the breaker closes.
    pub probes: Placed<u32>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failure_percent: Placed::absent(50),
            requests_min: Placed::absent(20),
            window: Placed::absent(Duration::from_secs(10)),
            open: Placed::absent(Duration::from_secs(5)),
            probes: Placed::absent(3),
        }
    }
}

/// `retry_budget = { … }` of a service: how much retries and hedges may add to its load.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Retries for each hundred requests, in the long run.
    pub percent: Placed<u32>,
    /// Retries a second that are allowed in any case.
    pub min_per_second: Placed<u32>,
    /// Retries under way at a time.
    pub in_flight_max: Placed<u32>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: Placed::absent(20),
            min_per_second: Placed::absent(10),
            in_flight_max: Placed::absent(1000),
        }
    }
}

/// `retry = { … }` of a route.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Further attempts after the first, on other instances as far as there are any.
    pub attempts: Placed<u32>,
    /// `connect`, `reset`, `timeout`, `5xx`, `gateway-error`, `retriable-status`, or statuses.
    pub on: Placed<Vec<RetryOn>>,
    /// From the complete request to the head of the answer, for one attempt; left out: only the
    /// route's `timeout` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Placed<Duration>>,
    /// The longest wait before the second attempt; doubled for each further one. The wait is
    /// random below that, and none at all after a failed connection to another instance.
    pub backoff: Placed<Duration>,
    /// What doubling ends at.
    pub backoff_max: Placed<Duration>,
    /// A request body up to this size is kept, so that it can be sent again. It must state its
    /// length, and is read whole before it is sent on.
    pub body_bytes_max: Placed<Size>,
    /// Repeats POST and PATCH too, even where they may have had their effect already.
    pub non_idempotent: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: Placed::absent(1),
            on: Placed::absent(vec![RetryOn::Connect, RetryOn::Reset, RetryOn::Timeout]),
            per_try_timeout: None,
            backoff: Placed::absent(Duration::from_millis(25)),
            backoff_max: Placed::absent(Duration::from_millis(250)),
            body_bytes_max: Placed::absent(Size(0)),
            non_idempotent: false,
        }
    }
}

/// `hedge = { … }` of a route: a second instance is asked when the first is slow.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// How slow: `"50ms"`, or `"p95"`: slower than 95 of 100 answers of late.
    pub after: Placed<HedgeAfter>,
    /// Further instances asked at most, each after the same wait.
    #[serde(default = "hedge_attempts")]
    pub attempts: Placed<u32>,
}

fn hedge_attempts() -> Placed<u32> {
    Placed::absent(1)
}

/// When the next instance is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeAfter {
    /// After this time.
    Time(Duration),
    /// When the answer takes longer than this many of a hundred, from 50 to below 100.
    Percentile(f64),
}

impl HedgeAfter {
    const HINT: &str =
        "write a duration such as \"50ms\", or a percentile from \"p50\" to \"p99.9\"";
}

impl FromStr for HedgeAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percentile = |text: &str| {
            let percentile = text.parse().ok()?;
            (50.0..=99.9).contains(&percentile).then_some(percentile)
        };
        match text.strip_prefix('p') {
            Some(digits) => percentile(digits).map(Self::Percentile),
            None => text.parse().ok().map(Self::Time),
        }
        .ok_or_else(|| format!("`{text}` is no time to wait{HINT_MARK}{}", Self::HINT))
    }
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.fmt(f),
            Self::Percentile(percentile) => write!(f, "p{percentile}"),
        }
    }
}

impl<'de> Deserialize<'de> for HedgeAfter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Serialize for HedgeAfter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for HedgeAfter {
    fn schema_name() -> Cow<'static, str> {
        "HedgeAfter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_hedge_is_a_time_or_a_percentile() {
        let table = [
            ("50ms", Some("50ms")),
            ("p95", Some("p95")),
            ("p50", Some("p50")),
            ("p99.9", Some("p99.9")),
            ("p49", None),
            ("p100", None),
            ("95", None),
            ("p", None),
        ];
        for (text, expected) in table {
            let after = text
                .parse::<HedgeAfter>()
                .ok()
                .map(|after| after.to_string());
            assert_eq!(after.as_deref(), expected, "{text}");
        }
    }
}
