//! The configuration as meant: everything resolved, nothing left to check.

mod added;
mod admin;
mod balance;
mod client_certificates;
mod discover;
mod reading;
mod resilience;
mod service_tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use self::added::{AddedHeader, AddedHeaders};
pub use self::admin::{AdminConfig, DrainConfig, SocketConfig};
pub use self::balance::*;
pub use self::client_certificates::{ClientCertificate, ClientCertificates};
pub use self::discover::*;
pub use self::reading::*;
pub use self::resilience::*;
pub use self::service_tls::ServiceTls;
use super::fingerprint::Fingerprint;
use super::sections::Sections;
use crate::filter::chain::FilterKind;
use crate::filter::in_flight::InFlightLimit;
use crate::filter::jwt::Jwt;
use crate::filter::rate_limit::RateLimit;
use crate::forward::body::TrailerLimits;
use crate::overload::{Gate, Gates, OverloadConfig};
use crate::route::Table;
use crate::telemetry::access_log::choice::Choice;
use crate::telemetry::access_log::format::Format;
use crate::telemetry::access_log::sink::Target;
use crate::telemetry::trace::Tracing;

/// A validated configuration, compiled into what the request path needs.
#[derive(Debug)]
pub struct Config {
    /// Worker threads, each with a runtime and listeners of its own; `None`: one per core.
    pub workers: Option<usize>,
    /// How long a worker stays awake after it has read something; zero: it sleeps at once.
    pub busy_poll: Duration,
    /// Whether to reload when one of the files it was made from changes.
    pub watch: bool,
    /// What it was made from.
    pub fingerprint: Fingerprint,
    /// What stood in the sections of its routes.
    pub sections: Sections,
    /// The routes that hold what other files, or the environment, say.
    pub made_from_files: BTreeSet<Box<str>>,
    /// Where clients connect, in order of name.
    pub listeners: Vec<ListenerConfig>,
    /// Where requests go, in order of name; routes refer to them by index.
    pub services: Vec<Arc<ServiceConfig>>,
    /// The routes, compiled.
    pub routes: Arc<Table>,
    /// Series by route and service: all positions are below.
    pub series: usize,
    /// Probes and metrics; `None`: not served.
    pub admin: Option<AdminConfig>,
    /// What clients may send and how long they may take.
    pub limits: ServerLimits,
    /// The access logs.
    pub access_logs: Vec<AccessLogConfig>,
    /// Its part in distributed traces.
    pub tracing: Tracing,
    /// How the gateway ends.
    pub drain: DrainConfig,
    /// What the process may need.
    pub overload: OverloadConfig,
    /// The limits of requests in flight, by name.
    pub gates: Gates,
    /// What routes may `use`, by name.
    pub filters: BTreeMap<String, FilterKind>,
    /// The token authentications, in order of name, for their counters.
    pub tokens: Vec<Arc<Jwt>>,
    /// The limits of requests in flight by sender, in order of name, for their counters.
    pub in_flight_limits: Vec<Arc<InFlightLimit>>,
    /// The rate limits, in order of name, for their counters.
    pub rate_limits: Vec<Arc<RateLimit>>,
}

/// A place where clients connect.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Its name in the file.
    pub name: String,
    /// Address and port.
    pub bind: SocketAddr,
    /// Whether an IPv6 address takes no IPv4 clients.
    pub ipv6_only: bool,
    /// TLS; `None`: plain HTTP (HTTP/2 by prior knowledge).
    pub tls: Option<TlsConfig>,
    /// Peers whose `Forwarded`, `X-Forwarded-*`, `X-Request-Id` and `traceparent` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The fields added to messages of its connections.
    pub added_headers: AddedHeaders,
}

/// TLS of a listener. The certificate is chosen by SNI; the first one serves clients without.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// At least one.
    pub certificates: Vec<CertificateConfig>,
    /// Which certificates clients show; `None`: they are not asked for any.
    pub clients: Option<Arc<ClientCertificates>>,
}

/// A certificate chain and its key, both PEM; the same file may hold both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConfig {
    /// Leaf first.
    pub cert_chain_path: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key_path: PathBuf,
}

