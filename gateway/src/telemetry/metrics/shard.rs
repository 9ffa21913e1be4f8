//! What one worker counts, and how it finds its series.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counter::{Counter, Gauge, Histogram};
use super::resilience::Repeats;
use super::series::{InstanceSeries, Ledger, Outcome, RouteSeries, SECONDS, ServiceSeries};
use crate::config::Config;
use crate::listen::client_certificate::Outcome as Certificate;
use crate::route::Route;

/// Series by route and service that one worker has at most.
const ROUTE_SERIES_MAX: usize = 20_000;
/// Series by service that one worker has at most.
const SERVICE_SERIES_MAX: usize = 5_000;
/// Series by instance that one worker has at most.
const INSTANCE_SERIES_MAX: usize = 20_000;

/// What one worker counts.
#[derive(Debug)]
pub(crate) struct Shard {
    /// Requests without a route; those with one count in series of its own.
    pub(super) unrouted: Arc<RouteSeries>,
    pub(super) routes: Mutex<Ledger<RouteSeries>>,
    pub(super) services: Mutex<Ledger<ServiceSeries>>,
    pub(super) instances: Mutex<Ledger<InstanceSeries>>,
    pub(super) reasons: Mutex<BTreeMap<&'static str, u64>>,
    /// By service and what came of it.
    pub(super) mirrored: Mutex<BTreeMap<(Arc<str>, &'static str), u64>>,
    /// Attempts after the first.
    pub(crate) repeats: Repeats,
    pub(super) in_flight: Gauge,
    pub(super) connections: Counter,
    pub(super) connections_open: Gauge,
    pub(super) connections_refused: Counter,
    pub(super) connections_refused_by_source: Counter,
    pub(super) handshakes_failed: Counter,
    /// By [`TLS_VERSIONS`], and within: full, resumed.
    pub(super) handshakes: [[Counter; 2]; TLS_VERSIONS.len()],
    pub(super) handshake: Histogram<16>,
    /// By [`Outcome::ALL`](crate::listen::client_certificate::Outcome::ALL).
    pub(super) client_certificates: [Counter; Certificate::ALL.len()],
    pub(super) tunnels_open: Gauge,
    pub(super) busy_polls: Counter,
}

/// The versions handshakes are counted by.
pub(super) const TLS_VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

impl Default for Shard {
    fn default() -> Self {
        Self::with_room(ROUTE_SERIES_MAX)
    }
}

impl Shard {
    /// A shard with room for so many series by route and service.
    pub(super) fn with_room(route_series_max: usize) -> Self {
        Self {
            unrouted: Arc::default(),
            routes: Mutex::new(Ledger::new(route_series_max)),
            services: Mutex::new(Ledger::new(SERVICE_SERIES_MAX)),
            instances: Mutex::new(Ledger::new(INSTANCE_SERIES_MAX)),
            reasons: Mutex::default(),
            mirrored: Mutex::default(),
            repeats: Repeats::default(),
            in_flight: Gauge::default(),
            connections: Counter::default(),
            connections_open: Gauge::default(),
            connections_refused: Counter::default(),
            connections_refused_by_source: Counter::default(),
            handshakes_failed: Counter::default(),
            handshakes: Default::default(),
            handshake: Histogram::new(&SECONDS),
            client_certificates: Default::default(),
            tunnels_open: Gauge::default(),
            busy_polls: Counter::default(),
        }
    }

    /// A request has arrived.
    pub(crate) fn exchange_begins(&self) {
        self.in_flight.add(1);
    }

    /// A request is over.
    pub(crate) fn exchange_ends(&self) {
        self.in_flight.add(-1);
    }

    /// Counts a request that found no route.
    pub(crate) fn count_unrouted(&self, outcome: &Outcome) {
        self.unrouted.count(outcome);
    }

    /// A request was refused or broke off.
    pub(crate) fn reason(&self, reason: &'static str) {
        // Contended by scrapes alone, and refusals are not the common case.
        *lock(&self.reasons).entry(reason).or_default() += 1;
    }

