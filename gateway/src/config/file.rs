//! The configuration as typed: the shape of the TOML file, with the place of every value.
//!
//! Only syntax, types and key names are checked here; what the values mean is checked in
//! `compile`. Defaults stand here, so the file written back is complete.

mod forms;
mod placed;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::forms::{Certificate, HeaderMatch, Source};
pub use self::placed::Placed;
use super::units::{Duration, Rate, Size};

/// Things by name.
pub type Named<T> = BTreeMap<Placed<String>, T>;

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Workers, and what clients may send and how long they may take.
    #[serde(default)]
    pub server: Server,
    /// Where clients connect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listeners: Named<Listener>,
    /// Liveness, readiness and metrics; left out: not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// One JSON object per request.
    #[serde(default)]
    pub access_log: AccessLog,
    /// How the gateway ends after SIGTERM.
    #[serde(default)]
    pub drain: Drain,
    /// Where requests go.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: Named<Service>,
    /// Who may send requests; used by routes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auth: Named<Auth>,
    /// How many requests may be sent; used by routes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: Named<Limit>,
    /// Which requests go to which service; the most specific route wins, not the first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: Named<Route>,
}

impl File {
    /// The same configuration with every default written out.
    #[must_use]
    pub fn complete(mut self) -> Self {
        self.auth.values_mut().for_each(Auth::complete);
        for limit in self.limits.values_mut() {
            limit.burst = Some(limit.burst());
        }
        self
    }
}

/// `[server]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Worker threads; left out: one per core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<Placed<usize>>,
    /// Client connections at a time, over all listeners.
    pub connections_max: Placed<usize>,
    /// Bytes of a header section; over it: 431.
    pub header_bytes_max: Placed<Size>,
    /// Fields of a header section; over it: 431.
    pub headers_max: Placed<usize>,
    /// Bytes of a request target; over it: 414.
    pub uri_bytes_max: Placed<Size>,
    /// Bytes of a request body, unless the route says otherwise; over it: 413. Bodies are
    /// streamed, so this guards the services, not the gateway's memory.
    pub body_bytes_max: Placed<Size>,
    /// HTTP/2 streams at a time on one connection.
    pub streams_max: Placed<u32>,
    /// Until a TLS handshake is done.
    pub handshake_timeout: Placed<Duration>,
    /// Until a request head is complete.
    pub header_timeout: Placed<Duration>,
    /// Between two pieces of a body, either way.
    pub body_idle_timeout: Placed<Duration>,
    /// A connection without a request is closed after this.
    pub idle_timeout: Placed<Duration>,
    /// An upgraded connection (WebSocket) on which nothing moves is closed after this.
    pub upgrade_idle_timeout: Placed<Duration>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            workers: None,
            connections_max: Placed::absent(20_000),
            header_bytes_max: Placed::absent(Size(32 << 10)),
            headers_max: Placed::absent(100),
            uri_bytes_max: Placed::absent(Size(8 << 10)),
            body_bytes_max: Placed::absent(Size(1 << 30)),
            streams_max: Placed::absent(128),
            handshake_timeout: Placed::absent(Duration::from_secs(10)),
            header_timeout: Placed::absent(Duration::from_secs(10)),
            body_idle_timeout: Placed::absent(Duration::from_secs(30)),
            idle_timeout: Placed::absent(Duration::from_secs(75)),
            upgrade_idle_timeout: Placed::absent(Duration::from_secs(300)),
        }
    }
}

/// `[listeners.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port, such as `0.0.0.0:443` or `[::]:443`.
    pub bind: Placed<String>,
    /// TLS; left out: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Networks whose `Forwarded` and `X-Forwarded-For` are believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<Placed<String>>,
}

/// `tls = { … }` of a listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Chosen by SNI; the first one serves clients that send none.
    pub certificates: Placed<Vec<Placed<Certificate>>>,
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port for `/livez`, `/readyz` and `/metrics`, in plain HTTP.
    pub bind: Placed<String>,
}

/// `[access_log]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// Where the log goes.
    pub to: LogTarget,
    /// The file to append to, for `to = "file"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Placed<String>>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            to: LogTarget::Stdout,
            path: None,
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// The file in `path`.
    File,
}

/// `[drain]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// From "not ready" until listeners close: time for the balancer to notice.
    pub delay: Placed<Duration>,
    /// From closing the listeners until what is still open is cut.
    pub deadline: Placed<Duration>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            delay: Placed::absent(Duration::from_secs(5)),
            deadline: Placed::absent(Duration::from_secs(30)),
        }
    }
}

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

