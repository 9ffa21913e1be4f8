//! The instances of services and how one is chosen.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::error::Problem;
use super::super::file::{self, Endpoint, Failover, Placed, Service};
use super::super::model::{
    Balance, ENDPOINTS_MAX, EndpointConfig, Failover as Failing, Method, SameSite, Sticky,
    StickyKey,
};
use super::Compiler;
use crate::filter::key::RequestKey;

/// Letters of a zone's name at most.
const ZONE_CHARS_MAX: usize = 64;
/// Bytes of the key of a sticky cookie at least.
const STICKY_KEY_BYTES_MIN: usize = 16;

impl Compiler<'_> {
    pub(super) fn endpoints(
        &mut self,
        name: &Placed<String>,
        service: &Service,
    ) -> Vec<EndpointConfig> {
        let Some(listed) = &service.endpoints else {
            if service.discover.is_none() {
                let message = format!("service `{name}` has no endpoints");
                let hint = "add `endpoints = [\"10.0.1.11:8080\"]`, or `discover = { … }`";
                self.refuse(Problem::at(name.span(), message).hint(hint));
            }
            return Vec::new();
        };
        if listed.is_empty() && service.discover.is_none() {
            let problem = Problem::at(listed.span(), "a service needs at least one endpoint");
            self.refuse(problem.hint("write for example endpoints = [\"10.0.1.11:8080\"]"));
        }
        if listed.len() > ENDPOINTS_MAX {
            let message = format!("{} endpoints are too many", listed.len());
            let hint = format!("a service may have {ENDPOINTS_MAX}");
            self.refuse(Problem::at(listed.span(), message).hint(hint));
        }
        let mut seen = BTreeSet::new();
        let mut endpoints = Vec::new();
        for typed in listed.iter() {
            match endpoint(typed) {
                Ok(endpoint) if !seen.insert(endpoint.address) => {
                    let message = format!("endpoint `{}` is listed twice", endpoint.address);
                    self.refuse(Problem::at(typed.span(), message));
                }
                Ok(endpoint) => endpoints.push(endpoint),
                Err(Misread { message, hint }) => {
                    let problem = Problem::at(typed.span(), message);
                    self.refuse(match hint {
                        Some(hint) => problem.hint(hint),
                        None => problem,
                    });
                }
            }
        }
        endpoints
    }

    pub(super) fn balance(&mut self, service: &Service) -> Balance {
        Balance {
            method: self.method(service),
            slow_start: service
                .slow_start
                .as_ref()
                .map(|window| self.positive(window)),
            failover: self.failover(&service.failover),
            sticky: service.sticky.as_ref().map(|sticky| self.sticky(sticky)),
        }
    }

    fn method(&mut self, service: &Service) -> Method {
        let kind = *service.balance;
        let hashes = kind == file::Balance::ConsistentHash;
        let measures = kind == file::Balance::PeakEwma;
        let spans = [
            (
                "hash_by",
                service.hash_by.as_ref().map(Placed::span),
                hashes,
                "consistent-hash",
            ),
            (
                "hash_load_percent_max",
                service.hash_load_percent_max.as_ref().map(Placed::span),
                hashes,
                "consistent-hash",
            ),
            (
                "ewma_decay",
                service.ewma_decay.as_ref().map(Placed::span),
                measures,
                "peak-ewma",
            ),
        ];
        for (key, span, fits, method) in spans {
            if let (Some(span), false) = (span, fits) {
                let message = format!("`{key}` belongs to `{method}` only");
                let hint = format!("write `balance = \"{method}\"`, or leave `{key}` out");
                self.refuse(Problem::at(span, message).hint(hint));
            }
        }
        match kind {
            file::Balance::RoundRobin => Method::RoundRobin,
            file::Balance::LeastRequest => Method::LeastRequest,
            file::Balance::Random => Method::Random,
            file::Balance::PeakEwma => Method::PeakEwma {
                decay: match &service.ewma_decay {
                    Some(decay) => self.positive(decay),
                    None => Service::EWMA_DECAY.0,
                },
            },
            file::Balance::ConsistentHash => self.consistent_hash(service),
        }
    }

    fn consistent_hash(&mut self, service: &Service) -> Method {
        let by = match &service.hash_by {
            Some(by) => self.request_key(by),
            None => {
                self.refuse(
                    Problem::at(service.balance.span(), "`consistent-hash` needs `hash_by`")
                        .hint("add for example `hash_by = \"client-ip\"`"),
                );
                RequestKey::ClientIp
            }
        };
        let percent = service.hash_load_percent_max.as_ref();
        let load_percent_max =
            percent.map(|percent| self.within(percent, 100..=10_000, "hash_load_percent_max"));
        Method::ConsistentHash {
            by,
            load_percent_max,
        }
    }

    fn failover(&mut self, typed: &Failover) -> Failing {
        let more = &typed.overprovisioning_percent;
        let more = self.within(more, 100..=1000, "overprovisioning_percent");
        let panic = self.within(&typed.panic_percent, 0..=100, "panic_percent");
        Failing {
            overprovisioning: f64::from(more) / 100.0,
            panic_below: f64::from(panic) / 100.0,
            zone: self.zone.clone(),
        }
    }

    /// The zone the gateway runs in.
    pub(super) fn own_zone(&mut self, typed: Option<&Placed<String>>) -> Option<Arc<str>> {
        let zone = typed?;
        if !is_zone(zone) {
            let problem = Problem::at(zone.span(), format!("invalid zone `{zone}`"));
            self.refuse(problem.hint(ZONE_HINT));
        }
        Some(zone.as_str().into())
    }

    fn sticky(&mut self, typed: &file::Sticky) -> Sticky {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if typed.cookie.is_empty() || !typed.cookie.chars().all(token) {
            let message = format!("`{}` is no name for a cookie", *typed.cookie);
            let hint = "use letters, digits, `-` and `_`";
            self.refuse(Problem::at(typed.cookie.span(), message).hint(hint));
        }
        let attribute = |c: char| c.is_ascii_graphic() && c != ';' && c != ',';
        if !typed.path.starts_with('/') || !typed.path.chars().all(attribute) {
            let message = format!("`{}` is no path for a cookie", *typed.path);
            let hint = "write a path such as \"/\"";
            self.refuse(Problem::at(typed.path.span(), message).hint(hint));
        }
        if let Some(domain) = &typed.domain
            && (domain.is_empty() || !domain.chars().all(attribute))
        {
            let message = format!("`{domain}` is no domain for a cookie");
            let hint = "write a name such as \"example.com\"";
            self.refuse(Problem::at(domain.span(), message).hint(hint));
        }
        let secure = typed.secure.as_ref();
        if typed.same_site == file::SameSite::None && !secure.is_some_and(|secure| **secure) {
            let span = secure.map_or_else(|| typed.cookie.span(), Placed::span);
            let message = "browsers refuse `same_site = \"none\"` without `secure = true`";
            self.refuse(Problem::at(span, message));
        }
        Sticky {
            cookie: typed.cookie.as_str().into(),
            path: typed.path.as_str().into(),
            domain: typed.domain.as_ref().map(|domain| domain.as_str().into()),
            max_age: typed.max_age.as_ref().map(|age| self.positive(age)),
            same_site: match typed.same_site {
                file::SameSite::Strict => SameSite::Strict,
                file::SameSite::Lax => SameSite::Lax,
                file::SameSite::None => SameSite::None,
            },
            secure: secure.map(|secure| **secure),
            http_only: typed.http_only,
            key: typed.key.as_ref().and_then(|key| self.sticky_key(key)),
        }
    }

    fn sticky_key(&mut self, typed: &Placed<file::Source>) -> Option<StickyKey> {
        let text = self.source(typed)?;
        let bytes = text.trim_end_matches(['\r', '\n']).as_bytes();
        if bytes.len() < STICKY_KEY_BYTES_MIN {
            let message = "the key of the cookie is too short";
            let hint = format!(
                "take at least {STICKY_KEY_BYTES_MIN} bytes, such as from `openssl rand -hex 32`"
            );
            self.refuse(Problem::at(typed.span(), message).hint(hint));
        }
        Some(StickyKey(bytes.into()))
    }
}

