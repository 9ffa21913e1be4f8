//! The configuration as typed: the shape of the TOML file, with the place of every value.
//!
//! Only syntax, types and key names are checked here; what the values mean is checked in
//! `compile`. Defaults stand here, so the file written back is complete.

mod access_log;
mod action;
mod admin;
mod auth;
mod balance;
mod concurrency;
mod discover;
mod either;
mod forms;
mod health;
mod limit;
mod listener;
mod overload;
mod placed;
mod predicates;
mod reading;
mod resilience;
mod route;
mod server;
mod service;
mod service_tls;
mod status;
mod trace;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::access_log::{AccessLog, Condition, LogTarget, Syslog};
pub use self::action::{
    Cors, HeaderChanges, KeepQuery, Mirror, Redirect, Respond, Rewrite, SplitMember, SplitTable,
    Text, When,
};
pub use self::admin::{Admin, Drain};
pub use self::auth::{Auth, AuthKind};
pub use self::balance::{Balance, Endpoint, Failover, SameSite, Sticky};
pub use self::concurrency::SenderConcurrency;
pub use self::discover::Discover;
pub use self::forms::{Certificate, Source};
pub use self::health::{Health, HealthKind};
pub use self::limit::{Limit, WhenFull};
pub use self::listener::{Listener, Tls};
pub use self::overload::{Concurrency, Overload, PriorityBy};
pub use self::placed::Placed;
pub use self::predicates::{PathMatch, Predicates, ValueMatch};
pub use self::reading::{DotSegments, EmptySegments, Reading, RefuseOrKeep, UnderscoreNames};
pub use self::resilience::{Breaker, Hedge, HedgeAfter, Outlier, Retry, RetryBudget};
pub use self::route::Route;
pub use self::server::Server;
pub use self::service::{Protocol, Service};
pub use self::service_tls::ServiceTls;
pub use self::status::{RetryOn, StatusRange};
pub use self::trace::{Traceparent, Tracing};

/// Things by name.
pub type Named<T> = BTreeMap<Placed<String>, T>;

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Workers, and what clients may send and how long they may take.
    #[serde(default)]
    pub server: Server,
    /// What the process may need, and what it gives up when that is not enough.
    #[serde(default)]
    pub overload: Overload,
    /// How requests are read that servers read differently.
    #[serde(default)]
    pub reading: Reading,
    /// Where clients connect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listeners: Named<Listener>,
    /// Liveness, readiness and metrics; left out: not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// A line for each request; left out: JSON to standard output, unless `access_logs` has others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// Further access logs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub access_logs: Named<AccessLog>,
    /// Its part in distributed traces.
    #[serde(default)]
    pub tracing: Tracing,
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
    /// How many requests a sender may have under way; used by routes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub concurrency: Named<SenderConcurrency>,
    /// Which requests go to which service; the most specific route wins, not the first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: Named<Route>,
}

impl File {
    /// The same configuration with every default written out.
    #[must_use]
    pub fn complete(mut self) -> Self {
        self.auth.values_mut().for_each(Auth::complete);
        if self.access_log.is_none() && self.access_logs.is_empty() {
            self.access_log = Some(AccessLog::default());
        }
        for limit in self.limits.values_mut() {
            limit.burst = Some(limit.burst());
        }
        let tls = self.listeners.values_mut();
        tls.filter_map(|one| one.tls.as_mut())
            .for_each(Tls::complete);
        let services = self.services.values_mut();
        services.for_each(Service::complete);
        self
    }
}
