//! Counters for Prometheus.
//!
//! Each worker counts in a `Shard` of its own, so that counting never makes two cores share a
//! cache line; a scrape adds the shards up. Labels are names from the configuration, which bounds
//! the number of series by its size.
//!
//! | series, after `weir_gateway_` | labels | what |
//! |---|---|---|
//! | `requests_total` | route, service, instance, status | requests by class of status |
//! | `request_duration_seconds` | route, service, le | head of the request to last byte of the response |
//! | `refusals_total` | reason | refused or broken off, by [`Reject::name`] or how they broke |
//! | `retries_total` | | attempts after the first |
//! | `requests_in_flight` | | requests under way |
//! | `connections_total`, `_open`, `_refused_total` | | client connections |
//! | `tls_handshakes_failed_total` | | TLS handshakes that failed |
//! | `tunnels_open` | | upgraded connections |
//! | `instance_healthy`, `instance_suspect` | service, instance | 1 or 0 |
//! | `token_cache_total` | auth, result | verified tokens found again |
//! | `rate_limit_total`, `rate_limit_keys` | limit, result | what limits did and remember |
//! | `concurrency_limit`, `_in_flight`, `_waiting` | kind, name | of a limited service or route |
//! | `concurrency_baseline_seconds` | kind, name | latency without load, for an adaptive limit |
//! | `concurrency_refused_total` | kind, name, priority, reason | at the limit: full, timeout, displaced |
//! | `concurrency_queue_seconds` | kind, name | `_sum` and `_count` of waits that had success |
//! | `overload_stage` | | 0 normal to 6 cut, as memory allows |
//! | `overload_memory_bytes`, `_max_bytes` | | resident, where it is limited |
//! | `overload_loop_lag_seconds` | worker | how late the event loop stands, where that is limited |
//! | `overload_refused_total` | reason, priority | requests refused for memory or lag |
//! | `overload_connections_total` | result | turned away, closed while idle, cut |
//! | `descriptors_max` | | open files the process may have |
//! | `reloads_total` | result | configurations applied and refused |
//! | `access_log_lines_dropped_total` | | log lines lost |
//!
//! [`Reject::name`]: crate::filter::reject::Reject::name

mod counter;
mod overload;
mod render;
mod series;
mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use self::counter::{Counter, Gauge};
use self::series::RouteMetrics;
pub(crate) use self::series::{Configured, RouteSeries};
use self::text::Page;
use crate::overload::pressure::Pressure;

/// What one worker counts.
#[derive(Debug)]
pub(crate) struct Shard {
    /// Requests without a route; those with one count in series of its own.
    unrouted: Arc<RouteSeries>,
    reasons: Mutex<BTreeMap<&'static str, u64>>,
    retries: Counter,
    in_flight: Gauge,
    connections: Counter,
    connections_open: Gauge,
    connections_refused: Counter,
    handshakes_failed: Counter,
    tunnels_open: Gauge,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            unrouted: Arc::new(RouteSeries::new(0)),
            reasons: Mutex::default(),
            retries: Counter::default(),
            in_flight: Gauge::default(),
            connections: Counter::default(),
            connections_open: Gauge::default(),
            connections_refused: Counter::default(),
            handshakes_failed: Counter::default(),
            tunnels_open: Gauge::default(),
        }
    }
}

impl Shard {
    /// A request has arrived.
    pub(crate) fn exchange_begins(&self) {
        self.in_flight.add(1);
    }

    /// A request is over. Without `route` it found none; `instance` is a position, `None`: it
    /// reached none.
    pub(crate) fn exchange_ends(
        &self,
        route: Option<&RouteSeries>,
        instance: Option<usize>,
        status: u16,
        duration: Duration,
    ) {
        self.in_flight.add(-1);
        route
            .unwrap_or(&self.unrouted)
            .count(instance, status, duration);
    }

    /// A request was refused or broke off.
    pub(crate) fn reason(&self, reason: &'static str) {
        // Contended by scrapes alone, and refusals are not the common case.
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        *reasons.entry(reason).or_default() += 1;
    }

    /// A request needed this many attempts after the first.
    pub(crate) fn retried(&self, times: u64) {
        if times > 0 {
            self.retries.add(times);
        }
    }

