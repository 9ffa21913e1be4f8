//! `[tracing]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;

/// `[tracing]`: the gateway's part in distributed traces (W3C Trace Context). It keeps no spans.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// What becomes of `traceparent` and `tracestate`.
    pub traceparent: Traceparent,
    /// Of the traces begun here, how many are marked as sampled, such as `"10%"`.
    pub sample: Placed<String>,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            traceparent: Traceparent::Join,
            sample: Placed::absent("100%".to_owned()),
        }
    }
}

/// What becomes of `traceparent` and `tracestate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Traceparent {
    /// They pass as they are, whoever sent them, and the access log knows of no trace.
    Off,
    /// A valid one of a trusted proxy is passed on, with a span of the gateway's own as the parent;
    /// others are taken out.
    Join,
    /// The same, and every request without one begins a trace.
    Begin,
}
