//! One configuration in force, and what all workers share of it.
//!
//! A reload makes the next generation. What both have in common is carried over: the health of
//! instances, and the counters of routes.

use std::sync::Arc;
use std::time::Instant;

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
}

impl Generation {
    /// The generation for `config`, after `previous` if there was one.
    pub(crate) fn new(config: Config, workers: usize, previous: Option<&Self>) -> Self {
        let now = Instant::now();
        let known = |name: &str| {
            let previous = previous?;
            let index = previous
                .config
                .services
                .iter()
                .position(|known| known.name == name)?;
            Some((&previous.config.services[index], &previous.services[index]))
        };
        let services: Vec<SharedService> = config
            .services
            .iter()
            .map(|service| SharedService::new(service, now, known(&service.name)))
            .collect();
        let counted = previous.map(|previous| &*previous.metrics);
        let metrics = Arc::new(Configured::new(&config, &services, workers, counted));
        Self {
            config,
            services,
            metrics,
        }
    }
}
