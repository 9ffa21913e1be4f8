//! What the page shows, part by part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::configured::Configured;
use super::counter::{Counter, Distribution, Gauge};
use super::page::{Family, Page};
use super::series::{
    BYTES, InstanceSeries, Labels, Ledger, Requests, RouteSeries, SECONDS, ServiceSeries,
};
use super::shard::{Shard, TLS_VERSIONS, lock};
use super::{Metrics, UNROUTED};
use crate::listen::client_certificate::Outcome as Certificate;
use crate::upstream::availability::{Availability, Bar};

/// The same series of all workers.
type Merged<S> = BTreeMap<Labels, Vec<Arc<S>>>;

fn merge<'s, S: Default + 's>(
    ledgers: impl Iterator<Item = &'s Mutex<Ledger<S>>>,
    now: Instant,
) -> Merged<S> {
    let mut merged = Merged::new();
    for ledger in ledgers {
        lock(ledger).read(now, |labels, series| {
            // Looked up first: all but the first worker's labels are there already.
            match merged.get_mut(labels) {
                Some(all) => all,
                None => merged.entry(labels.clone()).or_default(),
            }
            .push(Arc::clone(series));
        });
    }
    merged
}

fn by_class<'r>(
    family: &mut Family<'_>,
    labels: [(&str, &str); 2],
    requests: impl Iterator<Item = &'r Requests>,
) {
    let counts = requests
        .map(Requests::read)
        .reduce(|sum, one| std::array::from_fn(|class| sum[class] + one[class]));
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    for (class, count) in classes.iter().zip(counts.unwrap_or_default()) {
        if count > 0 {
            family.count(&[labels[0], labels[1], ("status", *class)], count);
        }
    }
}

/// Requests and their duration by route.
pub(super) fn routes(page: &mut Page<'_>, shards: &[Arc<Shard>], now: Instant) {
    let mut merged: Merged<RouteSeries> = merge(shards.iter().map(|shard| &shard.routes), now);
    let unrouted = shards.iter().map(|shard| Arc::clone(&shard.unrouted));
    merged.insert((UNROUTED.into(), UNROUTED.into()), unrouted.collect());
    let help = "Requests by route, service and class of status.";
    page.counters("requests", help, |family| {
        for ((route, service), series) in &merged {
            let labels = [("route", &**route), ("service", &**service)];
            by_class(family, labels, series.iter().map(|one| &one.requests));
        }
    });
    let help = "From the request head to the last byte of the response, by route.";
    page.histograms("request_duration_seconds", help, |family| {
        for ((route, service), series) in &merged {
            let duration = Distribution::of(&SECONDS, series.iter().map(|one| &one.duration));
            if duration.count > 0 {
                let labels = [("route", &**route), ("service", &**service)];
                family.distribution(&labels, &duration);
            }
        }
    });
}

/// What requests to a service took and carried.
pub(super) fn services(page: &mut Page<'_>, shards: &[Arc<Shard>], now: Instant) {
    let merged: Merged<ServiceSeries> = merge(shards.iter().map(|shard| &shard.services), now);
    let mut histograms = |name, help, of: fn(&[Arc<ServiceSeries>]) -> Distribution| {
        page.histograms(name, help, |family| {
            for ((service, _), series) in &merged {
                family.distribution(&[("service", &**service)], &of(series));
            }
        });
    };
    histograms(
        "service_duration_seconds",
        "From the request head to the last byte of the response, by service.",
        |series| Distribution::of(&SECONDS, series.iter().map(|one| &one.duration)),
    );
    histograms(
        "service_upstream_seconds",
        "From the request head to the head of the instance's response, retries included.",
        |series| Distribution::of(&SECONDS, series.iter().map(|one| &one.upstream)),
    );
    histograms("service_request_bytes", "Request body bytes.", |series| {
        Distribution::of(&BYTES, series.iter().map(|one| &one.bytes_in))
    });
    histograms("service_response_bytes", "Response body bytes.", |series| {
        Distribution::of(&BYTES, series.iter().map(|one| &one.bytes_out))
    });
}

