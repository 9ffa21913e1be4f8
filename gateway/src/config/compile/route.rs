//! Routes: what they do, their filters, and the table they make.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::error::Problem;
use super::super::file::{self, File, Named, Placed};
use super::super::model::{BodyRate, ServiceConfig};
use super::Compiler;
use super::predicates::Matching;
use crate::filter::chain::{Chain, FilterKind};
use crate::forward::hedge::Hedge;
use crate::overload::Gates;
use crate::route::predicate::{PathRule, Rule};
use crate::route::{Route, Table};

/// Routes at most.
const ROUTES_MAX: usize = 100_000;

/// Services by name: their indices.
pub(super) type Places<'f> = HashMap<&'f str, usize>;

/// What routes are compiled with.
pub(super) struct Around<'f> {
    pub(super) file: &'f File,
    pub(super) filters: &'f BTreeMap<String, FilterKind>,
    pub(super) services: &'f [Arc<ServiceConfig>],
    /// Of routes that ask for no other.
    pub(super) body_rate: Option<BodyRate>,
}

/// What the parts of a route need to know of it and of the file.
pub(super) struct Scope<'s> {
    pub(super) places: &'s Places<'s>,
    /// The kinds of authentication it uses.
    pub(super) authentications: Vec<&'static str>,
    /// The parameters of its path; `None`: the path is wrong.
    pub(super) parameters: Option<Vec<&'s str>>,
    /// The name of the rest its path ends in.
    pub(super) rest: Option<&'s str>,
}

