//! A service as one worker sees it: its instances and how one is chosen.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;

use super::availability::{Bar, Changes};
use super::balance::maglev::Maglev;
use super::balance::{Balancer, Random, Turn};
use super::endpoint::Endpoint;
use super::faults::{Care, Faults};
use super::instance::Instance;
use crate::config::{Balance, ServiceConfig, UpstreamProtocol};
use crate::filter::Context;
use crate::filter::key::RequestKey;

/// What all workers share of a service.
#[derive(Debug)]
pub(crate) struct SharedService {
    /// One per endpoint.
    pub(crate) instances: Vec<Arc<Instance>>,
    /// Counted up whenever something about the instances changes.
    pub(crate) changes: Arc<Changes>,
    /// What their answers lead to.
    pub(crate) faults: Faults,
    /// The hash table, where the service is balanced by one.
    maglev: Option<Arc<Maglev>>,
}

impl SharedService {
    /// What is shared of `service`. What was `previous`ly learnt of its instances stays known.
    pub(crate) fn new(
        service: &ServiceConfig,
        now: Instant,
        previous: Option<(&ServiceConfig, &Self)>,
    ) -> Self {
        let changes = previous.map_or_else(Arc::default, |(_, known)| Arc::clone(&known.changes));
        let instance = |address: &SocketAddr| {
            let known = previous.and_then(|(config, known)| {
                let mut instances = known.instances.iter();
                let instance = instances.find(|known| known.address == *address)?;
                if config.health != service.health {
                    // Other checks may judge otherwise.
                    instance.availability.lift(Bar::Check, now);
                }
                Some(Arc::clone(instance))
            });
            known.unwrap_or_else(|| Arc::new(Instance::new(*address, now, Arc::clone(&changes))))
        };
        let instances: Vec<_> = service.endpoints.iter().map(instance).collect();
        let before = previous.map(|(_, known)| &known.faults);
        let faults = Faults::new(service, &instances, now, before);
        let maglev = matches!(service.balance, Balance::ConsistentHash { .. }).then(|| {
            let names: Vec<String> = service.endpoints.iter().map(ToString::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Arc::new(Maglev::new(&names))
        });
        Self {
            instances,
            changes,
            faults,
            maglev,
        }
    }
}

/// What ties a request to an instance: it goes to the same one as others of its kind, as long as
/// that one can be used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Affinity {
    /// Of the key that the service balances by.
    hash: Option<u64>,
}

/// The instances of one service.
pub(crate) struct Cluster {
    /// The service's name.
    pub(crate) name: Arc<str>,
    endpoints: Vec<Rc<Endpoint>>,
    balancer: Balancer,
    hash_by: Option<RequestKey>,
    protocol: UpstreamProtocol,
    /// Retries, and what answers lead to.
    pub(crate) care: Care,
}

impl Cluster {
    /// The cluster of worker number `worker` of `workers`; `seed` feeds its random choices.
    pub(crate) fn new(
        service: &ServiceConfig,
        shared: &SharedService,
        worker: usize,
        workers: usize,
        seed: u64,
    ) -> Self {
        let instances = shared.instances.iter().enumerate();
        let endpoints = instances
            .map(|(index, instance)| Rc::new(Endpoint::new(service, index, Arc::clone(instance))));
        let turn = Turn::starting_at(worker % service.endpoints.len().max(1));
        let balancer = match (&service.balance, &shared.maglev) {
            (Balance::ConsistentHash { .. }, Some(maglev)) => {
                Balancer::Hash(Arc::clone(maglev), turn)
            }
            (Balance::LeastRequest, _) => Balancer::LeastRequest(Random::seeded(seed)),
            _ => Balancer::RoundRobin(turn),
        };
        let hash_by = match &service.balance {
            Balance::ConsistentHash { by } => Some(by.clone()),
            _ => None,
        };
        Self {
            name: service.name.as_str().into(),
            endpoints: endpoints.collect(),
            balancer,
            hash_by,
            protocol: service.protocol,
            care: Care::new(&service.retry_budget, shared.faults.clone(), workers, seed),
        }
    }

    /// What is spoken to the instances.
    pub(crate) fn protocol(&self) -> UpstreamProtocol {
        self.protocol
    }

    /// What ties the request to an instance.
    pub(crate) fn affinity(&self, context: &Context, head: &Parts, route: &str) -> Affinity {
        Affinity {
            hash: self.hash(context, head, route),
        }
    }

    /// The hash of what the service balances by, if it does and the request has it.
    fn hash(&self, context: &Context, head: &Parts, route: &str) -> Option<u64> {
        let key = self.hash_by.as_ref()?.of(context, head, route)?;
        let (low, high) = key.split_at(8);
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
        };
        Some(word(low) ^ word(high))
    }

    /// An instance that was not `tried` yet, or `None` if no healthy one is left. A suspect
    /// instance is chosen only when every other healthy one was tried.
    pub(crate) fn pick(&self, tried: &[usize], affinity: Affinity) -> Option<&Rc<Endpoint>> {
        let (now, hash) = (Instant::now(), affinity.hash);
        let available = |index: usize| &self.endpoints[index].instance.availability;
        let untried = |index: usize| !tried.contains(&index) && available(index).is_usable(now);
        let trusted = |index: usize| untried(index) && !available(index).is_suspect(now);
        let index = self
            .choose(trusted, hash)
            .or_else(|| self.choose(untried, hash))?;
        Some(&self.endpoints[index])
    }

    fn choose(&self, usable: impl Fn(usize) -> bool, hash: Option<u64>) -> Option<usize> {
        let in_flight = |index: usize| self.endpoints[index].in_flight();
        self.balancer
            .pick(self.endpoints.len(), usable, in_flight, hash)
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        for endpoint in &self.endpoints {
            endpoint.sweep(now);
        }
    }

    /// Closes all idle connections, and keeps none from now on.
    pub(crate) fn retire(&self) {
        for endpoint in &self.endpoints {
            endpoint.retire();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::RetryBudgetConfig;

    fn cluster(count: u16) -> (Cluster, SharedService) {
        let endpoints = (0..count)
            .map(|n| ([127, 0, 0, 1], 9000 + n).into())
            .collect();
        let service = ServiceConfig {
            name: "orders".into(),
            endpoints,
            balance: Balance::RoundRobin,
            health: None,
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            connections_max: 8,
            requests_max: 8,
            waiting_max: 8,
            waiting_timeout: Duration::from_secs(1),
            outlier: None,
            breaker: None,
            retry_budget: RetryBudgetConfig {
                percent: 20,
                min_per_second: 10,
                in_flight_max: 10,
            },
            protocol: UpstreamProtocol::Http1,
            gate: None,
        };
        let shared = SharedService::new(&service, Instant::now(), None);
        (Cluster::new(&service, &shared, 0, 1, 1), shared)
    }

    #[test]
    fn suspects_are_the_last_resort() {
        let (cluster, shared) = cluster(3);
        let now = Instant::now();
        shared.instances[0].suspect(now);

        let taken = |tried: &[usize]| {
            cluster
                .pick(tried, Affinity::default())
                .map(|one| one.index)
        };
        assert_eq!(taken(&[]), Some(1));
        assert_eq!(taken(&[1]), Some(2));
        assert_eq!(taken(&[1, 2]), Some(0), "better a suspect than nobody");
        assert_eq!(taken(&[0, 1, 2]), None);
    }
}