/// Requests, upstream time and connections by instance.
pub(super) fn instances(page: &mut Page<'_>, shards: &[Arc<Shard>], now: Instant) {
    let merged: Merged<InstanceSeries> = merge(shards.iter().map(|shard| &shard.instances), now);
    let help = "Requests by the instance that answered or was tried last, and class of status.";
    page.counters("instance_requests", help, |family| {
        for ((service, instance), series) in &merged {
            let labels = [("service", &**service), ("instance", &**instance)];
            by_class(family, labels, series.iter().map(|one| &one.requests));
        }
    });
    let help = "From the request head to the head of the instance's response.";
    page.histograms("instance_upstream_seconds", help, |family| {
        for ((service, instance), series) in &merged {
            let labels = [("service", &**service), ("instance", &**instance)];
            let upstream = Distribution::of(&SECONDS, series.iter().map(|one| &one.upstream));
            family.distribution(&labels, &upstream);
        }
    });
    let help = "Requests by the connection they were answered on: opened for them, or used before.";
    page.counters("instance_connections", help, |family| {
        for ((service, instance), series) in &merged {
            let sum = |of: fn(&InstanceSeries) -> &Counter| -> u64 {
                series.iter().map(|one| of(one).read()).sum()
            };
            let labels = [("service", &**service), ("instance", &**instance)];
            let reused = sum(|one| &one.connections_reused);
            let new = sum(|one| &one.connections_new);
            family.count(&[labels[0], labels[1], ("connection", "new")], new);
            family.count(&[labels[0], labels[1], ("connection", "reused")], reused);
        }
    });
}

/// What authentication and limits have done.
pub(super) fn filters(page: &mut Page<'_>, configured: &Configured) {
    let help = "Bearer tokens looked up among the verified ones.";
    page.counters("token_cache", help, |family| {
        for jwt in &configured.tokens {
            let counts = jwt.cache_counts();
            for (result, count) in [("hit", counts.hits), ("miss", counts.misses)] {
                family.count(&[("auth", jwt.name()), ("result", result)], count);
            }
        }
    });
    let help = "Requests counted against a limit, by what came of it.";
    page.counters("rate_limit", help, |family| {
        for limit in &configured.rate_limits {
            let counts = limit.counts();
            let results = [
                ("allowed", counts.allowed),
                ("limited", counts.limited),
                ("full", counts.full),
            ];
            for (result, count) in results {
                let labels = [("limit", &*limit.policy().name), ("result", result)];
                family.count(&labels, count);
            }
        }
    });
    page.gauges("rate_limit_keys", "Senders a limit remembers.", |family| {
        for limit in &configured.rate_limits {
            let labels = [("limit", &*limit.policy().name)];
            family.level(&labels, limit.counts().keys as f64);
        }
    });
}

/// The health of every instance.
pub(super) fn health(page: &mut Page<'_>, configured: &Configured, now: Instant) {
    let help = "1 while active checks let the instance be used.";
    page.gauges("instance_healthy", help, |family| {
        each_instance(configured, |labels, availability| {
            let healthy = !availability.is_barred(Bar::Check, now);
            family.level(&labels, f64::from(u8::from(healthy)));
        });
    });
    let help = "1 for a moment after a connection to the instance failed.";
    page.gauges("instance_suspect", help, |family| {
        each_instance(configured, |labels, availability| {
            let suspect = availability.is_suspect(now);
            family.level(&labels, f64::from(u8::from(suspect)));
        });
    });
}

fn each_instance(configured: &Configured, mut visit: impl FnMut([(&str, &str); 2], &Availability)) {
    for service in &configured.services {
        for instance in &service.instances {
            let labels = [
                ("service", &*service.service),
                ("instance", &*instance.name),
            ];
            visit(labels, &instance.availability);
        }
    }
}

