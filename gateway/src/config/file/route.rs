//! `[routes.NAME]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Hedge, Placed, Predicates, PriorityBy, Retry};
use crate::config::units::{Duration, Size};
use crate::overload::Class;

/// `[routes.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which requests take this route.
    #[serde(rename = "match")]
    pub predicates: Predicates,
    /// Names from `auth`, `limits` and `concurrency` a request must pass; they run in a fixed order.
    #[serde(default, rename = "use")]
    pub filters: Vec<Placed<String>>,
    /// The service requests go to.
    pub service: Placed<String>,
    /// From the complete request, body included, to the head of the answer; over it: 504.
    #[serde(default = "defaults::route_timeout")]
    pub timeout: Placed<Duration>,
    /// How a request that failed is tried again, where that is safe.
    #[serde(default)]
    pub retry: Retry,
    /// Asks a second instance when the first is slow: GET, HEAD and the like without a body. The
    /// first good answer is taken. Left out: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Bytes of a request body; left out: as in `server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes_max: Option<Placed<Size>>,
    /// What is refused first when not all can be served: `sheddable`, `default`, `critical`.
    #[serde(default)]
    pub priority: Class,
    /// Where a request may say another priority; left out: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_by: Option<PriorityBy>,
    /// Requests of this route in flight at a time; over it: 503. Left out: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_max: Option<Placed<u32>>,
}

/// Defaults that serde wants as functions.
mod defaults {
    use super::{Duration, Placed};

    pub(super) fn route_timeout() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(30))
    }
}
