//! A generation as one worker uses it: with upstream connections of its own.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Instant;

use super::generation::Generation;
use crate::config::{Config, ServerLimits};
use crate::route::Route;
use crate::telemetry::metrics::RouteSeries;
use crate::upstream::cluster::Cluster;

/// What requests are decided and forwarded by.
pub(crate) struct Plane {
    generation: Arc<Generation>,
    /// One per service, in the order of the configuration.
    pub(crate) clusters: Vec<Cluster>,
    /// This worker's counters, by the address of the route; within, by `Route::counted_at`.
    series: HashMap<*const Route, Box<[Arc<RouteSeries>]>>,
}

impl Plane {
    /// The plane of worker number `worker`.
    pub(super) fn new(generation: Arc<Generation>, worker: usize) -> Self {
        let config = &generation.config;
        let random = RandomState::new();
        let services = config.services.iter().zip(&generation.services).enumerate();
        let clusters = services.map(|(number, (service, shared))| {
            Cluster::new(service, shared, worker, random.hash_one(number))
        });
        let mut metrics = generation.metrics.routes.iter();
        let series = config.routes.routes().map(|route| {
            let of_route = metrics.by_ref().take(route.counted_by().count());
            let series = of_route.map(|metrics| Arc::clone(&metrics.workers[worker]));
            (Arc::as_ptr(route), series.collect())
        });
        let series = series.collect();
        Self {
            clusters: clusters.collect(),
            series,
            generation,
        }
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.generation.config
    }

    /// What clients may send and how long they may take.
    pub(crate) fn limits(&self) -> &ServerLimits {
        &self.generation.config.limits
    }

    /// The counters of a route of this plane, for requests that went to this target of it.
    pub(crate) fn series(&self, route: &Route, target: Option<usize>) -> Option<&RouteSeries> {
        let series = self.series.get(&std::ptr::from_ref(route))?;
        series.get(route.counted_at(target)).map(|series| &**series)
    }

    /// Closes idle upstream connections: only requests under way still use this plane.
    pub(super) fn retire(&self) {
        for cluster in &self.clusters {
            cluster.retire();
        }
    }

    /// Closes upstream connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        for cluster in &self.clusters {
            cluster.sweep(now);
        }
    }
}
