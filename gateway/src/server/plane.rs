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
    /// This worker's counters, by the address of the route.
    series: HashMap<*const Route, Arc<RouteSeries>>,
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
        let routes = config.routes.routes().zip(&generation.metrics.routes);
        let series = routes
            .map(|(route, metrics)| (Arc::as_ptr(route), Arc::clone(&metrics.workers[worker])));
        Self {
            clusters: clusters.collect(),
            series: series.collect(),
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

    /// The counters of a route of this plane.
    pub(crate) fn series(&self, route: &Route) -> Option<&RouteSeries> {
        self.series
            .get(&std::ptr::from_ref(route))
            .map(|series| &**series)
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
