//! The parts of the page that follow from the configuration.

use std::time::Instant;

use super::counter::Counter;
use super::series::{Configured, DURATION_BOUNDS_US, RouteMetrics, RouteSeries, STATUS_CLASSES};
use super::text::Page;
use crate::upstream::availability::{Availability, Bar};

fn sum(route: &RouteMetrics, value: impl Fn(&RouteSeries) -> &Counter) -> u64 {
    route
        .workers
        .iter()
        .map(|series| value(series).read())
        .sum()
}

/// Requests by route, service, instance and status class.
pub(super) fn requests<'m>(page: &mut Page, routes: impl Iterator<Item = &'m RouteMetrics>) {
    let name = "weir_gateway_requests_total";
    page.head(
        name,
        "counter",
        "Requests by route, service, instance and status class.",
    );
    for route in routes {
        for instance in 0..=route.instances.len() {
            for class in 0..STATUS_CLASSES {
                let total = sum(route, |series| &series.requests[instance][class]);
                if total == 0 {
                    continue;
                }
                let labels = [
                    ("route", route.route.as_str()),
                    ("service", &route.service),
                    (
                        "instance",
                        route.instances.get(instance).map_or("", String::as_str),
                    ),
                    ("status", &format!("{}xx", class + 1)),
                ];
                page.sample(name, &labels, total);
            }
        }
    }
}

/// The duration histogram of every route that was used.
pub(super) fn durations<'m>(page: &mut Page, routes: impl Iterator<Item = &'m RouteMetrics>) {
    let name = "weir_gateway_request_duration_seconds";
    page.head(
        name,
        "histogram",
        "From the request head to the last byte of the response.",
    );
    for route in routes {
        let counts: Vec<u64> = (0..=DURATION_BOUNDS_US.len())
            .map(|bucket| sum(route, |series| &series.duration[bucket]))
            .collect();
        if counts.iter().all(|count| *count == 0) {
            continue;
        }
        let sum_us = sum(route, |series| &series.duration_sum_us);
        page.histogram(
            name,
            &[("route", &route.route), ("service", &route.service)],
            &DURATION_BOUNDS_US,
            &counts,
            sum_us,
        );
    }
}

/// What authentication and limits have done.
pub(super) fn filters(page: &mut Page, configured: &Configured) {
    let name = "weir_gateway_token_cache_total";
    page.head(
        name,
        "counter",
        "Bearer tokens looked up among the verified ones.",
    );
    for jwt in &configured.tokens {
        let counts = jwt.cache_counts();
        for (result, count) in [("hit", counts.hits), ("miss", counts.misses)] {
            page.sample(name, &[("auth", jwt.name()), ("result", result)], count);
        }
    }
    let name = "weir_gateway_rate_limit_total";
    page.head(
        name,
        "counter",
        "Requests counted against a limit, by what came of it.",
    );
    for limit in &configured.rate_limits {
        let counts = limit.counts();
        let results = [
            ("allowed", counts.allowed),
            ("limited", counts.limited),
            ("full", counts.full),
        ];
        for (result, count) in results {
            let labels = [("limit", &*limit.policy().name), ("result", result)];
            page.sample(name, &labels, count);
        }
    }
    let name = "weir_gateway_rate_limit_keys";
    page.head(name, "gauge", "Senders a limit remembers.");
    for limit in &configured.rate_limits {
        page.sample(
            name,
            &[("limit", &limit.policy().name)],
            limit.counts().keys,
        );
    }
}

/// The health of every instance.
pub(super) fn health(page: &mut Page, configured: &Configured, now: Instant) {
    let name = "weir_gateway_instance_healthy";
    page.head(
        name,
        "gauge",
        "1 while active checks let the instance be used.",
    );
    each_instance(configured, |labels, availability| {
        page.sample(
            name,
            &labels,
            u8::from(!availability.is_barred(Bar::Check, now)),
        );
    });
    let name = "weir_gateway_instance_suspect";
    page.head(
        name,
        "gauge",
        "1 for a moment after a connection to the instance failed.",
    );
    each_instance(configured, |labels, availability| {
        page.sample(name, &labels, u8::from(availability.is_suspect(now)));
    });
}

fn each_instance(configured: &Configured, mut visit: impl FnMut([(&str, &str); 2], &Availability)) {
    for service in &configured.services {
        for instance in &service.instances {
            let labels = [("service", &*service.service), ("instance", &instance.name)];
            visit(labels, &instance.availability);
        }
    }
}