    /// A client connection was accepted.
    pub(crate) fn connection_opens(&self) {
        self.connections.add(1);
        self.connections_open.add(1);
    }

    /// A client connection is over.
    pub(crate) fn connection_closes(&self) {
        self.connections_open.add(-1);
    }

    /// A client connection was closed at once: the gateway is at `connections_max`.
    pub(crate) fn connection_refused(&self) {
        self.connections_refused.add(1);
    }

    /// A TLS handshake failed.
    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.add(1);
    }

    /// An upgraded connection begins (`1`) or ends (`-1`).
    pub(crate) fn tunnels(&self, change: i64) {
        self.tunnels_open.add(change);
    }
}

/// Everything a scrape shows.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) shards: Vec<Arc<Shard>>,
    /// Changed by a reload.
    pub(crate) configured: ArcSwap<Configured>,
    pub(crate) log_lines_dropped: Arc<AtomicU64>,
    pub(crate) reloads: Reloads,
    pressure: OnceLock<Arc<Pressure>>,
}

/// Attempts to load the configuration again.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub(crate) applied: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Metrics {
    /// The metrics of this many workers.
    pub(crate) fn new(workers: usize, configured: Arc<Configured>) -> Self {
        Self {
            shards: (0..workers).map(|_| Arc::default()).collect(),
            configured: ArcSwap::new(configured),
            log_lines_dropped: Arc::default(),
            reloads: Reloads::default(),
            pressure: OnceLock::new(),
        }
    }

    /// Shows what the process has left, too. To be called once.
    pub(crate) fn watch(&self, pressure: Arc<Pressure>) {
        // A second call would be a second process in one; the first one's numbers stay.
        let _ = self.pressure.set(pressure);
    }

    /// Requests under way, of all workers.
    pub(crate) fn requests_in_flight(&self) -> u64 {
        u64::try_from(self.level(|shard| &shard.in_flight)).unwrap_or(0)
    }

    /// The page in the text format of Prometheus, version 0.0.4.
    pub(crate) fn render(&self, now: std::time::Instant) -> String {
        let mut page = Page::default();
        let configured = self.configured.load();
        let unrouted = RouteMetrics {
            route: String::new(),
            service: String::new(),
            instances: Vec::new(),
            workers: self
                .shards
                .iter()
                .map(|shard| Arc::clone(&shard.unrouted))
                .collect(),
        };
        let routes = || configured.routes.iter().chain([&unrouted]);
        render::requests(&mut page, routes());
        render::durations(&mut page, routes());
        self.reasons(&mut page);
        render::filters(&mut page, &configured);
        self.totals(&mut page);
        overload::gates(&mut page, &configured);
        if let Some(pressure) = self.pressure.get() {
            overload::pressure(&mut page, &pressure.reading());
        }
        render::health(&mut page, &configured, now);
        page.into_text()
    }

    fn sum(&self, value: impl Fn(&Shard) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| value(shard).read()).sum()
    }

    fn level(&self, value: impl Fn(&Shard) -> &Gauge) -> i64 {
        self.shards.iter().map(|shard| value(shard).read()).sum()
    }

    fn reasons(&self, page: &mut Page) {
        let name = "weir_gateway_refusals_total";
        page.head(
            name,
            "counter",
            "Requests refused or broken off, by reason.",
        );
        let mut totals = BTreeMap::new();
        for shard in &self.shards {
            let reasons = shard.reasons.lock().unwrap_or_else(PoisonError::into_inner);
            for (reason, count) in reasons.iter() {
                *totals.entry(*reason).or_insert(0) += count;
            }
        }
        for (reason, total) in totals {
            page.sample(name, &[("reason", reason)], total);
        }
    }

    fn totals(&self, page: &mut Page) {
        let dropped = self.log_lines_dropped.load(Ordering::Relaxed);
        let counters = [
            (
                "retries_total",
                "Attempts after the first.",
                self.sum(|s| &s.retries),
            ),
            (
                "connections_total",
                "Client connections accepted.",
                self.sum(|s| &s.connections),
            ),
            (
                "connections_refused_total",
                "Client connections closed at connections_max.",
                self.sum(|s| &s.connections_refused),
            ),
            (
                "tls_handshakes_failed_total",
                "TLS handshakes that failed.",
                self.sum(|s| &s.handshakes_failed),
            ),
            (
                "access_log_lines_dropped_total",
                "Log lines that were lost.",
                dropped,
            ),
        ];
        let name = "weir_gateway_reloads_total";
        page.head(name, "counter", "Attempts to load the configuration again.");
        for (result, total) in [
            ("applied", &self.reloads.applied),
            ("refused", &self.reloads.refused),
        ] {
            page.sample(name, &[("result", result)], total.load(Ordering::Relaxed));
        }
        for (name, help, total) in counters {
            page.single(name, "counter", help, total);
        }
        let gauges = [
            (
                "requests_in_flight",
                "Requests under way.",
                self.level(|s| &s.in_flight),
            ),
            (
                "connections_open",
                "Client connections open.",
                self.level(|s| &s.connections_open),
            ),
            (
                "tunnels_open",
                "Upgraded connections open.",
                self.level(|s| &s.tunnels_open),
            ),
        ];
        for (name, help, level) in gauges {
            page.single(name, "gauge", help, level);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::series::ServiceHealth;
    use super::*;
    use crate::upstream::instance::Instance;

    fn metrics() -> Metrics {
        let instances = vec!["10.0.0.1:80".into(), "10.0.0.2:80".into()];
        let route = RouteMetrics::new("orders-v2".into(), "orders".into(), instances, 2);
        let address = "10.0.0.1:80".parse().unwrap();
        let instance = Instance::new(address, Instant::now(), Arc::default());
        let service = ServiceHealth {
            service: "orders".into(),
            instances: vec![Arc::new(instance)],
        };
        let configured = Configured {
            routes: vec![route],
            services: vec![service],
            ..Configured::default()
        };
        Metrics::new(2, Arc::new(configured))
    }

    #[test]
    fn shards_add_up() {
        let metrics = metrics();
        let configured = metrics.configured.load();
        for (shard, route) in metrics.shards.iter().zip(&configured.routes[0].workers) {
            shard.exchange_begins();
            shard.exchange_ends(Some(route), Some(1), 204, Duration::from_micros(500));
            shard.exchange_begins();
            shard.exchange_ends(None, None, 404, Duration::from_secs(60));
            shard.exchange_begins();
            shard.reason("route-not-found");
            shard.connection_opens();
            shard.connection_opens();
            shard.connection_closes();
        }
        let page = metrics.render(Instant::now());
        let expected = [
            r#"weir_gateway_requests_total{route="orders-v2",service="orders",instance="10.0.0.2:80",status="2xx"} 2"#,
            r#"weir_gateway_requests_total{route="",service="",instance="",status="4xx"} 2"#,
            r#"weir_gateway_request_duration_seconds_bucket{route="orders-v2",service="orders",le="0.0005"} 2"#,
            r#"weir_gateway_request_duration_seconds_bucket{route="",service="",le="10"} 0"#,
            r#"weir_gateway_request_duration_seconds_bucket{route="",service="",le="+Inf"} 2"#,
            r#"weir_gateway_request_duration_seconds_sum{route="orders-v2",service="orders"} 0.001"#,
            r#"weir_gateway_request_duration_seconds_count{route="",service=""} 2"#,
            r#"weir_gateway_refusals_total{reason="route-not-found"} 2"#,
            "weir_gateway_requests_in_flight 2",
            "weir_gateway_connections_total 4",
            "weir_gateway_connections_open 2",
            r#"weir_gateway_instance_healthy{service="orders",instance="10.0.0.1:80"} 1"#,
        ];
        for line in expected {
            assert!(
                page.lines().any(|one| one == line),
                "no line `{line}` in\n{page}"
            );
        }
    }

    #[test]
    fn an_odd_status_is_counted_somewhere() {
        let metrics = metrics();
        metrics.shards[0].exchange_begins();
        metrics.shards[0].exchange_ends(None, None, 999, Duration::ZERO);
        assert!(
            metrics
                .render(Instant::now())
                .contains(r#"status="5xx"} 1"#)
        );
    }
}
