//! Counters for Prometheus.
//!
//! Each worker counts in a `Shard` of its own, so that counting never makes two cores share a
//! cache line; a scrape adds the shards up. A part of the gateway adds series of its own by a
//! `Collect` that it [`register`](Metrics::register)s. Labels are names from the configuration
//! and addresses of instances; how many series there may be is bounded in `shard`.
//!
//! | series, after `weir_gateway_` | labels | what |
//! |---|---|---|
//! | `requests_total` | route, service, status | requests by class of status |
//! | `request_duration_seconds` | route, service, le | head of the request to last byte of the response |
//! | `service_duration_seconds`, `service_upstream_seconds` | service, le | the same, and until the head of the instance's response |
//! | `service_request_bytes`, `service_response_bytes` | service, le | sizes of bodies |
//! | `instance_requests_total` | service, instance, status | by the instance that answered, or was tried last |
//! | `instance_upstream_seconds` | service, instance, le | until the head of the instance's response |
//! | `instance_connections_total` | service, instance, connection | requests answered on a `new` connection or a `reused` one |
//! | `refusals_total` | reason | refused or broken off, by [`Reject::name`] or how they broke |
//! | `retries_total`, `retries_refused_total` | –, reason | attempts after the first, and those the budget had no room for |
//! | `hedges_total`, `hedges_won_total` | | further instances asked because the first was slow, and those that were quicker |
//! | `instance_ejected`, `instance_ejections_total` | service, instance | outliers, where they are looked for |
//! | `circuit_open`, `circuit_openings_total` | service | circuit breakers, where there are any |
//! | `mirrored_total` | service, result | copies of requests: `answered`, `failed`, `timeout`, `too-large`, `too-many`, `broken` |
//! | `discovery_answers_total` | service, result | answers to where instances are: `found`, `nothing`, `failed` |
//! | `discovery_stale`, `discovery_instances` | service | whether the last question was not answered; instances, where they are looked for |
//! | `requests_in_flight` | | requests under way |
//! | `connections_total`, `_open`, `_refused_total` | | client connections |
//! | `tls_handshakes_total` | version, resumed | TLS handshakes that were done |
//! | `tls_handshakes_failed_total` | | TLS handshakes that failed |
//! | `tls_client_certificates_total` | result | clients that were asked for a certificate: `valid`, `missing`, `expired`, `revoked`, `unknown-issuer`, `invalid` |
//! | `tls_handshake_duration_seconds` | le | from accepting the connection |
//! | `tunnels_open` | | upgraded connections |
//! | `busy_polls_total` | | times that workers looked for more instead of sleeping, where they may |
//! | `instance_healthy`, `instance_suspect` | service, instance | 1 or 0 |
//! | `token_cache_total` | auth, result | verified tokens found again |
//! | `rate_limit_total`, `rate_limit_keys` | limit, result | what limits did and remember |
//! | `in_flight_limit_total`, `in_flight_limit_keys` | limit, result | requests counted by sender |
//! | `concurrency_limit`, `_in_flight`, `_waiting` | kind, name | of a limited service or route |
//! | `concurrency_baseline_seconds` | kind, name | latency without load, for an adaptive limit |
//! | `concurrency_refused_total` | kind, name, priority, reason | at the limit: full, timeout, displaced, memory |
//! | `concurrency_queued_total`, `concurrency_queued_seconds_total` | kind, name | waits that had success, and the time they took |
//! | `overload_stage` | | 0 normal to 6 cut, as memory allows |
//! | `overload_memory_bytes`, `_max_bytes` | | resident, where it is limited |
//! | `overload_loop_lag_seconds` | worker | how late the event loop stands, where that is limited |
//! | `overload_refused_total` | reason, priority | requests refused for memory or lag |
//! | `overload_connections_total` | result | turned away (`refused-memory`, `refused-descriptors`), `closed-idle`, `cut`, `cut-tunnel` |
//! | `descriptors_max` | | open files the process may have |
//! | `config_info` | sha256 | 1: the configuration file in force, as `sha256sum` shows it |
//! | `config_last_reload_successful` | | 0 once a reload was refused, until one is applied |
//! | `config_last_reload_success_timestamp_seconds` | | when what is in force was loaded |
//! | `reloads_total` | result | configurations `applied` and `refused` |
//! | `access_log_lines_total`, `_bytes_total`, `_lines_dropped_total` | log | log lines written and lost |
//! | `access_log_failures_total`, `_reopened_total`, `_failing` | log | how well the log takes them |
//! | `build_info` | version | 1 |
//!
//! Beside them stand `process_cpu_seconds_total`, `process_resident_memory_bytes`,
//! `process_open_fds` and the others that every client library of Prometheus has.
//!
//! [`Reject::name`]: crate::filter::reject::Reject::name

