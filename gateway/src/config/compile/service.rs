//! Services: endpoints, balancing, health checks.

use std::sync::Arc;

use super::super::error::Problem;
use super::super::file::{Named, Placed, Protocol, Service};
use super::super::model::{ServiceConfig, UpstreamProtocol};
use super::Compiler;
use crate::filter::key::RequestKey;
use crate::overload::Gates;

impl Compiler<'_> {
    pub(super) fn services(
        &mut self,
        typed: &Named<Service>,
        gates: &mut Gates,
    ) -> Vec<Arc<ServiceConfig>> {
        typed
            .iter()
            .map(|(name, service)| Arc::new(self.service(name, service, gates)))
            .collect()
    }

    fn service(
        &mut self,
        name: &Placed<String>,
        service: &Service,
        gates: &mut Gates,
    ) -> ServiceConfig {
        let tls = self.service_tls(name, service);
        ServiceConfig {
            name: name.to_string(),
            gate: self.service_gate(name, service, gates),
            endpoints: self.endpoints(name, service),
            discover: service
                .discover
                .as_ref()
                .and_then(|discover| self.discover(name, discover)),
            balance: self.balance(service),
            health: service
                .health
                .as_ref()
                .map(|health| self.health(name, health, tls.as_ref())),
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
            tls,
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
