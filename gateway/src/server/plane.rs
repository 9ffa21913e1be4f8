//! A generation as one worker uses it: with upstream connections of its own.

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
    /// The number of the worker.
    worker: usize,
}

impl Plane {
    /// The plane of worker number `worker`.
    pub(super) fn new(generation: Arc<Generation>, worker: usize) -> Self {
        let config = &generation.config;
        let random = RandomState::new();
        let services = config.services.iter().zip(&generation.services).enumerate();
        let clusters = services.map(|(number, (service, shared))| {
            Cluster::new(
                service,
                shared,
                worker,
                generation.workers,
                random.hash_one(number),
            )
        });
        Self {
            clusters: clusters.collect(),
            worker,
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
        let at = route.series_at + route.counted_at(target);
        let metrics = self.generation.metrics.routes.get(at)?;
        metrics.workers.get(self.worker).map(|series| &**series)
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
