//! `weir-gateway check`: reads the configuration, key sets and certificates included, and says
//! what it means. Binds nothing and connects to nothing.

use std::fmt::Write;
use std::path::Path;

use super::{Failure, output};
use crate::config::{self, Config};

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let config = config::load(path)?;
    output::text(&summary(&path.display().to_string(), &config))
}

fn summary(file: &str, config: &Config) -> String {
    let mut text = format!("{file} is valid\n\n");
    for listener in &config.listeners {
        let spoken = if listener.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let _ = writeln!(
            text,
            "listener {}: {spoken} on {}",
            listener.name, listener.bind
        );
    }
    for service in &config.services {
        let endpoints: Vec<String> = service.endpoints.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "service {}: {}", service.name, endpoints.join(", "));
    }
    let _ = writeln!(text, "\nroutes, the most specific first:");
    for rule in config.routes.rules() {
        let methods: Vec<&str> = rule.methods.iter().map(http::Method::as_str).collect();
        let methods = if methods.is_empty() {
            "any method".to_owned()
        } else {
            methods.join(", ")
        };
        let service = &config.services[rule.route.service].name;
        let host = &rule.host;
        let path = &rule.path;
        let _ = write!(text, "  {}: {host} {path}, {methods}", rule.route.name);
        for header in &rule.headers {
            let _ = write!(text, ", {} {}", header.name, header.wanted);
        }
        for filter in rule.route.chain.filters() {
            let _ = write!(text, " > {}", filter.name());
        }
        let _ = writeln!(text, " > {service}");
    }
    text
}
