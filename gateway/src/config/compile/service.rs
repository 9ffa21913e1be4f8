//! Services: endpoints, balancing, health checks.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::uri::PathAndQuery;

use super::super::error::Problem;
use super::super::file::{self, Health, Named, Placed, Protocol, Service};
use super::super::model::{Balance, HealthConfig, ServiceConfig, UpstreamProtocol};
use super::Compiler;
use crate::filter::key::RequestKey;

impl Compiler<'_> {
    pub(super) fn services(&mut self, typed: &Named<Service>) -> Vec<ServiceConfig> {
        typed
            .iter()
            .map(|(name, service)| self.service(name, service))
            .collect()
    }

    fn service(&mut self, name: &str, service: &Service) -> ServiceConfig {
        ServiceConfig {
            name: name.to_owned(),
            endpoints: self.endpoints(&service.endpoints),
            balance: self.balance(service),
            health: service.health.as_ref().map(|health| self.health(health)),
            connect_timeout: self.positive(&service.connect_timeout),
            idle_timeout: self.positive(&service.idle_timeout),
            connections_max: self.within(&service.connections_max, 1..=65_535, "connections_max"),
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

    fn health(&mut self, health: &Health) -> HealthConfig {
        if !health.path.starts_with('/') || PathAndQuery::try_from(health.path.as_str()).is_err() {
            self.refuse(
                Problem::at(health.path.span(), format!("`{}` is no path", *health.path))
                    .hint("write a path such as \"/healthz\""),
            );
        }
        if *health.timeout > *health.every {
            self.refuse(
                Problem::at(health.timeout.span(), "a check would outlast the next one").hint(
                    format!("choose a `timeout` of at most `every`, {}", *health.every),
                ),
            );
        }
        HealthConfig {
            path: (*health.path).clone(),
            every: self.positive(&health.every),
            timeout: self.positive(&health.timeout),
            rise: self.within(&health.rise, 1..=100, "rise"),
            fall: self.within(&health.fall, 1..=100, "fall"),
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
