//! A generation as one worker uses it: with upstream connections of its own.

use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::generation::Generation;
use crate::config::{Config, ServerLimits};
use crate::telemetry::metrics::Found;
use crate::upstream::cluster::Cluster;
use crate::upstream::spare::Spare;

/// What requests are decided and forwarded by.
pub(crate) struct Plane {
    generation: Arc<Generation>,
    /// One per service, in the order of the configuration.
    pub(crate) clusters: Vec<Rc<Cluster>>,
    /// This worker's counters.
    pub(crate) series: Found,
}

impl Plane {
    /// The plane of worker number `worker`, after `previous` if there was one. Services that have
    /// not changed are taken over with all they know and all their connections.
    pub(super) fn new(generation: Arc<Generation>, worker: usize, previous: Option<&Self>) -> Self {
        let random = RandomState::new();
        let worker = (worker, &generation.spare);
        let services = generation.services.iter().enumerate();
        let clusters = services.map(|(number, service)| {
            let known = previous.and_then(|previous| previous.cluster(&service.config.name));
            match known {
                Some(known) if Arc::ptr_eq(known.service(), service) => Rc::clone(known),
                known => {
                    let known = known.map(|known| &**known);
                    let seed = random.hash_one(number);
                    Rc::new(Cluster::new(service, worker, seed, known))
                }
            }
        });
        let series = Found::new(&generation.config);
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

    /// The service of this name.
    fn cluster(&self, name: &str) -> Option<&Rc<Cluster>> {
        // In order of name.
        let clusters = &self.clusters;
        let index = clusters.binary_search_by(|known| (*known.name).cmp(name));
        Some(&clusters[index.ok()?])
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.generation.config
    }

    /// What clients may send and how long they may take.
    pub(crate) fn limits(&self) -> &ServerLimits {
        &self.generation.config.limits
    }

    /// Closes the idle upstream connections that `next` has not taken over: only requests under
    /// way still use this plane.
    pub(super) fn retire(&self, next: &Self) {
        for cluster in &self.clusters {
            match next.cluster(&cluster.name) {
                Some(same) if Rc::ptr_eq(same, cluster) => {}
                other => cluster.retire(other.map(|other| &**other)),
            }
        }
    }

    /// Closes idle upstream connections whose places other workers wait for.
    pub(super) fn spare_idle(&self) {
        for cluster in &self.clusters {
            cluster.spare();
        }
    }

    /// What the workers ask each other.
    pub(super) fn spare(&self) -> &Arc<Spare> {
        &self.generation.spare
    }

    /// Closes upstream connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        for cluster in &self.clusters {
            cluster.sweep(now);
        }
    }
}
