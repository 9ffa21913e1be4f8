//! Active health checks.

use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};

use super::super::error::Problem;
use super::super::file::{Health, HealthKind, Placed};
use super::super::model::{Check, HealthConfig, ServiceTls};
use super::Compiler;

/// Bytes of the text a check looks for in an answer.
const BODY_BYTES_MAX: usize = 1024;

impl Compiler<'_> {
    pub(super) fn health(
        &mut self,
        service: &str,
        health: &Health,
        tls: Option<&Arc<ServiceTls>>,
    ) -> HealthConfig {
        if *health.timeout > *health.every {
            self.refuse(
                Problem::at(health.timeout.span(), "a check would outlast the next one").hint(
                    format!("choose a `timeout` of at most `every`, {}", *health.every),
                ),
            );
        }
        let port = health.port.as_ref();
        let tls = self.check_tls(health, tls);
        let mut check = self.check(service, health);
        if let (Check::Http { host, .. } | Check::Grpc { host, .. }, Some(tls)) = (&mut check, &tls)
            && host.is_none()
        {
            // A server of several names wants to hear the one its certificate was asked for.
            *host = tls.host().map(ToOwned::to_owned);
        }
        HealthConfig {
            check,
            tls,
            port: port.map(|port| self.within(port, 1..=65_535, "port")),
            every: self.positive(&health.every),
            every_unhealthy: self.positive(&health.every_unhealthy()),
            jitter_percent: self.within(&health.jitter_percent, 0..=50, "jitter_percent"),
            timeout: self.positive(&health.timeout),
            rise: self.within(&health.rise, 1..=100, "rise"),
            fall: self.within(&health.fall, 1..=100, "fall"),
        }
    }

    fn check_tls(
        &mut self,
        health: &Health,
        of_service: Option<&Arc<ServiceTls>>,
    ) -> Option<Arc<ServiceTls>> {
        let wanted = health.tls.as_ref();
        if let Some(typed) = wanted.filter(|typed| ***typed && of_service.is_none()) {
            let message = "the service has no `tls` that its check could go by";
            let hint = "add `[services.NAME.tls]`, or leave `tls` out here";
            self.refuse(Problem::at(typed.span(), message).hint(hint));
        }
        of_service
            .filter(|_| wanted.is_none_or(|typed| **typed))
            .cloned()
    }

    fn check(&mut self, service: &str, health: &Health) -> Check {
        self.only_its_own_keys(health);
        match health.kind {
            HealthKind::Tcp => Check::Tcp,
            HealthKind::Grpc => Check::Grpc {
                service: health
                    .service
                    .as_ref()
                    .map(|name| (**name).clone())
                    .unwrap_or_default(),
                host: self.authority(health.host.as_ref()),
            },
            HealthKind::Http => Check::Http {
                path: self.check_path(service, health.path.as_ref()),
                host: self.authority(health.host.as_ref()),
                statuses: self.check_statuses(health),
                body: health.body.as_ref().map(|text| self.check_body(text)),
            },
        }
    }

    /// A key of another type of check would silently do nothing.
    fn only_its_own_keys(&mut self, health: &Health) {
        use HealthKind::{Grpc, Http};
        let keys: [(&str, Option<_>, &[HealthKind]); 5] = [
            ("path", health.path.as_ref().map(Placed::span), &[Http]),
            (
                "host",
                health.host.as_ref().map(Placed::span),
                &[Http, Grpc],
            ),
            (
                "statuses",
                health.statuses.as_ref().map(Placed::span),
                &[Http],
            ),
            ("body", health.body.as_ref().map(Placed::span), &[Http]),
            (
                "service",
                health.service.as_ref().map(Placed::span),
                &[Grpc],
            ),
        ];
        for (key, span, kinds) in keys {
            if let Some(span) = span.filter(|_| !kinds.contains(&health.kind)) {
                let message = format!("`{key}` does not belong to this type of check");
                self.refuse(
                    Problem::at(span, message).hint("leave it out, or choose another `type`"),
                );
            }
        }
    }

    fn check_path(&mut self, service: &str, path: Option<&Placed<String>>) -> String {
        let Some(path) = path else {
            self.refuse(
                Problem::whole(format!(
                    "the health check of service `{service}` has no `path`"
                ))
                .hint("add for example `path = \"/healthz\"`, or write `type = \"tcp\"`"),
            );
            return "/".to_owned();
        };
        if !path.starts_with('/') || PathAndQuery::try_from(path.as_str()).is_err() {
            self.refuse(
                Problem::at(path.span(), format!("`{}` is no path", **path))
                    .hint("write a path such as \"/healthz\""),
            );
        }
        (**path).clone()
    }

    fn check_statuses(&mut self, health: &Health) -> Vec<std::ops::RangeInclusive<u16>> {
        if let Some(typed) = health.statuses.as_ref().filter(|typed| typed.is_empty()) {
            self.refuse(
                Problem::at(typed.span(), "no status counts as healthy")
                    .hint("write for example `statuses = [200, \"300-399\"]`"),
            );
        }
        let statuses = health.statuses();
        statuses
            .iter()
            .map(|range| range.first..=range.last)
            .collect()
    }

    fn check_body(&mut self, text: &Placed<String>) -> String {
        if text.is_empty() || text.len() > BODY_BYTES_MAX {
            let message = format!("the text to look for is {} bytes long", text.len());
            let hint = format!("write 1 to {BODY_BYTES_MAX} bytes");
            self.refuse(Problem::at(text.span(), message).hint(hint));
        }
        (**text).clone()
    }

    fn authority(&mut self, host: Option<&Placed<String>>) -> Option<String> {
        let host = host?;
        if Authority::try_from(host.as_str()).is_err() || host.contains('@') {
            self.refuse(
                Problem::at(host.span(), format!("`{}` is no host", **host))
                    .hint("write a name, with a port if need be"),
            );
        }
        Some((**host).clone())
    }
}
