//! Routes: what they do, their filters, and the table they make.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::error::Problem;
use super::super::file::{self, File, Named, Placed};
use super::Compiler;
use super::predicates::Matching;
use crate::filter::chain::{Chain, FilterKind};
use crate::filter::key::RequestKey;
use crate::forward::hedge::Hedge;
use crate::overload::Gates;
use crate::route::action::{Action, Split};
use crate::route::predicate::Rule;
use crate::route::{Route, Table};

/// Routes at most.
const ROUTES_MAX: usize = 100_000;

impl Compiler<'_> {
    pub(super) fn routes(
        &mut self,
        file: &File,
        filters: &BTreeMap<String, FilterKind>,
        gates: &mut Gates,
    ) -> Table {
        let typed = &file.routes;
        if typed.len() > ROUTES_MAX {
            self.refuse(Problem::whole(format!(
                "there are more than {ROUTES_MAX} routes"
            )));
        }
        let places = file.services.keys().enumerate();
        let places: HashMap<&str, usize> = places.map(|(at, name)| (name.as_str(), at)).collect();
        let mut rules = Vec::with_capacity(typed.len());
        let mut series_at = 0;
        for (name, route) in typed {
            let service = self.service_index(&route.service, &places);
            let chain = self.chain(name, route, filters);
            let overload = self.route_policy(name, route, &chain, gates);
            let meant = Route {
                name: name.as_str().into(),
                action: Action::Forward(Split::to(service)),
                series_at,
                chain,
                overload,
                timeout: self.positive(&route.timeout),
                body_bytes_max: route.body_bytes_max.as_ref().map(|size| size.0),
                retry: self.retry(&route.retry),
                hedge: route
                    .hedge
                    .as_ref()
                    .map(|hedge| self.hedge(hedge))
                    .map(|hedge| Box::new(Hedge::new(hedge))),
            };
            series_at += meant.counted_by().count();
            let matching = self.matching(&route.predicates, &file.listeners);
            rules.extend(matching.map(|matching| matching.rule(meant)));
        }
        let table = Table::new(rules);
        for (first, second) in table.collisions() {
            self.collision(typed, &first, &second);
        }
        table
    }

    fn collision(&mut self, typed: &Named<file::Route>, first: &str, second: &str) {
        if let Some((name, _)) = typed.get_key_value(second) {
            let message = format!("routes `{first}` and `{second}` match the same requests");
            let hint = "give one of them another path, method or header";
            self.refuse(Problem::at(name.span(), message).hint(hint));
        }
    }

    fn service_index(&mut self, name: &Placed<String>, places: &HashMap<&str, usize>) -> usize {
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
            let needed = match key {
                RequestKey::Claim(_) => "jwt",
                RequestKey::ApiKey => "api-key",
                _ => continue,
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
