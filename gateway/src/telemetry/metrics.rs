//! Counters for Prometheus.
//!
//! Each worker counts in a [`Shard`] of its own, so that counting never makes two cores share a
//! cache line; a scrape adds the shards up. Labels are names from the configuration, which bounds
//! the number of series by its size.

mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(crate) use self::text::{RouteLabels, ServiceLabels};

use self::text::Page;
use crate::filter::jwt::Jwt;
use crate::filter::rate_limit::RateLimit;

/// Upper bounds of the duration histogram, in microseconds; beyond the last is `+Inf`.
const DURATION_BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// `1xx` to `5xx`.
const STATUS_CLASSES: usize = 5;

/// A counter only ever added to by one thread, and read by another.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, amount: u64) {
        // One writer: a plain load and store spare the locked instruction.
        self.0.store(self.read() + amount, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, changed by one thread only.
#[derive(Debug, Default)]
struct Gauge(AtomicI64);

impl Gauge {
    fn add(&self, amount: i64) {
        self.0.store(self.read() + amount, Ordering::Relaxed);
    }

    fn read(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counts.
#[derive(Debug)]
pub(crate) struct Shard {
    /// One per route in the order of the labels, and a last one for requests without a route.
    routes: Box<[RouteSeries]>,
    reasons: Mutex<BTreeMap<&'static str, u64>>,
    retries: Counter,
    in_flight: Gauge,
    connections: Counter,
    connections_open: Gauge,
    connections_refused: Counter,
    handshakes_failed: Counter,
    tunnels_open: Gauge,
}

#[derive(Debug)]
struct RouteSeries {
    /// By instance, and a last one for requests that reached none; within, by status class.
    requests: Box<[[Counter; STATUS_CLASSES]]>,
    duration: [Counter; DURATION_BOUNDS_US.len() + 1],
    duration_sum_us: Counter,
}

impl RouteSeries {
    fn new(instances: usize) -> Self {
        Self {
            requests: (0..=instances).map(|_| Default::default()).collect(),
            duration: Default::default(),
            duration_sum_us: Counter::default(),
        }
    }
}

impl Shard {
    /// A shard for these routes.
    pub(crate) fn new(routes: &[RouteLabels]) -> Self {
        let series = routes
            .iter()
            .map(|route| RouteSeries::new(route.instances.len()));
        Self {
            routes: series.chain([RouteSeries::new(0)]).collect(),
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

    /// A request has arrived.
    pub(crate) fn exchange_begins(&self) {
        self.in_flight.add(1);
    }

    /// A request is over. `route` and `instance` are positions; `None`: it got none.
    pub(crate) fn exchange_ends(
        &self,
        route: Option<usize>,
        instance: Option<usize>,
        status: u16,
        duration: Duration,
    ) {
        self.in_flight.add(-1);
        let series = &self.routes[route.unwrap_or(self.routes.len() - 1)];
        let instance = instance.unwrap_or(series.requests.len() - 1);
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES) - 1;
        series.requests[instance][class].add(1);
        let micros = duration.as_micros() as u64;
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < micros);
        series.duration[bucket].add(1);
        series.duration_sum_us.add(micros);
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
    pub(crate) routes: Vec<RouteLabels>,
    pub(crate) services: Vec<ServiceLabels>,
    pub(crate) tokens: Vec<Arc<Jwt>>,
    pub(crate) rate_limits: Vec<Arc<RateLimit>>,
    pub(crate) shards: Vec<Arc<Shard>>,
    pub(crate) log_lines_dropped: Arc<AtomicU64>,
}

impl Metrics {
    /// The page in the text format of Prometheus, version 0.0.4.
    pub(crate) fn render(&self, now: std::time::Instant) -> String {
        let mut page = Page::default();
        self.render_requests(&mut page);
        self.render_durations(&mut page);
        self.render_reasons(&mut page);
        self.render_filters(&mut page);
        self.render_totals(&mut page);
        text::render_health(&mut page, &self.services, now);
        page.into_text()
    }

    fn sum(&self, value: impl Fn(&Shard) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| value(shard).read()).sum()
    }

    fn level(&self, value: impl Fn(&Shard) -> &Gauge) -> i64 {
        self.shards.iter().map(|shard| value(shard).read()).sum()
    }

    /// The labels of the series at `index`; the last is that of requests without a route.
    fn labels(&self, index: usize) -> (&str, &str, &[String]) {
        self.routes.get(index).map_or(("", "", &[][..]), |route| {
            (&route.route, &route.service, &route.instances)
        })
    }

    fn render_requests(&self, page: &mut Page) {
        let name = "weir_gateway_requests_total";
        page.head(
            name,
            "counter",
            "Requests by route, service, instance and status class.",
        );
        for index in 0..=self.routes.len() {
            let (route, service, instances) = self.labels(index);
            for instance in 0..=instances.len() {
                for class in 0..STATUS_CLASSES {
                    let total = self.sum(|shard| &shard.routes[index].requests[instance][class]);
                    if total == 0 {
                        continue;
                    }
                    let instance = instances.get(instance).map_or("", String::as_str);
                    let class = format!("{}xx", class + 1);
                    let labels = [
                        ("route", route),
                        ("service", service),
                        ("instance", instance),
                        ("status", &class),
                    ];
                    page.sample(name, &labels, total);
                }
            }
        }
    }

    fn render_durations(&self, page: &mut Page) {
        let name = "weir_gateway_request_duration_seconds";
        page.head(
            name,
            "histogram",
            "From the request head to the last byte of the response.",
        );
        for index in 0..=self.routes.len() {
            let route = self.labels(index).0;
            let counts: Vec<u64> = (0..=DURATION_BOUNDS_US.len())
                .map(|bucket| self.sum(|shard| &shard.routes[index].duration[bucket]))
                .collect();
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            let sum_us = self.sum(|shard| &shard.routes[index].duration_sum_us);
            page.histogram(name, ("route", route), &DURATION_BOUNDS_US, &counts, sum_us);
        }
    }

    fn render_reasons(&self, page: &mut Page) {
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

    fn render_filters(&self, page: &mut Page) {
        let name = "weir_gateway_token_cache_total";
        page.head(
            name,
            "counter",
            "Bearer tokens looked up among the verified ones.",
        );
        for jwt in &self.tokens {
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
        for limit in &self.rate_limits {
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
        for limit in &self.rate_limits {
            page.sample(
                name,
                &[("limit", &limit.policy().name)],
                limit.counts().keys,
            );
        }
    }

    fn render_totals(&self, page: &mut Page) {
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

    use super::*;
    use crate::upstream::health::Health;

    fn metrics() -> Metrics {
        let routes = vec![RouteLabels {
            route: "orders-v2".into(),
            service: "orders".into(),
            instances: vec!["10.0.0.1:80".into(), "10.0.0.2:80".into()],
        }];
        let health = Arc::new(Health::new(Instant::now()));
        let services = vec![ServiceLabels {
            service: "orders".into(),
            instances: vec![("10.0.0.1:80".into(), health)],
        }];
        let shards = (0..2).map(|_| Arc::new(Shard::new(&routes))).collect();
        Metrics {
            routes,
            services,
            tokens: Vec::new(),
            rate_limits: Vec::new(),
            shards,
            log_lines_dropped: Arc::default(),
        }
    }

    #[test]
    fn shards_add_up() {
        let metrics = metrics();
        for shard in &metrics.shards {
            shard.exchange_begins();
            shard.exchange_ends(Some(0), Some(1), 204, Duration::from_micros(500));
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
            r#"weir_gateway_request_duration_seconds_bucket{route="orders-v2",le="0.0005"} 2"#,
            r#"weir_gateway_request_duration_seconds_bucket{route="",le="10"} 0"#,
            r#"weir_gateway_request_duration_seconds_bucket{route="",le="+Inf"} 2"#,
            r#"weir_gateway_request_duration_seconds_sum{route="orders-v2"} 0.001"#,
            r#"weir_gateway_request_duration_seconds_count{route=""} 2"#,
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
