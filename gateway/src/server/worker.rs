//! One worker: a thread with a runtime, listeners and upstream connections of its own.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::sync::Notify;

use crate::config::{Config, ServerLimits};
use crate::drain::{CUT_GRACE, Drain};
use crate::listen::{self, Listener};
use crate::route::{Route, Table};
use crate::telemetry::access_log::{AccessLog, FLUSH_EVERY};
use crate::telemetry::metrics::Shard;
use crate::upstream::balance::Random;
use crate::upstream::cluster::{Cluster, SharedService};

/// Between looks for upstream connections that were idle for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What a worker is made of; may cross threads, unlike the worker itself.
pub(super) struct Seed {
    pub(super) index: usize,
    pub(super) config: Arc<Config>,
    pub(super) services: Arc<Vec<SharedService>>,
    pub(super) metrics: Arc<Shard>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) drain: Drain,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) listeners: Vec<Listener>,
}

/// What the requests of one thread share.
pub(crate) struct Worker {
    pub(crate) config: Arc<Config>,
    /// One per service, in the order of the configuration.
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) metrics: Arc<Shard>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) drain: Drain,
    /// Client connections of all workers.
    connections: Arc<AtomicUsize>,
    /// Positions in the metrics, by the address of the route.
    series: HashMap<*const Route, usize>,
    ids: RequestIds,
    open: Cell<usize>,
    closed: Notify,
}

/// Every route once, in the order of the metrics' labels.
pub(super) fn routes(table: &Table) -> Vec<&Arc<Route>> {
    let mut routes: Vec<&Arc<Route>> = Vec::new();
    for route in table.routes() {
        if !routes.iter().any(|known| Arc::ptr_eq(known, route)) {
            routes.push(route);
        }
    }
    routes
}

impl Worker {
    fn new(seed: Seed) -> (Self, Vec<Listener>) {
        let random = RandomState::new();
        let clusters = seed
            .config
            .services
            .iter()
            .zip(seed.services.iter())
            .enumerate();
        let clusters = clusters.map(|(number, (service, shared))| {
            Cluster::new(service, shared, seed.index, random.hash_one(number))
        });
        let series = routes(&seed.config.routes).into_iter().enumerate();
        let worker = Self {
            clusters: clusters.collect(),
            series: series
                .map(|(index, route)| (Arc::as_ptr(route), index))
                .collect(),
            config: seed.config,
            metrics: seed.metrics,
            access_log: seed.access_log,
            drain: seed.drain,
            connections: seed.connections,
            ids: RequestIds::seeded(random.hash_one("request ids")),
            open: Cell::new(0),
            closed: Notify::new(),
        };
        (worker, seed.listeners)
    }

    /// What clients may send and how long they may take.
    pub(crate) fn limits(&self) -> &ServerLimits {
        &self.config.limits
    }

    /// The route's position in the metrics.
    pub(crate) fn series(&self, route: Option<&Route>) -> Option<usize> {
        self.series.get(&std::ptr::from_ref(route?)).copied()
    }

    /// A new request id.
    pub(crate) fn request_id(&self) -> HeaderValue {
        self.ids.next()
    }

    /// Makes room for one more client connection, or returns `None` at `connections_max`.
    pub(crate) fn admit(self: &Rc<Self>) -> Option<Slot> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= self.limits().connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.metrics.connection_opens();
        Some(Slot {
            _open: Open::new(self),
            worker: Rc::clone(self),
        })
    }

    /// Counts an upgraded connection while the value lives.
    pub(crate) fn open_tunnel(self: &Rc<Self>) -> Tunnel {
        self.metrics.tunnels(1);
        Tunnel {
            _open: Open::new(self),
            worker: Rc::clone(self),
        }
    }

    /// Completes when nothing is open any more.
    async fn idle(&self) {
        while self.open.get() > 0 {
            self.closed.notified().await;
        }
    }
}

/// One client connection, counted.
pub(crate) struct Slot {
    worker: Rc<Worker>,
    _open: Open,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.worker.connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.metrics.connection_closes();
    }
}

/// One upgraded connection, counted.
pub(crate) struct Tunnel {
    worker: Rc<Worker>,
    _open: Open,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.worker.metrics.tunnels(-1);
    }
}

/// Something the drain waits for.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.closed.notify_one();
    }
}

/// Makes request ids: 128 bits in hexadecimal, unique by a counter under a random prefix.
struct RequestIds {
    prefix: u64,
    random: Random,
}

impl RequestIds {
    fn seeded(seed: u64) -> Self {
        Self {
            prefix: seed,
            random: Random::seeded(seed),
        }
    }

    fn next(&self) -> HeaderValue {
        let id = format!("{:016x}{:016x}", self.prefix, self.random.next());
        HeaderValue::try_from(id).expect("hexadecimal digits are a header value")
    }
}

/// Serves until the gateway has drained.
pub(super) async fn run(seed: Seed) -> anyhow::Result<()> {
    let (worker, listeners) = Worker::new(seed);
    let worker = Rc::new(worker);
    let mut accepting = tokio::task::JoinSet::new();
    for listener in listeners {
        accepting.spawn_local(listen::run(listener, Rc::clone(&worker)));
    }
    tokio::task::spawn_local(keep_house(Rc::clone(&worker)));
    while let Some(ended) = accepting.join_next().await {
        ended??;
    }
    // A gateway without listeners, or one whose listeners are done, waits for its connections.
    worker.drain.closing().await;
    tokio::select! {
        () = worker.idle() => {}
        () = worker.drain.cut() => tokio::time::sleep(CUT_GRACE).await,
    }
    Ok(())
}

async fn keep_house(worker: Rc<Worker>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            _ = flush.tick() => {
                if let Some(log) = &worker.access_log {
                    log.flush();
                }
            }
            _ = sweep.tick() => {
                let now = Instant::now();
                for cluster in &worker.clusters {
                    cluster.sweep(now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn request_ids_differ_and_are_32_digits() {
        let ids = RequestIds::seeded(42);
        let made: HashSet<HeaderValue> = (0..1000).map(|_| ids.next()).collect();
        assert_eq!(made.len(), 1000);
        assert!(made.iter().all(|id| id.len() == 32));
    }
}
