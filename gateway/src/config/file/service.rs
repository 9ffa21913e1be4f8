//! `[services.NAME]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Balance, Breaker, Concurrency, Discover, Endpoint, Failover, Health, Outlier, Placed,
    RetryBudget, ServiceTls, Sticky,
};
use crate::config::units::Duration;

/// `[services.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Equal instances: addresses such as `10.0.1.11:8080`, or tables with `address`, `weight`,
    /// `priority` and `zone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Placed<Vec<Placed<Endpoint>>>>,
    /// Where more of them are found: `{ dns = "name:port" }`, `{ srv = "_http._tcp.name" }` or
    /// `{ file = "path" }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discover: Option<Discover>,
    /// How an instance is chosen.
    #[serde(default = "defaults::balance")]
    pub balance: Placed<Balance>,
    /// The key of `consistent-hash`: `client-ip`, `jwt.CLAIM`, `api-key`, `header.NAME`,
    /// `cookie.NAME` or `query.NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_by: Option<Placed<String>>,
    /// How much of the mean load, in percent, an instance may have before `consistent-hash` goes
    /// on to the next; left out: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_load_percent_max: Option<Placed<u32>>,
    /// After which a slow answer counts for little in `peak-ewma`; left out: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ewma_decay: Option<Placed<Duration>>,
    /// An instance that is new or healthy again comes to its full share over this time; left out:
    /// at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Placed<Duration>>,
    /// When other priorities and zones are used.
    #[serde(default)]
    pub failover: Failover,
    /// A cookie that brings a client back to its instance; left out: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// What is spoken to the instances.
    #[serde(default = "defaults::protocol")]
    pub protocol: Protocol,
    /// TLS to the instances; left out: they are reached in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Placed<ServiceTls>>,
    /// Until a new connection stands, TLS included.
    #[serde(default = "defaults::connect_timeout")]
    pub connect_timeout: Placed<Duration>,
    /// An unused pooled connection is closed after this.
    #[serde(default = "defaults::pool_idle_timeout")]
    pub idle_timeout: Placed<Duration>,
    /// Connections to one instance at a time, of all workers.
    #[serde(default = "defaults::upstream_connections_max")]
    pub connections_max: Placed<usize>,
    /// Requests to one instance at a time; left out: `connections_max` over HTTP/1.1, and 1024
    /// over HTTP/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_max: Option<Placed<usize>>,
    /// Requests that may wait for an instance at its limit; over it: 503.
    #[serde(default = "defaults::waiting_max")]
    pub waiting_max: Placed<usize>,
    /// How long a request may wait for that; over it: 503.
    #[serde(default = "defaults::waiting_timeout")]
    pub waiting_timeout: Placed<Duration>,
    /// Requests in flight at a time; left out: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Active checks; left out: instances count as healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Leaves out instances whose answers fail; left out: only failed connections count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier: Option<Outlier>,
    /// Gives the whole service up for a while when too much fails; left out: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// How much retries and hedges may add to the load.
    #[serde(default)]
    pub retry_budget: RetryBudget,
}

impl Service {
    /// The time after which a slow answer counts for little.
    pub(in crate::config) const EWMA_DECAY: Duration = Duration::from_secs(10);

    /// Writes out the defaults that depend on what is given.
    pub(super) fn complete(&mut self) {
        if *self.balance == Balance::PeakEwma && self.ewma_decay.is_none() {
            self.ewma_decay = Some(Placed::absent(Self::EWMA_DECAY));
        }
        if let Some(health) = &mut self.health {
            health.complete();
        }
        if let Some(concurrency) = &mut self.concurrency {
            concurrency.complete();
        }
        let server_name = self.tls_server_name().map(ToOwned::to_owned);
        if let (Some(tls), Some(server_name)) = (&mut self.tls, server_name) {
            tls.server_name.get_or_insert(Placed::absent(server_name));
        }
    }

    /// The name instances are asked for over TLS: as given, or that by which all are found.
    pub(in crate::config) fn tls_server_name(&self) -> Option<&str> {
        if let Some(given) = self.tls.as_ref()?.server_name.as_ref() {
            return Some(given);
        }
        let none_listed = self
            .endpoints
            .as_ref()
            .is_none_or(|listed| listed.is_empty());
        let dns = self
            .discover
            .as_ref()?
            .dns
            .as_ref()
            .filter(|_| none_listed)?;
        let (name, _port) = dns.rsplit_once(':')?;
        Some(name.strip_suffix('.').unwrap_or(name))
    }
}

/// The HTTP version spoken to instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN where the service has `tls`, else by prior knowledge.
    Http2,
}

/// Defaults that serde wants as functions.
mod defaults {
    use super::{Balance, Duration, Placed, Protocol};

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

    pub(super) fn waiting_max() -> Placed<usize> {
        Placed::absent(1024)
    }

    pub(super) fn waiting_timeout() -> Placed<Duration> {
        Placed::absent(Duration::from_secs(1))
    }
}
