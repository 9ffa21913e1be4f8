//! One configuration in force, and what all workers share of it.
//!
//! A reload makes the next generation. What both have in common is carried over: the health of
//! instances. Counters are the workers' own and outlive generations.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::config::Config;
use crate::telemetry::metrics::Configured;
use crate::upstream::cluster::SharedService;

/// One configuration in force.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) config: Config,
    /// One per service, in the order of the configuration.
    pub(crate) services: Vec<SharedService>,
    pub(crate) metrics: Arc<Configured>,
    /// How many workers serve by it.
    pub(crate) workers: usize,
    /// A permit for each worker that serves by it.
    followed: Semaphore,
}

impl Generation {
    /// The generation for `config`, after `previous` if there was one.
    pub(crate) fn new(config: Config, workers: usize, previous: Option<&Self>) -> Self {
        let now = Instant::now();
        let known = |name: &str| {
            let previous = previous?;
            // In order of name.
            let services = &previous.config.services;
            let index = services.binary_search_by(|known| known.name.as_str().cmp(name));
            let index = index.ok()?;
            Some((&previous.config.services[index], &previous.services[index]))
        };
        let services: Vec<SharedService> = config
            .services
            .iter()
            .map(|service| SharedService::new(service, now, known(&service.name)))
            .collect();
        let metrics = Arc::new(Configured::new(&config, &services));
        Self {
            config,
            services,
            metrics,
            workers,
            followed: Semaphore::new(0),
        }
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
