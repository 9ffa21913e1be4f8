//! Limits of work: of the process, of services, of routes.

use std::sync::Arc;

use super::super::error::Problem;
use super::super::file::{
    self, Concurrency, Named, Overload, Placed, PriorityBy, SenderConcurrency,
};
use super::{Compiler, Filters};
use crate::filter::chain::{Chain, FilterKind};
use crate::filter::in_flight::{self, InFlightLimit};
use crate::filter::key::RequestKey;
use crate::overload::{
    AdaptivePolicy, ClassSource, Gate, Gates, OverloadConfig, Policy, RoutePolicy,
};

/// Requests in flight that may be allowed.
const IN_FLIGHT_MAX: u32 = 1_000_000;
/// Requests that may wait at one gate: each holds its connection and its head.
const QUEUE_MAX: usize = 100_000;
/// Values that `priority_by` may name.
const VALUES_MAX: usize = 1000;

impl Compiler<'_> {
    pub(super) fn overload(&mut self, typed: &Overload) -> OverloadConfig {
        let memory_max = typed.memory_max.as_ref();
        let lag_max = typed.lag_max.as_ref();
        OverloadConfig {
            memory_max: memory_max.map(|size| self.bytes(size, 32 << 20..=1 << 44) as u64),
            lag_max: lag_max.map(|lag| self.positive(lag)),
            descriptors_reserve_percent: self.within(
                &typed.descriptors_reserve_percent,
                0..=90,
                "descriptors_reserve_percent",
            ),
        }
    }

    /// The limits of requests in flight by sender.
    pub(super) fn sender_limits(
        &mut self,
        typed: &Named<SenderConcurrency>,
        filters: &mut Filters,
    ) {
        for (name, limit) in typed {
            let policy = in_flight::Policy {
                name: name.as_str().into(),
                key: self.request_key(&limit.key),
                in_flight_max: self.within(
                    &limit.in_flight_max,
                    1..=IN_FLIGHT_MAX,
                    "in_flight_max",
                ),
            };
            // What is under way goes on being counted.
            let known = self.previous.map(|one| &one.in_flight_limits);
            let mut known = known.into_iter().flatten();
            let same = known.find(|limit| *limit.policy() == policy).cloned();
            let limit = same.unwrap_or_else(|| Arc::new(InFlightLimit::new(policy)));
            filters.in_flight_limits.push(Arc::clone(&limit));
            let filter = FilterKind::InFlight(limit);
            filters.by_name.insert(name.to_string(), filter);
        }
    }

    /// The gate of a service, kept in `gates`.
    pub(super) fn service_gate(
        &mut self,
        name: &Placed<String>,
        typed: &file::Service,
        gates: &mut Gates,
    ) -> Option<Arc<Gate>> {
        let Some(policy) = self.concurrency(typed.concurrency.as_ref()?) else {
            let message = format!("`concurrency` of service `{name}` sets no limit");
            let problem = Problem::at(name.span(), message);
            self.refuse(problem.hint("write `in_flight_max = 100`, or `adaptive = true`"));
            return None;
        };
        let previous = self.previous;
        let known = previous.and_then(|one| one.gates.services.get(name.as_str()));
        let gate = Gate::new(policy, known);
        gates.services.insert(name.to_string(), Arc::clone(&gate));
        Some(gate)
    }

    fn concurrency(&mut self, typed: &Concurrency) -> Option<Policy> {
        let adaptive = self.adaptive(typed);
        let in_flight_max = typed.in_flight_max()?;
        Some(Policy {
            in_flight_max: self.within(&in_flight_max, 1..=IN_FLIGHT_MAX, "in_flight_max"),
            adaptive,
            queue_max: self.within(&typed.queue_max, 0..=QUEUE_MAX, "queue_max"),
            queue_timeout: self.positive(&typed.queue_timeout),
            sheddable_percent: self.within(&typed.sheddable_percent, 1..=100, "sheddable_percent"),
        })
    }

    fn adaptive(&mut self, typed: &Concurrency) -> Option<AdaptivePolicy> {
        if !typed.adaptive {
            let given = [
                typed.in_flight_min.as_ref().map(|one| one.span()),
                typed.in_flight_start.as_ref().map(|one| one.span()),
                typed.latency_tolerance.as_ref().map(|one| one.span()),
                typed.probe_every.as_ref().map(|one| one.span()),
            ];
            for span in given.into_iter().flatten() {
                let problem = Problem::at(span, "this belongs to an adaptive limit only");
                self.refuse(problem.hint("add `adaptive = true`, or leave this out"));
            }
            return None;
        }
        let max = typed.in_flight_max().map_or(IN_FLIGHT_MAX, |max| *max);
        let up_to_max = 1..=max.max(1);
        Some(AdaptivePolicy {
            in_flight_min: self.within(&typed.in_flight_min(), up_to_max.clone(), "in_flight_min"),
            in_flight_start: self.within(&typed.in_flight_start(), up_to_max, "in_flight_start"),
            latency_tolerance: self.within(
                &typed.latency_tolerance(),
                1.0..=10.0,
                "latency_tolerance",
            ),
            probe_every: self.positive(&typed.probe_every()),
        })
    }

    /// What a route says about too much work; its gate is kept in `gates`.
    pub(super) fn route_policy(
        &mut self,
        name: &str,
        typed: &file::Route,
        chain: &Chain,
        gates: &mut Gates,
    ) -> RoutePolicy {
        let by = typed.priority_by.as_ref();
        let gate = typed.in_flight_max.as_ref().map(|max| {
            let max = self.within(max, 1..=IN_FLIGHT_MAX, "in_flight_max");
            let known = self.previous.and_then(|one| one.gates.routes.get(name));
            let gate = Gate::new(Policy::fixed(max), known);
            gates.routes.insert(name.to_owned(), Arc::clone(&gate));
            gate
        });
        RoutePolicy {
            class: typed.priority,
            class_by: by.map(|by| self.class_source(by, chain)),
            gate,
        }
    }

    fn class_source(&mut self, typed: &PriorityBy, chain: &Chain) -> ClassSource {
        let from = self.request_key(&typed.from);
        let span = typed.from.span();
        let needed = match &from {
            RequestKey::Claim(_) => Some("jwt"),
            RequestKey::ApiKey => Some("api-key"),
            RequestKey::Header(_) => None,
            _ => {
                let problem = Problem::at(span.clone(), "nobody vouches for a priority there");
                self.refuse(problem.hint("write `jwt.CLAIM`, `api-key` or `header.NAME`"));
                None
            }
        };
        let missing = needed.filter(|needed| {
            let mut kinds = chain.filters().iter().map(FilterKind::kind);
            !kinds.any(|kind| kind == *needed)
        });
        if let Some(needed) = missing {
            let message = format!("the priority is in `{from}`, but the route asks for none");
            let hint = format!("add an authentication of type `{needed}` to `use`");
            self.refuse(Problem::at(span.clone(), message).hint(hint));
        }
        if typed.values.len() > VALUES_MAX {
            let message = format!("there are more than {VALUES_MAX} values");
            self.refuse(Problem::at(span, message));
        }
        let values = typed.values.iter();
        ClassSource {
            from,
            values: values
                .map(|(value, class)| (value.to_string(), *class))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use crate::config::Config;
    use crate::overload::Class;

    /// A configuration whose overload, service and route say this, too.
    fn parse(overload: &str, service: &str, route: &str) -> Result<Config, crate::config::Error> {
        let text = format!(
            "[overload]\n{overload}\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
             [services.app]\nendpoints = [\"127.0.0.1:1\"]\n{service}\n\
             [auth.keys]\ntype = \"api-key\"\nkeys = {{ ci = \"sha256:{:064}\" }}\n\
             [routes.all]\nmatch = {{}}\nservice = \"app\"\n{route}\n",
            0
        );
        Config::parse(&text, Path::new(""))
    }

    #[test]
    fn what_is_left_out_is_not_limited() {
        let config = parse("", "", "").unwrap();
        assert_eq!(config.overload.memory_max, None);
        assert_eq!(config.overload.lag_max, None);
        assert_eq!(config.overload.descriptors_reserve_percent, 10);
        assert!(config.services[0].gate.is_none());
        let route = config.routes.routes().next().unwrap();
        assert!(route.overload.gate.is_none());
        assert_eq!(route.overload.class, Class::Default);
    }

    #[test]
    fn what_is_given_is_meant() {
        let config = parse(
            "memory_max = \"512MiB\"\nlag_max = \"50ms\"",
            "concurrency = { adaptive = true, queue_max = 7 }",
            "priority = \"critical\"\nin_flight_max = 5\nuse = [\"keys\"]\n\
             priority_by = { from = \"api-key\", values = { ci = \"sheddable\" } }",
        );
        let config = config.unwrap();
        assert_eq!(config.overload.memory_max, Some(512 << 20));
        assert_eq!(config.overload.lag_max, Some(Duration::from_millis(50)));
        let gate = config.services[0].gate.as_ref().unwrap();
        assert!(gate.is_adaptive());
        assert_eq!(gate.reading().limit, 20);
        let route = config.routes.routes().next().unwrap();
        assert_eq!(route.overload.highest_class(), Class::Critical);
        assert_eq!(route.overload.gate.as_ref().unwrap().reading().limit, 5);
        assert_eq!(
            (config.gates.services.len(), config.gates.routes.len()),
            (1, 1)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let table = [
            ("memory_max = \"1MiB\"", "", "", "out of range"),
            ("memory_max = 512", "", "", "no unit"),
            ("lag_max = \"0s\"", "", "", "longer than nothing"),
            ("descriptors_reserve_percent = 91", "", "", "out of range"),
            ("", "concurrency = {}", "", "sets no limit"),
            (
                "",
                "concurrency = { in_flight_max = 0 }",
                "",
                "out of range",
            ),
            (
                "",
                "concurrency = { in_flight_max = 9, probe_every = \"1s\" }",
                "",
                "adaptive limit only",
            ),
            (
                "",
                "concurrency = { adaptive = true, in_flight_max = 9, in_flight_min = 10 }",
                "",
                "`in_flight_min` is 10",
            ),
            (
                "",
                "concurrency = { adaptive = true, latency_tolerance = 0.5 }",
                "",
                "from 1 to 10",
            ),
            ("", "", "in_flight_max = 0", "out of range"),
            (
                "",
                "[concurrency.one]\nin_flight_max = 0\nkey = \"client-ip\"",
                "",
                "out of range",
            ),
            (
                "",
                "[concurrency.one]\nin_flight_max = 1\nkey = \"jwt.sub\"",
                "use = [\"one\"]",
                "counts by `jwt.sub`",
            ),
            (
                "",
                "[concurrency.keys]\nin_flight_max = 1\nkey = \"client-ip\"",
                "",
                "name of an authentication too",
            ),
            ("", "", "priority = \"high\"", "known here: `sheddable`"),
            (
                "",
                "",
                "priority_by = { from = \"client-ip\" }",
                "nobody vouches",
            ),
            (
                "",
                "",
                "priority_by = { from = \"jwt.tier\" }",
                "asks for none",
            ),
            (
                "",
                "",
                "priority_by = { from = \"api-key\" }",
                "asks for none",
            ),
        ];
        for (overload, service, route, expected) in table {
            let error = parse(overload, service, route).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{overload}{service}{route}: {error}"
            );
        }
    }
}
