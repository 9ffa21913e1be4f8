//! What the page shows of the configuration in force.

use std::sync::Arc;

use crate::config::Config;
use crate::discovery::record::Record;
use crate::filter::in_flight::InFlightLimit;
use crate::filter::jwt::Jwt;
use crate::filter::rate_limit::RateLimit;
use crate::overload::Gates;
use crate::upstream::faults::Faults;
use crate::upstream::instance::Instance;
use crate::upstream::service::SharedService;

/// One service's instances and their health.
#[derive(Debug)]
pub(crate) struct ServiceHealth {
    pub(super) service: String,
    pub(super) instances: Vec<Arc<Instance>>,
    pub(super) faults: Faults,
    /// What came of looking for instances; `None`: they are listed.
    pub(super) found: Option<Arc<Record>>,
}

/// What the configuration in force adds to the page.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    /// Of the configuration file.
    pub(super) sha256: Option<String>,
    pub(super) services: Vec<ServiceHealth>,
    pub(super) tokens: Vec<Arc<Jwt>>,
    pub(super) in_flight_limits: Vec<Arc<InFlightLimit>>,
    pub(super) rate_limits: Vec<Arc<RateLimit>>,
    pub(super) gates: Gates,
}

impl Configured {
    /// What `config` and the state of its services add.
    pub(crate) fn new(config: &Config, services: &[Arc<SharedService>]) -> Self {
        let health = config.services.iter().zip(services);
        let health = health.map(|(service, shared)| ServiceHealth {
            service: service.name.clone(),
            instances: shared.instances.clone(),
            faults: shared.faults.clone(),
            found: service
                .discover
                .as_ref()
                .map(|_| Arc::clone(&shared.record)),
        });
        Self {
            sha256: config.fingerprint.sha256(),
            services: health.collect(),
            tokens: config.tokens.clone(),
            in_flight_limits: config.in_flight_limits.clone(),
            rate_limits: config.rate_limits.clone(),
            gates: config.gates.clone(),
        }
    }
}

#[cfg(test)]
impl ServiceHealth {
    pub(super) fn new(service: &str, instance: Arc<Instance>) -> Self {
        Self {
            service: service.to_owned(),
            instances: vec![instance],
            faults: Faults::default(),
            found: None,
        }
    }
}
