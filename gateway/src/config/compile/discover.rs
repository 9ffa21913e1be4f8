//! Where the instances of services are found.

use std::net::SocketAddr;

use super::super::error::Problem;
use super::super::file::{Discover, Placed};
use super::super::model::{DiscoverConfig, DiscoverSource};
use super::Compiler;

/// Letters of a DNS name at most (RFC 1035 section 2.3.4).
const NAME_CHARS_MAX: usize = 253;

impl Compiler<'_> {
    pub(super) fn discover(
        &mut self,
        service: &Placed<String>,
        typed: &Discover,
    ) -> Option<DiscoverConfig> {
        let servers: Vec<SocketAddr> = typed.servers.iter().map(|one| self.address(one)).collect();
        let source = match (&typed.dns, &typed.srv, &typed.file) {
            (Some(dns), None, None) => self.dns(dns, servers),
            (None, Some(name), None) => self
                .name(name, name)
                .map(|name| DiscoverSource::Srv { name, servers }),
            (None, None, Some(file)) => {
                if let Some(server) = typed.servers.first() {
                    let problem = Problem::at(server.span(), "a file needs no name servers");
                    self.refuse(problem.hint("leave `servers` out"));
                }
                Some(DiscoverSource::File(self.path(file)))
            }
            (dns, srv, file) => {
                let given = [dns, srv, file].into_iter().flatten().next();
                let span = given.map_or_else(|| service.span(), Placed::span);
                let message = "`discover` wants one of `dns`, `srv` and `file`";
                let hint = "write for example discover = { dns = \"orders.internal:8080\" }";
                self.refuse(Problem::at(span, message).hint(hint));
                None
            }
        };
        if *typed.refresh_min > *typed.refresh_max {
            let message = "`refresh_min` is longer than `refresh_max`";
            self.refuse(Problem::at(typed.refresh_min.span(), message));
        }
        Some(DiscoverConfig {
            source: source?,
            refresh_min: self.positive(&typed.refresh_min),
            refresh_max: self.positive(&typed.refresh_max),
            hold: typed.hold.0,
        })
    }

    fn dns(&mut self, typed: &Placed<String>, servers: Vec<SocketAddr>) -> Option<DiscoverSource> {
        let parts = typed.rsplit_once(':');
        let parts = parts.and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
        let Some((name, port)) = parts.filter(|(_, port)| *port > 0) else {
            let message = format!("`{typed}` is no name with port");
            let hint = "write for example \"orders.internal:8080\"";
            self.refuse(Problem::at(typed.span(), message).hint(hint));
            return None;
        };
        let name = self.name(typed, name)?;
        Some(DiscoverSource::Dns {
            name,
            port,
            servers,
        })
    }

    fn name(&mut self, typed: &Placed<String>, name: &str) -> Option<String> {
        let fits = |label: &str| {
            let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            (1..=63).contains(&label.len()) && label.chars().all(letters)
        };
        let whole = name.strip_suffix('.').unwrap_or(name);
        if whole.len() > NAME_CHARS_MAX || !whole.split('.').all(fits) {
            let message = format!("`{name}` is no DNS name");
            self.refuse(Problem::at(typed.span(), message));
            return None;
        }
        Some(name.to_owned())
    }
}