mod configured;
mod counter;
mod discovery;
mod format;
mod overload;
mod page;
mod process;
mod render;
mod resilience;
mod scrape;
mod series;
mod shard;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

pub(crate) use self::configured::Configured;
pub(crate) use self::format::Format;
pub(crate) use self::page::Page;
pub(crate) use self::scrape::Scrape;
pub(crate) use self::series::{InstanceSeries, Outcome};
pub(crate) use self::shard::{Found, Shard};
use crate::overload::pressure::Pressure;

/// Before all names but those of the process.
const PREFIX: &str = "weir_gateway";
/// The labels of requests that found no route.
const UNROUTED: &str = "";

/// A part of the gateway that has series of its own.
pub(crate) trait Collect: fmt::Debug + Send + Sync {
    /// Adds them to the page. Called at every scrape, on a thread of its own.
    fn collect(&self, page: &mut Page<'_>);
}

/// Everything a scrape shows.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) shards: Vec<Arc<Shard>>,
    /// Changed by a reload.
    pub(crate) configured: ArcSwap<Configured>,
    pub(crate) reloads: Arc<Reloads>,
    parts: Mutex<Vec<Arc<dyn Collect>>>,
    scrapes: Arc<Semaphore>,
}

/// Attempts to load the configuration again, after the process began with one.
#[derive(Debug)]
pub(crate) struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    /// Whether the last one was.
    last_refused: AtomicBool,
    /// When the configuration in force was loaded, in milliseconds since 1970.
    loaded: AtomicI64,
}

impl Default for Reloads {
    fn default() -> Self {
        Self {
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_refused: AtomicBool::new(false),
            loaded: AtomicI64::new(jiff::Timestamp::now().as_millisecond()),
        }
    }
}

impl Reloads {
    /// One came into force.
    pub(crate) fn applied(&self) {
        let now = jiff::Timestamp::now().as_millisecond();
        self.loaded.store(now, Ordering::Relaxed);
        self.last_refused.store(false, Ordering::Relaxed);
        self.applied.fetch_add(1, Ordering::Relaxed);
    }

