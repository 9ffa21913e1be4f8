//! One configuration in force, and what all workers share of it.
//!
//! A reload makes the next generation. What both have in common is carried over: services that
//! have not changed, and what is known of instances. Counters are the workers' own and outlive
//! generations.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::config::{Config, ServiceConfig};
use crate::discovery::Found;
use crate::telemetry::metrics::Configured;
use crate::upstream::service::SharedService;
use crate::upstream::spare::Spare;

/// One configuration in force.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) config: Arc<Config>,
    /// One per service, in the order of the configuration.
    pub(crate) services: Vec<Arc<SharedService>>,
    pub(crate) metrics: Arc<Configured>,
    /// What the workers that serve by it ask each other.
    pub(crate) spare: Arc<Spare>,
    /// A permit for each worker that serves by it.
    followed: Semaphore,
}

impl Generation {
    /// The generation for `config`, after `previous` if there was one. Services that have not
    /// changed are taken over as they are.
    pub(crate) fn new(config: Config, workers: usize, previous: Option<&Self>) -> Self {
        let now = Instant::now();
        let service = |config: &Arc<ServiceConfig>| {
            let known = previous.and_then(|previous| previous.service(&config.name));
            match known {
                Some(known) if known.config == *config => Arc::clone(known),
                known => {
                    let known = known.map(|known| &**known);
                    let found = known.and_then(|known| known.known_to(config));
                    Arc::new(SharedService::new(Arc::clone(config), found, now, known))
                }
            }
        };
        let services = config.services.iter().map(service).collect();
        let spare = previous.map_or_else(|| Spare::new(workers), |known| Arc::clone(&known.spare));
        Self::with(Arc::new(config), services, spare)
    }

    /// The next generation with all as it is.
    pub(crate) fn again(&self) -> Self {
        Self::with(
            Arc::clone(&self.config),
            self.services.clone(),
            Arc::clone(&self.spare),
        )
    }

    fn with(config: Arc<Config>, services: Vec<Arc<SharedService>>, spare: Arc<Spare>) -> Self {
        let metrics = Arc::new(Configured::new(&config, &services));
        Self {
            config,
            services,
            metrics,
            spare,
            followed: Semaphore::new(0),
        }
    }

    /// The generation after this one, by the same configuration, with the instances that were
    /// `found`.
    pub(crate) fn with_found(&self, found: Vec<Found>) -> Self {
        let mut services = self.services.clone();
        for Found { service, endpoints } in found {
            let Some(at) = self.position(&service) else {
                // A reload has taken the service away meanwhile.
                continue;
            };
            let known = &services[at];
            let config = Arc::clone(&known.config);
            let now = Instant::now();
            let next = SharedService::new(config, Some(endpoints), now, Some(known));
            services[at] = Arc::new(next);
        }
        let spare = Arc::clone(&self.spare);
        Self::with(Arc::clone(&self.config), services, spare)
    }

    /// The service of this name.
    fn service(&self, name: &str) -> Option<&Arc<SharedService>> {
        Some(&self.services[self.position(name)?])
    }

    fn position(&self, name: &str) -> Option<usize> {
        // In order of name.
        let services = &self.services;
        let found = services.binary_search_by(|known| known.config.name.as_str().cmp(name));
        found.ok()
    }

    /// A worker serves by it from now on.
    pub(crate) fn follow(&self) {
        self.followed.add_permits(1);
    }

    /// Completes when so many workers serve by it: then no new request meets an earlier one.
    pub(crate) async fn followed_by(&self, workers: usize) {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        // An error would mean that the semaphore was closed, which nobody does.
        let _ = self.followed.acquire_many(workers).await;
    }
}
