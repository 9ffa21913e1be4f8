//! The instances of `[services.NAME]` and how one is chosen, as typed.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::either::Either;
use super::{Placed, Source};
use crate::config::units::Duration;

/// An instance: an address such as `10.0.1.11:8080`, or a table with more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port.
    pub address: String,
    /// Its share of the requests, beside the weights of the others.
    pub weight: u64,
    /// 0 is used first.
    pub priority: u64,
    /// Where it runs.
    pub zone: Option<String>,
}

/// The table form.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointTable {
    address: String,
    #[serde(default = "weight_usual")]
    weight: u64,
    #[serde(default)]
    priority: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
}

fn weight_usual() -> u64 {
    1
}

impl Either for Endpoint {
    type Table = EndpointTable;
    const FORMS: &'static str = "an address with port, or `{ address = \"…\", weight = 2 }`";

    fn from_table(table: EndpointTable) -> Self {
        Self {
            address: table.address,
            weight: table.weight,
            priority: table.priority,
            zone: table.zone,
        }
    }

    fn from_text<E: de::Error>(text: &str) -> Result<Self, E> {
        Ok(Self {
            address: text.to_owned(),
            weight: weight_usual(),
            priority: 0,
            zone: None,
        })
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if (self.weight, self.priority, &self.zone) == (weight_usual(), 0, &None) {
            return self.address.serialize(serializer);
        }
        let table = EndpointTable {
            address: self.address.clone(),
            weight: self.weight,
            priority: self.priority,
            zone: self.zone.clone(),
        };
        table.serialize(serializer)
    }
}

impl JsonSchema for Endpoint {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "address": { "type": "string" },
                        "weight": { "type": "integer", "minimum": 0, "maximum": 65535 },
                        "priority": { "type": "integer", "minimum": 0, "maximum": 65535 },
                        "zone": { "type": "string" }
                    },
                    "required": ["address"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

/// How an instance is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Each in turn, by weight.
    RoundRobin,
    /// The one of two random instances with fewer requests in flight for its weight.
    LeastRequest,
    /// The one of two random instances that is likely to answer first: by a moving average of its
    /// times to answer and what it has in flight.
    PeakEwma,
    /// Any, by weight.
    Random,
    /// The same instance for the same `hash_by`.
    ConsistentHash,
}

/// `failover = { … }` of a service.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Failover {
    /// How much of their usual load the instances of a priority, or of a zone within it, can bear:
    /// with 140, they still take everything when 72 % of them are usable.
    pub overprovisioning_percent: Placed<u32>,
    /// When fewer of all instances than this are usable, all are used; 0: never.
    pub panic_percent: Placed<u32>,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            overprovisioning_percent: Placed::absent(140),
            panic_percent: Placed::absent(0),
        }
    }
}

/// `sticky = { … }` of a service: the gateway sets a cookie that names the instance, opaquely, and
/// requests that carry it return there as long as the instance can be used.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sticky {
    /// The name of the cookie.
    pub cookie: Placed<String>,
    /// `Path` of the cookie.
    pub path: Placed<String>,
    /// `Domain` of the cookie; left out: only the host that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Placed<String>>,
    /// `Max-Age` of the cookie; left out: it ends with the browser's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Placed<Duration>>,
    /// `SameSite` of the cookie.
    pub same_site: SameSite,
    /// `Secure` of the cookie; left out: for clients that come by TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<Placed<bool>>,
    /// `HttpOnly` of the cookie: scripts cannot read it.
    pub http_only: bool,
    /// What instances are named by, at least 16 bytes, the same for all gateways of a fleet; left
    /// out: a random key that the process forgets when it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Placed<Source>>,
}

impl Default for Sticky {
    fn default() -> Self {
        Self {
            cookie: Placed::absent("weir-instance".to_owned()),
            path: Placed::absent("/".to_owned()),
            domain: None,
            max_age: None,
            same_site: SameSite::Lax,
            secure: None,
            http_only: true,
            key: None,
        }
    }
}

/// `SameSite` of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SameSite {
    /// Sent with requests from the same site only.
    Strict,
    /// And when a link leads there.
    Lax,
    /// Always; needs `secure`.
    None,
}
