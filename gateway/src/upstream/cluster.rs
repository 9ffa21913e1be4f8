//! A service as one worker sees it: its instances and how one is chosen.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;

use super::balance::maglev::Maglev;
use super::balance::{Balancer, Random, Turn};
use super::endpoint::Endpoint;
use super::health::Health;
use crate::config::{Balance, ServiceConfig, UpstreamProtocol};
use crate::filter::Context;
use crate::filter::key::RequestKey;

/// What all workers share of a service.
#[derive(Debug)]
pub(crate) struct SharedService {
    /// One entry per endpoint.
    pub(crate) health: Vec<Arc<Health>>,
    /// The hash table, where the service is balanced by one.
    maglev: Option<Arc<Maglev>>,
}

impl SharedService {
    /// What is shared of `service`. The health of instances that were checked in the same way
    /// before is `previous`ly known.
    pub(crate) fn new(
        service: &ServiceConfig,
        epoch: Instant,
        previous: Option<(&ServiceConfig, &Self)>,
    ) -> Self {
        let previous = previous.filter(|(known, _)| known.health == service.health);
        let known = |address| {
            let (config, shared) = previous?;
            let index = config.endpoints.iter().position(|known| known == address)?;
            Some(Arc::clone(&shared.health[index]))
        };
        let health = service.endpoints.iter();
        let health = health
            .map(|address| known(address).unwrap_or_else(|| Arc::new(Health::new(epoch))))
            .collect();
        let maglev = matches!(service.balance, Balance::ConsistentHash { .. }).then(|| {
            let names: Vec<String> = service.endpoints.iter().map(ToString::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Arc::new(Maglev::new(&names))
        });
        Self { health, maglev }
    }
}

/// The instances of one service.
pub(crate) struct Cluster {
    /// The service's name.
    pub(crate) name: Arc<str>,
    endpoints: Vec<Rc<Endpoint>>,
    balancer: Balancer,
    hash_by: Option<RequestKey>,
    protocol: UpstreamProtocol,
}

impl Cluster {
    /// The cluster of worker number `worker`; `seed` feeds its random choices.
    pub(crate) fn new(
        service: &ServiceConfig,
        shared: &SharedService,
        worker: usize,
        seed: u64,
    ) -> Self {
        let endpoints = service.endpoints.iter().zip(&shared.health).enumerate();
        let endpoints = endpoints.map(|(index, (address, health))| {
            Rc::new(Endpoint::new(service, index, *address, Arc::clone(health)))
        });
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
        }
    }

    /// What is spoken to the instances.
    pub(crate) fn protocol(&self) -> UpstreamProtocol {
        self.protocol
    }

    /// The hash of what the service balances by, if it does and the request has it.
    pub(crate) fn hash(&self, context: &Context, head: &Parts, route: &str) -> Option<u64> {
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
    pub(crate) fn pick(
        &self,
        tried: &[usize],
        hash: Option<u64>,
        now: Instant,
    ) -> Option<&Rc<Endpoint>> {
        let untried =
            |index: usize| !tried.contains(&index) && self.endpoints[index].health.is_healthy();
        let trusted =
            |index: usize| untried(index) && !self.endpoints[index].health.is_suspect(now);
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
            protocol: UpstreamProtocol::Http1,
        };
        let shared = SharedService::new(&service, Instant::now(), None);
        (Cluster::new(&service, &shared, 0, 1), shared)
    }

    #[test]
    fn suspects_are_the_last_resort() {
        let (cluster, shared) = cluster(3);
        let now = Instant::now();
        shared.health[0].suspect(now);

        let taken = |tried: &[usize]| cluster.pick(tried, None, now).map(|one| one.index);
        assert_eq!(taken(&[]), Some(1));
        assert_eq!(taken(&[1]), Some(2));
        assert_eq!(taken(&[1, 2]), Some(0), "better a suspect than nobody");
        assert_eq!(taken(&[0, 1, 2]), None);
    }
}