impl Compiler<'_> {
    pub(super) fn routes(&mut self, around: &Around<'_>, gates: &mut Gates) -> (Arc<Table>, usize) {
        let Around {
            file,
            filters,
            body_rate,
            ..
        } = *around;
        let typed = &file.routes;
        let mut taken_over = self.taken_over(around, gates);
        if let Some(all) = taken_over.all(file) {
            return all;
        }
        if typed.len() + self.kept.len() > ROUTES_MAX {
            self.refuse(Problem::whole(format!(
                "there are more than {ROUTES_MAX} routes"
            )));
        }
        let places = file.services.keys().enumerate();
        let places: Places<'_> = places.map(|(at, name)| (name.as_str(), at)).collect();
        let mut rules = std::mem::take(&mut taken_over.rules);
        for (name, route) in typed {
            let sources_read = self.sources_read;
            let chain = self.chain(name, route, filters);
            let overload = self.route_policy(name, route, &chain, gates);
            let matching = self.matching(&route.predicates, &file.listeners);
            let scope = scope(&places, &chain, matching.as_ref());
            let methods = matching.as_ref().map_or(&[][..], |one| &one.methods);
            let cors = route.cors.as_ref();
            let mut meant = Route {
                name: name.as_str().into(),
                action: self.action(name, route, &scope),
                response_headers: self.header_changes(&route.response_headers, &scope),
                cors: cors.map(|cors| Box::new(self.cors(cors, methods))),
                series_at: 0,
                chain,
                overload,
                timeout: self.positive(&route.timeout),
                body_bytes_max: route.body_bytes_max.as_ref().map(|size| size.0),
                body_rate: match &route.body_rate_min {
                    Some(rate) => self.body_rate(&file.server, rate),
                    None => body_rate,
                },
                retry: self.retry(&route.retry),
                hedge: route
                    .hedge
                    .as_ref()
                    .map(|hedge| self.hedge(hedge))
                    .map(|hedge| Box::new(Hedge::new(hedge))),
            };
            meant.series_at = taken_over.series_of(&meant);
            if self.sources_read > sources_read {
                self.made_from_files.insert(name.as_str().into());
            }
            rules.extend(matching.map(|matching| matching.rule(meant)));
        }
        let table = Table::new(rules);
        for (first, second) in table.collisions() {
            self.collision(typed, &first, &second);
        }
        (Arc::new(table), taken_over.series)
    }

    fn collision(&mut self, typed: &Named<file::Route>, first: &str, second: &str) {
        let message = format!("routes `{first}` and `{second}` match the same requests");
        let hint = "give one of them another path, method or header";
        let problem = match typed.get_key_value(second) {
            Some((name, _)) => Problem::at(name.span(), message),
            None => Problem::whole(message),
        };
        self.refuse(problem.hint(hint));
    }

    pub(super) fn service_index(&mut self, name: &Placed<String>, places: &Places<'_>) -> usize {
        places.get(name.as_str()).copied().unwrap_or_else(|| {
            let mut known: Vec<&str> = places.keys().copied().collect();
            known.sort_unstable();
            let problem = Problem::at(name.span(), format!("unknown service `{name}`"));
            let problem = match known.is_empty() {
                true => problem.hint(format!("add `[services.{name}]`")),
                false => problem.nearest(name, known),
            };
            self.refuse(problem);
            0
        })
    }

    fn chain(
        &mut self,
        name: &Placed<String>,
        route: &file::Route,
        filters: &BTreeMap<String, FilterKind>,
    ) -> Chain {
        let mut used: Vec<(&Placed<String>, FilterKind)> = Vec::new();
        for wanted in &route.filters {
            let Some(filter) = filters.get(wanted.as_str()) else {
                let message = format!("unknown authentication or limit `{wanted}`");
                let known = filters.keys().map(String::as_str);
                self.refuse(Problem::at(wanted.span(), message).nearest(wanted, known));
                continue;
            };
            if used.iter().any(|(other, _)| ***other == ***wanted) {
                self.refuse(Problem::at(
                    wanted.span(),
                    format!("`{wanted}` is used twice"),
                ));
            }
            used.push((wanted, filter.clone()));
        }
        self.one_of_each_authentication(&used);
        self.keys_available(&used);
        Chain::new(
            name.as_str().into(),
            used.into_iter().map(|(_, filter)| filter).collect(),
        )
    }

    /// All filters of a route must accept, and a request has one token and one key.
    fn one_of_each_authentication(&mut self, used: &[(&Placed<String>, FilterKind)]) {
        for kind in ["jwt", "api-key"] {
            let mut same = used.iter().filter(|(_, filter)| filter.kind() == kind);
            if let (Some((first, _)), Some((second, _))) = (same.next(), same.next())
                && ***first != ***second
            {
                let message = format!("a route uses one authentication of type `{kind}` only");
                let hint = format!("all in `use` must accept: keep `{first}` or `{second}`");
                self.refuse(Problem::at(second.span(), message).hint(hint));
            }
        }
    }

    /// A limit that counts by identity needs the authentication that finds it out.
    fn keys_available(&mut self, used: &[(&Placed<String>, FilterKind)]) {
        for (name, filter) in used {
            let key = match filter {
                FilterKind::RateLimit(limit) => &limit.policy().key,
                FilterKind::InFlight(limit) => &limit.policy().key,
                FilterKind::ApiKey(_) | FilterKind::Jwt(_) => continue,
            };
            let Some(needed) = key.authentication() else {
                continue;
            };
            if !used.iter().any(|(_, other)| other.kind() == needed) {
                let message = format!(
                    "limit `{name}` counts by `{key}`, but the route does not ask for one",
                );
                let hint = format!("add an authentication of type `{needed}` to `use`");
                self.refuse(Problem::at(name.span(), message).hint(hint));
            }
        }
    }
}

fn scope<'s>(places: &'s Places<'s>, chain: &Chain, matching: Option<&'s Matching>) -> Scope<'s> {
    Scope {
        places,
        authentications: chain.filters().iter().map(FilterKind::kind).collect(),
        parameters: matching.map(|matching| matching.path.names()),
        rest: matching.and_then(|matching| match &matching.path {
            PathRule::Pattern(pattern) => pattern.rest(),
            PathRule::Expression(_) => None,
        }),
    }
}

impl Matching {
    fn rule(self, route: Route) -> Rule {
        Rule {
            route: Arc::new(route),
            listeners: self.listeners,
            host: self.host,
            path: self.path,
            methods: self.methods,
            conditions: self.conditions,
        }
    }
}
