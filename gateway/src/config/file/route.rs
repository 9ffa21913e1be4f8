//! `[routes.NAME]` as typed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Cors, HeaderChanges, Hedge, Mirror, Named, Placed, Predicates, PriorityBy, Redirect, Respond,
    Retry, Rewrite, SplitMember,
};
use crate::config::units::{ByteRate, Duration, Size};
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
    /// The service requests go to. In its place: `split`, `redirect` or `respond`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Placed<String>>,
    /// Several services by weight: `{ stable = 95, canary = 5 }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub split: Named<Placed<SplitMember>>,
    /// Keeps a sender with one service of the split: `client-ip`, `header.NAME`, `jwt.CLAIM` and
    /// so on; left out: each request is drawn anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_by: Option<Placed<String>>,
    /// Sends the client elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// The gateway answers itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
    /// Another host or path for the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Placed<Rewrite>>,
    /// Changes of the request's header fields.
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// Changes of every answer's header fields, refusals included.
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
    /// Services that get copies of requests; their answers are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirror: Vec<Mirror>,
    /// Which other web sites' pages may call the route; left out: the instance says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
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
    /// What a client must send of a body, or take of a response, while we wait for it, over the
    /// `body_rate_window` of `server`; `"0B/s"`: no demand. Left out: as in `server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_rate_min: Option<Placed<ByteRate>>,
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
