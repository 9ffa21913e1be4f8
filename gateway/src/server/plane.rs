//! A generation as one worker uses it: with upstream connections of its own.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Instant;

use super::generation::Generation;
use crate::config::{Config, ServerLimits};
use crate::telemetry::metrics::Found;
use crate::upstream::cluster::Cluster;

/// What requests are decided and forwarded by.
pub(crate) struct Plane {
    generation: Arc<Generation>,
    /// One per service, in the order of the configuration.
    pub(crate) clusters: Vec<Cluster>,
    /// This worker's counters.
    pub(crate) series: Found,
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
        let series = Found::new(config);
        Self {
            clusters: clusters.collect(),
            series,
            generation,
        }
    }

    /// A worker serves by it from now on.
    pub(super) fn followed(&self) {
        self.generation.follow();
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.generation.config
    }

    /// What clients may send and how long they may take.
    pub(crate) fn limits(&self) -> &ServerLimits {
        &self.generation.config.limits
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
