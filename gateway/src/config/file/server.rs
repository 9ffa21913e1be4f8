//! `[server]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;
use crate::config::units::{ByteRate, Duration, Size};

/// `[server]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Worker threads; left out: one per core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<Placed<usize>>,
    /// How long a worker stays awake after it has read something, asking the kernel for more all
    /// the while: less latency for more processor time. At most 10 ms; `"0s"`: it sleeps at once.
    pub busy_poll: Placed<Duration>,
    /// Reload when the configuration, or a file it refers to, changes.
    pub watch: Placed<bool>,
    /// The zone the gateway runs in; instances of the same zone are preferred. Left out: zones do
    /// not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Placed<String>>,
    /// Client connections at a time, over all listeners.
    pub connections_max: Placed<usize>,
    /// Client connections of one address at a time, of one /64 network with IPv6; left out: no
    /// limit. Trusted proxies are not counted: many clients come through each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_source_max: Option<Placed<u64>>,
    /// Requests on one client connection, after which it is closed in good order; left out: no
    /// limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_connection_max: Option<Placed<u64>>,
    /// Bytes of a header section; over it: 431.
    pub header_bytes_max: Placed<Size>,
    /// Fields of a header section; over it: 431.
    pub headers_max: Placed<usize>,
    /// Bytes of a request target; over it: 414.
    pub uri_bytes_max: Placed<Size>,
    /// Bytes of a request body, unless the route says otherwise; over it: 413. Bodies are
    /// streamed, so this guards the services, not the gateway's memory.
    pub body_bytes_max: Placed<Size>,
    /// Bytes of the trailer section of a body, either way; over it: 431.
    pub trailer_bytes_max: Placed<Size>,
    /// Fields of a trailer section, either way; over it: 431.
    pub trailers_max: Placed<usize>,
    /// HTTP/2 streams at a time on one connection.
    pub streams_max: Placed<u32>,
    /// Until a TLS handshake is done.
    pub handshake_timeout: Placed<Duration>,
    /// Until a request head is complete.
    pub header_timeout: Placed<Duration>,
    /// Between two pieces of a body, either way.
    pub body_idle_timeout: Placed<Duration>,
    /// What a client must send of a body, or take of a response, while we wait for it; slower
    /// uploads: 408, slower readers are cut. `"0B/s"`: no demand.
    pub body_rate_min: Placed<ByteRate>,
    /// The time over which that rate is looked at; nothing is demanded before it has passed once.
    pub body_rate_window: Placed<Duration>,
    /// A connection without a request is closed after this.
    pub idle_timeout: Placed<Duration>,
    /// An upgraded connection (WebSocket) on which nothing moves is closed after this.
    pub upgrade_idle_timeout: Placed<Duration>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            workers: None,
            busy_poll: Placed::absent(Duration::from_secs(0)),
            watch: Placed::absent(false),
            zone: None,
            connections_max: Placed::absent(20_000),
            connections_per_source_max: None,
            requests_per_connection_max: None,
            header_bytes_max: Placed::absent(Size(32 << 10)),
            headers_max: Placed::absent(100),
            uri_bytes_max: Placed::absent(Size(8 << 10)),
            body_bytes_max: Placed::absent(Size(1 << 30)),
            trailer_bytes_max: Placed::absent(Size(8 << 10)),
            trailers_max: Placed::absent(32),
            streams_max: Placed::absent(128),
            handshake_timeout: Placed::absent(Duration::from_secs(10)),
            header_timeout: Placed::absent(Duration::from_secs(10)),
            body_idle_timeout: Placed::absent(Duration::from_secs(30)),
            body_rate_min: Placed::absent(ByteRate(Size(240))),
            body_rate_window: Placed::absent(Duration::from_secs(30)),
            idle_timeout: Placed::absent(Duration::from_secs(75)),
            upgrade_idle_timeout: Placed::absent(Duration::from_secs(300)),
        }
    }
}