    /// A copy of a request was meant for this service; `result` is one of few.
    pub(crate) fn mirrored(&self, service: &Arc<str>, result: &'static str) {
        let key = (Arc::clone(service), result);
        *lock(&self.mirrored).entry(key).or_default() += 1;
    }

    /// The worker has looked for more instead of sleeping.
    pub(crate) fn busy_poll(&self) {
        self.busy_polls.add(1);
    }

    /// How often it has.
    #[cfg(test)]
    pub(crate) fn busy_polls(&self) -> u64 {
        self.busy_polls.read()
    }

    /// A client connection was accepted.
    pub(crate) fn connection_opens(&self) {
        self.connections.add(1);
        self.connections_open.add(1);
    }

    /// A client connection is over.
    pub(crate) fn connection_closes(&self) {
        self.connections_open.add(-1);
    }

    /// A client connection was closed at once: the gateway is at `connections_max`.
    pub(crate) fn connection_refused(&self, of_source: bool) {
        if of_source {
            self.connections_refused_by_source.add(1);
        } else {
            self.connections_refused.add(1);
        }
    }

    /// A TLS handshake failed.
    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.add(1);
    }

    /// A TLS handshake is done.
    pub(crate) fn handshake_done(&self, version: &str, resumed: bool, took: std::time::Duration) {
        let version = TLS_VERSIONS.iter().position(|known| *known == version);
        if let Some(version) = version {
            self.handshakes[version][usize::from(resumed)].add(1);
        }
        self.handshake.observe(took.as_micros() as u64);
    }

    /// A client was asked for its certificate.
    pub(crate) fn client_certificate(&self, outcome: Certificate) {
        self.client_certificates[outcome as usize].add(1);
    }

    /// An upgraded connection begins (`1`) or ends (`-1`).
    pub(crate) fn tunnels(&self, change: i64) {
        self.tunnels_open.add(change);
    }

    /// The series of an instance, for this worker alone.
    pub(crate) fn instance(&self, service: &str, instance: &str) -> Arc<InstanceSeries> {
        lock(&self.instances).open(service, instance)
    }
}

/// A panic under the lock leaves whole entries, so counting may go on.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The series of one worker under one configuration, by position: found without a look-up by
/// name from the second request on.
#[derive(Debug)]
pub(crate) struct Found {
    /// By [`Route::series_at`] and [`Route::counted_at`].
    routes: Box<[OnceCell<Arc<RouteSeries>>]>,
    services: Box<[OnceCell<Arc<ServiceSeries>>]>,
}

impl Found {
    /// Nothing found yet.
    pub(crate) fn new(config: &Config) -> Self {
        Self::with_room(config.series, config.services.len())
    }

    pub(super) fn with_room(routes: usize, services: usize) -> Self {
        Self {
            routes: (0..routes).map(|_| OnceCell::new()).collect(),
            services: (0..services).map(|_| OnceCell::new()).collect(),
        }
    }

    /// Counts a request by its route and the target it went to, and by service, given by position
    /// and name. Without a service the gateway has answered it itself.
    pub(crate) fn count(
        &self,
        shard: &Shard,
        (route, target): (&Route, Option<usize>),
        service: Option<(usize, &str)>,
        outcome: &Outcome,
    ) {
        let at = route.series_at + route.counted_at(target);
        self.count_at(shard, (at, &route.name), service, outcome);
    }

    pub(super) fn count_at(
        &self,
        shard: &Shard,
        (at, route): (usize, &str),
        service: Option<(usize, &str)>,
        outcome: &Outcome,
    ) {
        let name = service.map_or("", |(_, name)| name);
        self.routes[at]
            .get_or_init(|| lock(&shard.routes).open(route, name))
            .count(outcome);
        if let Some((index, name)) = service {
            self.services[index]
                .get_or_init(|| lock(&shard.services).open(name, ""))
                .count(outcome);
        }
    }
}
