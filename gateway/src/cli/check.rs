//! `weir-gateway check`: reads the configuration, key sets and certificates included, and says
//! what it means. Binds nothing and connects to nothing.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use super::{Failure, output};
use crate::config::file::Route;
use crate::config::{self, Config, File};
use crate::route::action::Action;
use crate::route::split::Target;

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (file, config) = config::read(path)?;
    for unused in unused(&file) {
        output::talk(&format!("warning: {unused} is used by no route"));
    }
    output::text(&summary(&path.display().to_string(), &config))
}

/// What stands in the file to no effect, most likely by oversight.
fn unused(file: &File) -> Vec<String> {
    let routes = || file.routes.values();
    let filters: BTreeSet<&str> = routes()
        .flat_map(|route| &route.filters)
        .map(|name| name.as_str())
        .collect();
    let services: BTreeSet<&str> = routes().flat_map(services).collect();
    let services = file
        .services
        .keys()
        .filter(|name| !services.contains(name.as_str()));
    let auth = file
        .auth
        .keys()
        .filter(|name| !filters.contains(name.as_str()));
    let limits = file
        .limits
        .keys()
        .filter(|name| !filters.contains(name.as_str()));
    services
        .map(|name| format!("service `{name}`"))
        .chain(auth.map(|name| format!("authentication `{name}`")))
        .chain(limits.map(|name| format!("limit `{name}`")))
        .collect()
}

/// The services a route sends requests or copies to.
fn services(route: &Route) -> impl Iterator<Item = &str> {
    let split = route.split.keys().map(|name| name.as_str());
    let mirrors = route.mirror.iter().map(|mirror| mirror.service.as_str());
    let service = route.service.iter().map(|name| name.as_str());
    service.chain(split).chain(mirrors)
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
        let endpoints: Vec<String> = service.shown();
        let _ = writeln!(text, "service {}: {}", service.name, endpoints.join(", "));
    }
    let heading = match config.routes.rules() {
        [] => "no routes: every request gets 404",
        _ => "routes, the most specific first:",
    };
    let _ = writeln!(text, "\n{heading}");
    for rule in config.routes.rules() {
        let methods: Vec<&str> = rule.methods.iter().map(http::Method::as_str).collect();
        let methods = if methods.is_empty() {
            "any method".to_owned()
        } else {
            methods.join(", ")
        };
        let host = &rule.host;
        let path = &rule.path;
        let _ = write!(text, "  {}: {host} {path}, {methods}", rule.route.name);
        if !rule.conditions.is_empty() {
            let _ = write!(text, ", {}", rule.conditions);
        }
        if !rule.listeners.is_empty() {
            let _ = write!(text, ", on {}", rule.listeners.join(", "));
        }
        for filter in rule.route.chain.filters() {
            let _ = write!(text, " > {}", filter.name());
        }
        let _ = writeln!(text, " > {}", does(config, &rule.route.action));
    }
    text
}

/// What a route does, in a word or two.
fn does(config: &Config, action: &Action) -> String {
    match action {
        Action::Forward(forwarding) => {
            let split = &forwarding.split;
            let name = |target: &Target| config.services[target.service].name.as_str();
            match split.targets() {
                [target] => name(target).to_owned(),
                targets => {
                    let share = |one| format!("{} ({}%)", name(one), split.percent(one));
                    targets.iter().map(share).collect::<Vec<_>>().join(" or ")
                }
            }
        }
        Action::Redirect(redirect) => format!("redirect {redirect}"),
        Action::Respond(respond) => format!("respond {}", respond.status.as_u16()),
    }
}
