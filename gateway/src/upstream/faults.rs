//! What the answers of a service's instances lead to: ejections, and an open breaker.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::Random;
use super::breaker::{Breaker, Pass};
use super::budget::{Budget, Retries};
use super::instance::Instance;
use super::outlier::{Outcome, Outliers};
use crate::config::{RetryBudgetConfig, ServiceConfig};

/// What all workers share of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// `None`: nobody is ejected.
    pub(crate) outliers: Option<Arc<Outliers>>,
    /// `None`: nothing is ever refused.
    pub(crate) breaker: Option<Arc<Breaker>>,
    /// Of whatever configuration.
    pub(crate) retries: Arc<Retries>,
}

impl Faults {
    /// For these instances; what has not changed since the `previous` configuration stays as it is.
    pub(crate) fn new(
        service: &ServiceConfig,
        instances: &[Arc<Instance>],
        now: Instant,
        previous: Option<&Self>,
    ) -> Self {
        let name = || Arc::from(service.name.as_str());
        let outliers = service.outlier.as_ref().map(|config| {
            let known = previous.and_then(|previous| previous.outliers.as_ref());
            match known.filter(|known| known.is_for(config, instances)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Outliers::new(name(), config.clone(), instances.to_vec())),
            }
        });
        let breaker = service.breaker.as_ref().map(|config| {
            let known = previous.and_then(|previous| previous.breaker.as_ref());
            match known.filter(|known| known.config() == config) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Breaker::new(name(), config.clone(), now)),
            }
        });
        Self {
            outliers,
            breaker,
            retries: previous.map_or_else(Arc::default, |known| Arc::clone(&known.retries)),
        }
    }
}

/// What one worker needs to take care of a service.
#[derive(Debug)]
pub(crate) struct Care {
    faults: Faults,
    pub(crate) budget: Rc<Budget>,
    pub(crate) random: Random,
}

impl Care {
    /// For one worker; an unchanged budget of the `previous` configuration stays.
    pub(crate) fn new(
        config: &RetryBudgetConfig,
        faults: Faults,
        seed: u64,
        previous: Option<&Self>,
    ) -> Self {
        let known = previous.map(|previous| &previous.budget);
        let budget = match known.filter(|known| known.is_for(config)) {
            Some(known) => Rc::clone(known),
            None => Rc::new(Budget::new(config, Arc::clone(&faults.retries))),
        };
        Self {
            faults,
            budget,
            random: Random::seeded(seed),
        }
    }

    /// An attempt to get an answer from the instance came to this.
    pub(crate) fn observe(&self, instance: &Instance, outcome: Outcome) {
        if let Some(outliers) = &self.faults.outliers {
            outliers.observe(instance, outcome, Instant::now());
        }
    }

    /// An answer of the instance, which was good so far, broke off.
    pub(crate) fn broke_off(&self, instance: &Instance) {
        if let Some(outliers) = &self.faults.outliers {
            outliers.broke_off(instance);
        }
    }

    /// Lets a request through, or says how long none will be. `None`: there is no breaker.
    pub(crate) fn admit(&self) -> Result<Option<Pass<'_>>, Duration> {
        let breaker = self.faults.breaker.as_deref();
        breaker
            .map(|breaker| breaker.admit(Instant::now()))
            .transpose()
    }
}
