//! Services: endpoints, balancing, health checks.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::super::error::Problem;
use super::super::file::{self, Named, Placed, Protocol, Service};
use super::super::model::{Balance, ServiceConfig, UpstreamProtocol};
use super::Compiler;
use crate::filter::key::RequestKey;
use crate::overload::Gates;

impl Compiler<'_> {
    pub(super) fn services(
        &mut self,
        typed: &Named<Service>,
        gates: &mut Gates,
    ) -> Vec<ServiceConfig> {
        typed
            .iter()
            .map(|(name, service)| self.service(name, service, gates))
            .collect()
    }

    fn service(
        &mut self,
        name: &Placed<String>,
        service: &Service,
        gates: &mut Gates,
    ) -> ServiceConfig {
        ServiceConfig {
            name: name.to_string(),
            gate: self.service_gate(name, service, gates),
            endpoints: self.endpoints(&service.endpoints),
            balance: self.balance(service),
            health: service
                .health
                .as_ref()
                .map(|health| self.health(name, health)),
            connect_timeout: self.positive(&service.connect_timeout),
            idle_timeout: self.positive(&service.idle_timeout),
            connections_max: self.within(&service.connections_max, 1..=65_535, "connections_max"),
            requests_max: self.requests_max(service),
            waiting_max: self.within(&service.waiting_max, 0..=1_000_000, "waiting_max"),
            waiting_timeout: self.positive(&service.waiting_timeout),
            outlier: service.outlier.as_ref().map(|typed| self.outlier(typed)),
            breaker: service.breaker.as_ref().map(|typed| self.breaker(typed)),
            retry_budget: self.retry_budget(&service.retry_budget),
            protocol: match service.protocol {
                Protocol::Http1 => UpstreamProtocol::Http1,
                Protocol::Http2 => UpstreamProtocol::Http2,
            },
        }
    }

    fn endpoints(&mut self, texts: &Placed<Vec<Placed<String>>>) -> Vec<SocketAddr> {
        if texts.is_empty() {
            self.refuse(
                Problem::at(texts.span(), "a service needs at least one endpoint")
                    .hint("write for example endpoints = [\"10.0.1.11:8080\"]"),
            );
        }
        let mut seen = BTreeSet::new();
        let mut endpoints = Vec::new();
        for text in texts.iter() {
            let address = self.address(text);
            if address.port() == 0 && text.ends_with(":0") {
                self.refuse(Problem::at(text.span(), "nothing can be reached at port 0"));
            }
            if !seen.insert(address) {
                let message = format!("endpoint `{address}` is listed twice");
                self.refuse(Problem::at(text.span(), message));
            }
            endpoints.push(address);
        }
        endpoints
    }

    fn balance(&mut self, service: &Service) -> Balance {
        match (*service.balance, &service.hash_by) {
            (file::Balance::ConsistentHash, Some(by)) => Balance::ConsistentHash {
                by: self.request_key(by),
            },
            (file::Balance::ConsistentHash, None) => {
                self.refuse(
                    Problem::at(service.balance.span(), "`consistent-hash` needs `hash_by`")
                        .hint("add for example `hash_by = \"client-ip\"`"),
                );
                Balance::RoundRobin
            }
            (_, Some(by)) => {
                self.refuse(
                    Problem::at(by.span(), "`hash_by` belongs to `consistent-hash` only")
                        .hint("write `balance = \"consistent-hash\"`, or leave `hash_by` out"),
                );
                Balance::RoundRobin
            }
            (file::Balance::RoundRobin, None) => Balance::RoundRobin,
            (file::Balance::LeastRequest, None) => Balance::LeastRequest,
        }
    }

    /// What tells senders apart, for hashing and limits.
    pub(super) fn request_key(&mut self, text: &Placed<String>) -> RequestKey {
        text.parse().unwrap_or_else(|_| {
            self.refuse(
                Problem::at(text.span(), format!("`{text}` is no part of a request"))
                    .hint(format!("write {}", RequestKey::FORMS)),
            );
            RequestKey::ClientIp
        })
    }
}