/// `[auth.NAME]`; which keys belong depends on `type`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// `jwt` or `api-key`.
    #[serde(rename = "type")]
    pub kind: AuthKind,
    /// jwt: the only accepted `iss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Placed<String>>,
    /// jwt: one of these must be in `aud`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<Placed<Vec<String>>>,
    /// jwt: the key set (RFC 7517). `alg` of a key is binding; without it RSA means RS256,
    /// P-256 ES256, P-384 ES384, Ed25519 EdDSA, `oct` HS256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Placed<Source>>,
    /// jwt: keys for other algorithms are left out of the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Placed<Vec<Placed<String>>>>,
    /// jwt: all of these must be in `scope` (or `scp`); otherwise 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Placed<Vec<String>>>,
    /// jwt: how far clocks may differ; default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leeway: Option<Placed<Duration>>,
    /// jwt: bytes of a token; default 8KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_bytes_max: Option<Placed<Size>>,
    /// jwt: verified tokens remembered; default 10000, 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_cached_max: Option<Placed<usize>>,
    /// api-key: the header that carries the key; default `x-api-key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Placed<String>>,
    /// api-key: name = `sha256:…` for each key, as `weir-gateway hash-key` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Placed<Named<Placed<String>>>>,
}

impl Auth {
    /// How far clocks may differ.
    pub fn leeway(&self) -> Placed<Duration> {
        self.leeway
            .clone()
            .unwrap_or_else(|| Placed::absent(Duration::from_secs(30)))
    }

    /// Bytes of a token.
    pub fn token_bytes_max(&self) -> Placed<Size> {
        self.token_bytes_max
            .clone()
            .unwrap_or_else(|| Placed::absent(Size(8 << 10)))
    }

    /// Verified tokens remembered.
    pub fn tokens_cached_max(&self) -> Placed<usize> {
        self.tokens_cached_max
            .clone()
            .unwrap_or_else(|| Placed::absent(10_000))
    }

    /// The header that carries the API key.
    pub fn header(&self) -> Placed<String> {
        self.header
            .clone()
            .unwrap_or_else(|| Placed::absent("x-api-key".to_owned()))
    }

    /// Writes out the defaults that depend on the type.
    fn complete(&mut self) {
        match self.kind {
            AuthKind::Jwt => {
                self.leeway = Some(self.leeway());
                self.token_bytes_max = Some(self.token_bytes_max());
                self.tokens_cached_max = Some(self.tokens_cached_max());
            }
            AuthKind::ApiKey => self.header = Some(self.header()),
        }
    }
}

/// How senders prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuthKind {
    /// A signed token in `Authorization: Bearer` (RFC 7519, RFC 6750).
    Jwt,
    /// A secret in a header, of which the file holds only the hash.
    ApiKey,
}

/// `[limits.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Requests per period in the long run, such as `100/s`.
    pub rate: Placed<Rate>,
    /// Requests at once after a pause; left out: the count of `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Placed<u32>>,
    /// What is counted by: `client-ip`, `jwt.CLAIM`, `api-key`, `header.NAME` or `route`.
    pub key: Placed<String>,
    /// Senders remembered at a time.
    #[serde(default = "defaults::limit_keys_max")]
    pub keys_max: Placed<usize>,
    /// What happens to a new sender when `keys_max` are remembered.
    #[serde(default = "defaults::when_full")]
    pub when_full: WhenFull,
}

impl Limit {
    /// Requests at once after a pause.
    pub fn burst(&self) -> Placed<u32> {
        self.burst
            .clone()
            .unwrap_or_else(|| Placed::absent(self.rate.count.get()))
    }
}

/// What happens to a sender the limiter cannot remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Fails open: the request passes without being counted.
    Allow,
    /// Fails closed: 503.
    Refuse,
}

/// `[routes.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which requests take this route.
    #[serde(rename = "match")]
    pub predicates: Predicates,
    /// Names from `auth` and `limits` a request must pass; they run in a fixed order.
    #[serde(default, rename = "use")]
    pub filters: Vec<Placed<String>>,
    /// The service requests go to.
    pub service: Placed<String>,
    /// From the complete request, body included, to the head of the answer; over it: 504.
    #[serde(default = "defaults::route_timeout")]
    pub timeout: Placed<Duration>,
    /// Further instances tried when a request could not be delivered and may be repeated.
    #[serde(default = "defaults::retries")]
    pub retries: Placed<u32>,
    /// Bytes of a request body; left out: as in `server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes_max: Option<Placed<Size>>,
}

/// `match = { … }` of a route; all that is given must hold.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Predicates {
    /// `api.example.com`, or `*.example.com` for all names below; left out: any host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Placed<String>>,
    /// `/a/b`, `/users/{id}`, or `/v2/{*rest}` for `/v2` and all below; left out: any path.
    #[serde(default = "defaults::path")]
    pub path: Placed<String>,
    /// Left out: any method. GET stands for HEAD too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Placed<String>>,
    /// name = `"value"`, `{ regex = "…" }` (of the whole value) or `{ present = true }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Named<Placed<HeaderMatch>>,
}

/// Defaults that serde wants as functions.
mod defaults {
    use super::{Balance, Duration, Placed, Protocol, WhenFull};

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

    pub(super) fn limit_keys_max() -> Placed<usize> {
        Placed::absent(100_000)
    }

    pub(super) fn when_full() -> WhenFull {
        WhenFull::Refuse
    }

    pub(super) fn route_timeout() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(30))
    }

    pub(super) fn retries() -> Placed<u32> {
        Placed::absent(1)
    }

    pub(super) fn path() -> Placed<String> {
        Placed::absent("/{*rest}".to_owned())
    }
}
