//! A service as one worker sees it: its instances and how one is chosen.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::SET_COOKIE;
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue};

use super::balance::Random;
use super::endpoint::{Endpoint, Lease};
use super::faults::Care;
use super::lineup::{Lineup, Request};
use super::link::Link;
use super::pool::Pool;
use super::service::SharedService;
use super::spare::Spare;
use crate::config::{Method, ServiceConfig, UpstreamProtocol};
use crate::filter::Context;
use crate::serve::Client;

/// What ties a request to an instance: it goes to the same one as others of its kind, as long as
/// that one can be used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Affinity {
    /// Of the key that the service balances by.
    hash: Option<u64>,
    /// The position of the instance that the client's cookie names.
    stuck: Option<usize>,
}

/// The instances of one service.
pub(crate) struct Cluster {
    /// The service's name.
    pub(crate) name: Arc<str>,
    service: Arc<SharedService>,
    endpoints: Vec<Rc<Endpoint>>,
    /// Requests of this worker that the service is busy with.
    in_flight: Rc<Cell<u32>>,
    random: Random,
    /// The endpoint that turns begin with.
    first: usize,
    lineup: RefCell<Lineup>,
    /// Retries, and what answers lead to.
    pub(crate) care: Care,
}

impl Cluster {
    /// The cluster of worker number `worker` of those that ask each other for what they have to
    /// `spare`; `seed` feeds its random choices. Links to instances that `previous` knew are taken
    /// over from there.
    pub(crate) fn new(
        service: &Arc<SharedService>,
        (worker, spare): (usize, &Arc<Spare>),
        seed: u64,
        previous: Option<&Self>,
    ) -> Self {
        let config = &service.config;
        // What is spoken, and with whom, cannot change while a connection stands; all else can.
        let known = previous.filter(|known| {
            let before = &known.service.config;
            (before.protocol, &before.tls) == (config.protocol, &config.tls)
        });
        let links: HashMap<SocketAddr, &Rc<Link>> = known
            .iter()
            .flat_map(|known| &known.endpoints)
            .map(|endpoint| (endpoint.instance.address, &endpoint.link))
            .collect();
        let in_flight = known.map_or_else(Rc::default, |known| Rc::clone(&known.in_flight));
        let link = |address: SocketAddr| {
            let link = match links.get(&address) {
                Some(link) => Rc::clone(link),
                None => {
                    let pool = Pool::new(config, address, (worker, Arc::clone(spare)));
                    Rc::new(Link::new(pool, Rc::clone(&in_flight)))
                }
            };
            link.pool.adjust(config);
            link.set_decay(decay(config));
            link
        };
        let endpoints = service.instances.iter().enumerate();
        let endpoints = endpoints.map(|(index, instance)| {
            Rc::new(Endpoint::new(
                index,
                Arc::clone(instance),
                link(instance.address),
            ))
        });
        let endpoints: Vec<_> = endpoints.collect();
        let random = Random::seeded(seed);
        let first = match previous {
            None => worker % endpoints.len().max(1),
            // Whose turn it was is of no meaning for other instances.
            Some(_) => random.below(endpoints.len().max(1)),
        };
        let lineup = Lineup::new(service, Instant::now(), None, first);
        Self {
            name: config.name.as_str().into(),
            service: Arc::clone(service),
            endpoints,
            in_flight,
            random,
            first,
            lineup: RefCell::new(lineup),
            care: Care::new(
                &config.retry_budget,
                service.faults.clone(),
                seed,
                previous.map(|known| &known.care),
            ),
        }
    }

    /// What is shared with other workers.
    pub(crate) fn service(&self) -> &Arc<SharedService> {
        &self.service
    }

    /// What is spoken to the instances.
    pub(crate) fn protocol(&self) -> UpstreamProtocol {
        self.service.config.protocol
    }

    /// How instances are asked.
    pub(crate) fn scheme(&self) -> Scheme {
        match self.service.config.tls {
            None => Scheme::HTTP,
            Some(_) => Scheme::HTTPS,
        }
    }

    /// What ties the request to an instance.
    pub(crate) fn affinity(&self, context: &Context, head: &Parts, route: &str) -> Affinity {
        let sticky = self.service.sticky.as_ref();
        Affinity {
            hash: self.hash(context, head, route),
            stuck: sticky.and_then(|sticky| sticky.find(&head.headers)),
        }
    }

    /// The hash of what the service balances by, if it does and the request has it.
    fn hash(&self, context: &Context, head: &Parts, route: &str) -> Option<u64> {
        let Method::ConsistentHash { by, .. } = &self.service.config.balance.method else {
            return None;
        };
        let key = by.of(context, head, route)?;
        let (low, high) = key.split_at(8);
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
        };
        Some(word(low) ^ word(high))
    }

    /// An instance that was not `tried` yet, or `None` if no usable one is left. A suspect
    /// instance is chosen only when every other one was tried.
    pub(crate) fn pick(&self, tried: &[usize], affinity: Affinity) -> Option<&Rc<Endpoint>> {
        let request = Request {
            service: &self.service,
            endpoints: &self.endpoints,
            random: &self.random,
            in_flight: self.in_flight.get(),
            tried,
            hash: affinity.hash,
            stuck: affinity.stuck,
        };
        let index = self.lineup().pick(&request)?;
        Some(&self.endpoints[index])
    }

    /// Names the instance that has answered to the client, if the service has a cookie and the
    /// client does not know it yet.
    pub(crate) fn stick(
        &self,
        affinity: Affinity,
        answered: &Lease,
        client: &Client,
        headers: &mut HeaderMap,
    ) {
        let index = answered.endpoint().index;
        let tls = client.transport.tls.is_some();
        if let Some(cookie) = self.cookie(affinity, index, tls) {
            headers.append(SET_COOKIE, cookie.clone());
        }
    }

    fn cookie(&self, affinity: Affinity, index: usize, tls: bool) -> Option<&HeaderValue> {
        let sticky = self.service.sticky.as_ref()?;
        match affinity.stuck == Some(index) {
            true => None,
            false => sticky.cookie(index, tls),
        }
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        for endpoint in &self.endpoints {
            endpoint.link.pool.sweep(now);
        }
    }

    /// Closes idle connections whose places other workers wait for.
    pub(crate) fn spare(&self) {
        for endpoint in &self.endpoints {
            endpoint.link.pool.spare(&endpoint.instance);
        }
    }

    /// Closes the idle connections that `next`, which takes this one's place, has not taken over,
    /// and keeps none from now on. `None`: the service is gone.
    pub(crate) fn retire(&self, next: Option<&Self>) {
        let kept: HashMap<*const Link, ()> = next
            .iter()
            .flat_map(|next| &next.endpoints)
            .map(|endpoint| (Rc::as_ptr(&endpoint.link), ()))
            .collect();
        for endpoint in &self.endpoints {
            if !kept.contains_key(&Rc::as_ptr(&endpoint.link)) {
                endpoint.link.pool.retire();
            }
        }
    }

    /// The instances to choose from now.
    fn lineup(&self) -> Ref<'_, Lineup> {
        let lineup = self.lineup.borrow();
        if lineup.is_current(self.service.changes.count()) {
            return lineup;
        }
        let next = Lineup::new(&self.service, Instant::now(), Some(&lineup), self.first);
        drop(lineup);
        self.lineup.replace(next);
        self.lineup.borrow()
    }
}

/// The decay of the times to answer, where they are measured.
fn decay(config: &ServiceConfig) -> Option<std::time::Duration> {
    match config.balance.method {
        Method::PeakEwma { decay } => Some(decay),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