    /// One changed nothing.
    pub(crate) fn refused(&self) {
        self.last_refused.store(true, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Collect for Reloads {
    fn collect(&self, page: &mut Page<'_>) {
        let help = "Attempts to load the configuration again.";
        page.counters("reloads", help, |family| {
            for (result, total) in [("applied", &self.applied), ("refused", &self.refused)] {
                family.count(&[("result", result)], total.load(Ordering::Relaxed));
            }
        });
        let good = !self.last_refused.load(Ordering::Relaxed);
        let help = "0 once a reload was refused, until one is applied.";
        page.gauge(
            "config_last_reload_successful",
            help,
            f64::from(u8::from(good)),
        );
        let loaded = self.loaded.load(Ordering::Relaxed) as f64 / 1000.0;
        let help = "When the configuration in force was loaded, in seconds since 1970.";
        page.gauge("config_last_reload_success_timestamp_seconds", help, loaded);
    }
}

/// What is under way in all workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Levels {
    /// Client connections.
    pub(crate) connections: u64,
    /// Upgraded connections.
    pub(crate) tunnels: u64,
    /// Requests.
    pub(crate) requests: u64,
}

impl Metrics {
    /// The metrics of this many workers.
    pub(crate) fn new(workers: usize, configured: Arc<Configured>) -> Self {
        let reloads = Arc::<Reloads>::default();
        let metrics = Self {
            shards: (0..workers).map(|_| Arc::default()).collect(),
            configured: ArcSwap::new(configured),
            reloads: Arc::clone(&reloads),
            parts: Mutex::default(),
            scrapes: Scrape::slots(),
        };
        metrics.register(reloads);
        metrics
    }

    /// Shows what the process has left, too. To be called once.
    pub(crate) fn watch(&self, pressure: Arc<Pressure>) {
        self.register(pressure);
    }

    /// Requests under way, of all workers.
    pub(crate) fn requests_in_flight(&self) -> u64 {
        let shards = self.shards.iter();
        let level: i64 = shards.map(|shard| shard.in_flight.read()).sum();
        u64::try_from(level).unwrap_or(0)
    }

    /// Shows the series of `part` from now on, at the end of the page.
    pub(crate) fn register(&self, part: Arc<dyn Collect>) {
        shard::lock(&self.parts).push(part);
    }

    /// Writes the page and hands it to `send` piece by piece. Fails only when `send` does.
    pub(super) fn write(
        self: &Arc<Self>,
        format: Format,
        now: Instant,
        send: impl FnMut(Bytes) -> fmt::Result,
    ) -> fmt::Result {
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix(PREFIX);
        ours.register_collector(Box::new(Everything {
            metrics: Arc::clone(self),
            now,
        }));
        registry.register_collector(Box::new(process::Process));
        let mut pieces = format::Pieces::new(format, send);
        encode(&mut pieces, &registry)?;
        pieces.finish()
    }

    /// The whole page.
    #[cfg(test)]
    pub(crate) fn render(self: &Arc<Self>, format: Format, now: Instant) -> String {
        let mut page = Vec::new();
        self.write(format, now, |piece| {
            page.extend_from_slice(&piece);
            Ok(())
        })
        .unwrap();
        String::from_utf8(page).unwrap()
    }

    /// What is under way.
    pub(crate) fn levels(&self) -> Levels {
        let sum = |gauge: fn(&Shard) -> &counter::Gauge| {
            let levels = self.shards.iter().map(|shard| gauge(shard).read());
            u64::try_from(levels.sum::<i64>()).unwrap_or(0)
        };
        Levels {
            connections: sum(|shard| &shard.connections_open),
            tunnels: sum(|shard| &shard.tunnels_open),
            requests: self.requests_in_flight(),
        }
    }
}

/// One scrape of everything.
#[derive(Debug)]
struct Everything {
    metrics: Arc<Metrics>,
    now: Instant,
}

impl Collector for Everything {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self { metrics, now } = self;
        let (configured, shards) = (metrics.configured.load(), &metrics.shards);
        let mut page = Page::new(encoder);
        let page = &mut page;
        render::build(page);
        render::configuration(page, &configured);
        render::totals(page, metrics);
        render::handshakes(page, shards);
        render::routes(page, shards, *now);
        render::services(page, shards, *now);
        render::instances(page, shards, *now);
        render::filters(page, &configured);
        overload::senders(page, &configured);
        overload::gates(page, &configured);
        render::health(page, &configured, *now);
        resilience::repeats(page, shards);
        resilience::faults(page, &configured, *now);
        discovery::answers(page, &configured);
        let parts = shard::lock(&metrics.parts).clone();
        for part in parts {
            part.collect(page);
        }
        page.outcome()
    }
}

#[cfg(test)]
mod tests;