/// A service: instances that are equal to each other.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// Its name in the file.
    pub name: String,
    /// Its instances as listed, none twice.
    pub endpoints: Vec<EndpointConfig>,
    /// Where more of them are found; `None`: nowhere.
    pub discover: Option<DiscoverConfig>,
    /// How an instance is chosen.
    pub balance: Balance,
    /// Active health checks; `None`: instances count as healthy.
    pub health: Option<HealthConfig>,
    /// Ejection of instances whose answers fail; `None`: never.
    pub outlier: Option<OutlierConfig>,
    /// When the whole service is given up for a while; `None`: never.
    pub breaker: Option<BreakerConfig>,
    /// How much retries and hedges may add to the load.
    pub retry_budget: RetryBudgetConfig,
    /// Until a new connection stands.
    pub connect_timeout: Duration,
    /// After which an unused pooled connection is closed.
    pub idle_timeout: Duration,
    /// Connections to one instance at most, of the whole process.
    pub connections_max: usize,
    /// Requests to one instance at most at a time.
    pub requests_max: usize,
    /// Requests that may wait for an instance at its limit.
    pub waiting_max: usize,
    /// How long one may wait for that.
    pub waiting_timeout: Duration,
    /// What is spoken to the instances.
    pub protocol: UpstreamProtocol,
    /// TLS to the instances; `None`: they are reached in the clear.
    pub tls: Option<Arc<ServiceTls>>,
    /// Its limit of requests in flight; `None`: as many as come.
    pub gate: Option<Arc<Gate>>,
}

impl ServiceConfig {
    /// Its instances for people: those that are listed, and where others are found.
    pub fn shown(&self) -> Vec<String> {
        let listed = self.endpoints.iter().map(ToString::to_string);
        let found = self.discover.iter().map(|found| found.source.to_string());
        listed.chain(found).collect()
    }
}

/// The HTTP version spoken to instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by ALPN where there is TLS, else by prior knowledge.
    Http2,
}

/// What clients may send and how long they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Client connections at most, over all listeners and workers.
    pub connections_max: usize,
    /// Client connections of one address, of one /64 with IPv6; `None`: no limit.
    pub connections_per_source_max: Option<u32>,
    /// Requests on one client connection; `None`: no limit.
    pub requests_per_connection_max: Option<u64>,
    /// Bytes of the header section.
    pub header_bytes_max: usize,
    /// Header fields.
    pub headers_max: usize,
    /// Bytes of the request target.
    pub uri_bytes_max: usize,
    /// Bytes of a request body, unless the route says otherwise.
    pub body_bytes_max: u64,
    /// Bytes of a trailer section.
    pub trailer_bytes_max: usize,
    /// Fields of a trailer section.
    pub trailers_max: usize,
    /// HTTP/2 streams at a time on one connection.
    pub streams_max: u32,
    /// Until a TLS handshake is done.
    pub handshake_timeout: Duration,
    /// Until a request head is complete.
    pub header_timeout: Duration,
    /// Between two pieces of a request or response body.
    pub body_idle_timeout: Duration,
    /// How fast clients must send and take bodies; `None`: no demand.
    pub body_rate: Option<BodyRate>,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// An upgraded connection (WebSocket) on which nothing moves is closed after this.
    pub upgrade_idle_timeout: Duration,
    /// What becomes of odd paths.
    pub path: PathRules,
    /// What becomes of header names with an underscore.
    pub underscore_names: UnderscoreNames,
}

impl ServerLimits {
    /// How large a trailer section may be.
    pub(crate) fn trailers(&self) -> TrailerLimits {
        TrailerLimits {
            bytes_max: self.trailer_bytes_max,
            fields_max: self.trailers_max,
        }
    }
}

#[cfg(test)]
impl ServerLimits {
    /// The defaults.
    pub(crate) fn for_tests() -> Self {
        let least = "[listeners.a]\nbind = \"127.0.0.1:0\"";
        let config = Config::parse(least, std::path::Path::new(""));
        config.expect("a listener is enough").limits
    }
}

/// The least a client must send of a body, or take of a response, while we wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRate {
    /// The time that is looked at.
    pub window: Duration,
    /// Bytes in each such time, at least 1.
    pub bytes: u64,
}

/// An access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Where it goes.
    pub target: Target,
    /// How its lines are written.
    pub format: Format,
    /// Which requests have a line.
    pub choice: Choice,
}