/// Refusals, and what has no labels.
pub(super) fn totals(page: &mut Page<'_>, metrics: &Metrics) {
    let shards = &metrics.shards;
    let sum = |of: fn(&Shard) -> &Counter| shards.iter().map(|shard| of(shard).read()).sum();
    let level = |of: fn(&Shard) -> &Gauge| -> f64 {
        let level: i64 = shards.iter().map(|shard| of(shard).read()).sum();
        level as f64
    };
    let mut reasons = BTreeMap::new();
    for shard in shards {
        for (reason, count) in lock(&shard.reasons).iter() {
            *reasons.entry(*reason).or_insert(0) += count;
        }
    }
    let help = "Requests refused or broken off, by reason.";
    page.counters("refusals", help, |family| {
        for (reason, total) in &reasons {
            family.count(&[("reason", *reason)], *total);
        }
    });
    mirrored(page, shards);
    let help = "Requests under way.";
    page.gauge("requests_in_flight", help, level(|s| &s.in_flight));
    let help = "Client connections accepted.";
    page.counter("connections", help, sum(|s| &s.connections));
    let help = "Client connections open.";
    page.gauge("connections_open", help, level(|s| &s.connections_open));
    let help = "Client connections closed at connections_max.";
    page.counter("connections_refused", help, sum(|s| &s.connections_refused));
    let help = "Client connections closed at connections_per_source_max.";
    let refused = sum(|s| &s.connections_refused_by_source);
    page.counter("connections_refused_by_source", help, refused);
    let help = "Upgraded connections open.";
    page.gauge("tunnels_open", help, level(|s| &s.tunnels_open));
    let help = "Times that workers looked for more instead of sleeping (busy_poll).";
    page.counter("busy_polls", help, sum(|s| &s.busy_polls));
}

/// TLS handshakes.
pub(super) fn handshakes(page: &mut Page<'_>, shards: &[Arc<Shard>]) {
    let help = "TLS handshakes done, by version and whether a session was resumed.";
    page.counters("tls_handshakes", help, |family| {
        for (index, version) in TLS_VERSIONS.iter().enumerate() {
            for (resumed, text) in ["false", "true"].into_iter().enumerate() {
                let counts = shards.iter().map(|shard| &shard.handshakes[index][resumed]);
                let labels = [("version", *version), ("resumed", text)];
                family.count(&labels, counts.map(Counter::read).sum());
            }
        }
    });
    let failed = shards.iter().map(|shard| shard.handshakes_failed.read());
    let help = "TLS handshakes that failed.";
    page.counter("tls_handshakes_failed", help, failed.sum());
    let help = "From accepting a connection to the end of its TLS handshake.";
    let all = shards.iter().map(|shard| &shard.handshake);
    let took = Distribution::of(&SECONDS, all);
    page.histogram("tls_handshake_duration_seconds", help, &took);
    let help = "Clients that were asked for a certificate, by what it was worth.";
    page.counters("tls_client_certificates", help, |family| {
        for outcome in Certificate::ALL {
            let counts = shards
                .iter()
                .map(|shard| &shard.client_certificates[outcome as usize]);
            family.count(
                &[("result", outcome.name())],
                counts.map(Counter::read).sum(),
            );
        }
    });
}

/// What is running.
pub(super) fn build(page: &mut Page<'_>) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.info("build", "The version that is running.", &version);
}

/// The configuration in force.
pub(super) fn configuration(page: &mut Page<'_>, configured: &Configured) {
    if let Some(sha256) = &configured.sha256 {
        let help = "The configuration file in force, as `sha256sum` shows it.";
        page.info("config", help, &[("sha256", sha256.as_str())]);
    }
}

/// What came of the copies of requests.
fn mirrored(page: &mut Page<'_>, shards: &[Arc<Shard>]) {
    let mut totals = BTreeMap::new();
    for shard in shards {
        for ((service, result), count) in lock(&shard.mirrored).iter() {
            *totals.entry((Arc::clone(service), *result)).or_insert(0) += count;
        }
    }
    if totals.is_empty() {
        return;
    }
    let help = "Copies of requests for mirrors, by what came of them.";
    page.counters("mirrored", help, |family| {
        for ((service, result), total) in &totals {
            family.count(&[("service", &**service), ("result", *result)], *total);
        }
    });
}