const ZONE_HINT: &str = "use 1 to 64 letters, digits, `-`, `_` and `.`";

/// Why an endpoint cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Misread {
    message: String,
    hint: Option<&'static str>,
}

/// Reads one endpoint; shared with what discovers them.
pub(crate) fn endpoint(typed: &Endpoint) -> Result<EndpointConfig, Misread> {
    let misread = |message: String, hint| Misread { message, hint };
    let Ok(address) = typed.address.parse::<SocketAddr>() else {
        let message = format!("`{}` is no address with port", typed.address);
        let hint = "write an IP address and a port, as in \"10.0.1.11:8080\" or \"[::1]:8080\"";
        return Err(misread(message, Some(hint)));
    };
    if address.port() == 0 {
        return Err(misread("nothing can be reached at port 0".to_owned(), None));
    }
    if address.ip().is_unspecified() {
        let message = format!("`{}` is no address to connect to", address.ip());
        return Err(misread(message, None));
    }
    let number = |name: &str, number: u64| {
        let hint = Some("choose a number from 0 to 65535");
        let message = format!("`{name}` is {number}, which is out of range");
        u16::try_from(number).map_err(|_| misread(message, hint))
    };
    let zone = match &typed.zone {
        Some(zone) if !is_zone(zone) => {
            return Err(misread(format!("invalid zone `{zone}`"), Some(ZONE_HINT)));
        }
        zone => zone.as_deref().map(Arc::from),
    };
    Ok(EndpointConfig {
        address,
        weight: number("weight", typed.weight)?,
        priority: number("priority", typed.priority)?,
        zone,
    })
}

fn is_zone(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=ZONE_CHARS_MAX).contains(&text.len()) && text.chars().all(fits)
}
