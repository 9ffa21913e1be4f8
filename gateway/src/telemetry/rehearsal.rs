//! The telemetry of requests that never were, by the very code that serves real ones: what
//! `cargo xtask bench filters` times.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::access_log::field::Line;
use super::access_log::{AccessLog, Writers};
use super::metrics::{Configured, Format, Found, InstanceSeries, Metrics, Outcome};
use super::trace::Trace;
use crate::config::Config;
use crate::upstream::balance::Random;

/// What an imagined request took and carried.
const DURATION: Duration = Duration::from_micros(1234);
const UPSTREAM: Duration = Duration::from_micros(1000);
const BYTES_OUT: u64 = 95;
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// One worker's telemetry, without a worker.
#[derive(Debug)]
pub struct Rehearsal {
    config: Config,
    metrics: Arc<Metrics>,
    found: Found,
    instance: Arc<InstanceSeries>,
    log: Option<AccessLog>,
    writers: Writers,
    random: Random,
}

impl Rehearsal {
    /// The telemetry of a gateway with this configuration.
    ///
    /// # Errors
    ///
    /// Fails if an access log cannot be opened.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new(1, Arc::new(Configured::default())));
        let writers = Writers::open(&config.access_logs)?;
        Ok(Self {
            found: Found::new(&config),
            instance: metrics.shards[0].instance("app", "192.0.2.2:80"),
            log: writers.worker_end(&config.access_logs, 1),
            writers,
            random: Random::seeded(1),
            metrics,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counts an answered request of this route, as at the end of a real one.
    pub fn count(&self, route: &crate::route::Route) {
        let outcome = Outcome {
            status: 200,
            duration_us: DURATION.as_micros() as u64,
            upstream_us: Some(UPSTREAM.as_micros() as u64),
            connection_reused: Some(true),
            bytes_in: 0,
            bytes_out: BYTES_OUT,
        };
        let shard = &self.metrics.shards[0];
        shard.exchange_begins();
        let service = route.service(None);
        let service = service.map(|index| (index, self.config.services[index].name.as_str()));
        self.found.count(shard, (route, None), service, &outcome);
        self.instance.count(&outcome);
        shard.exchange_ends();
    }

    /// Writes a line to every access log, which hands full buffers to its writer.
    pub fn log(&self, route: &str) {
        let Some(log) = &self.log else { return };
        log.write(&Line {
            time: jiff::Timestamp::now(),
            request_id: b"0af7651916cd43dd8448eb211c80319c",
            trace: None,
            client: CLIENT,
            peer: (CLIENT, 50_000).into(),
            listener: "public",
            scheme: "https",
            subject: Some("partner-7"),
            method: "GET",
            host: "api.example.com",
            path: "/api/v1/orders/7",
            route: Some(route),
            service: Some("app"),
            instance: Some("192.0.2.2:80"),
            status: 200,
            reason: None,
            duration_us: DURATION.as_micros() as u64,
            upstream_us: Some(UPSTREAM.as_micros() as u64),
            retries: 0,
            hedges: 0,
            bytes_in: 0,
            bytes_out: BYTES_OUT,
            protocol: "HTTP/1.1",
            tls: Some("TLSv1.3"),
            captured: None,
        });
    }

    /// Ends it, once the lines of every access log are where they belong.
    pub fn finish(self) {
        // What a worker has not handed on yet, it does with its end of the log.
        drop(self.log);
        self.writers.finish();
    }

    /// Joins the trace of a request, or begins one, as configured.
    pub fn trace(&self, headers: &mut HeaderMap, trusted: bool) -> bool {
        let random = || self.random.next();
        Trace::settle(self.config.tracing, headers, trusted, random).is_some()
    }

    /// Writes the metrics page, as for a scrape; returns its bytes.
    pub fn page(&self) -> usize {
        let mut bytes = 0;
        let count = |piece: bytes::Bytes| {
            bytes += piece.len();
            Ok(())
        };
        // Nothing can fail but `count`.
        let _ = self
            .metrics
            .write(Format::OpenMetrics, Instant::now(), count);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_rehearsed_is_counted_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[listeners.a]\nbind = \"127.0.0.1:80\"\n\
            [access_log]\nto = \"file\"\npath = \"access.log\"\n\
            [tracing]\ntraceparent = \"begin\"\n\
            [services.app]\nendpoints = [\"127.0.0.1:81\"]\n\
            [routes.all]\nmatch = {}\nservice = \"app\"\n";
        let rehearsal = Rehearsal::new(Config::parse(text, folder.path()).unwrap()).unwrap();
        let route = Arc::clone(rehearsal.config().routes.routes().next().unwrap());
        let empty = rehearsal.page();
        rehearsal.count(&route);
        assert!(rehearsal.page() > empty + 100, "series of the route");
        rehearsal.log(&route.name);
        let mut headers = HeaderMap::new();
        assert!(rehearsal.trace(&mut headers, false));
        assert!(headers.contains_key("traceparent"));
        rehearsal.finish();
        let written = std::fs::read_to_string(Path::new(folder.path()).join("access.log"));
        assert_eq!(written.unwrap().lines().count(), 1);
    }
}
