//! Series by route, service and instance, of one worker each.
//!
//! A series begins with the first request of its labels, so a configuration of many routes costs
//! a scrape nothing until they are used. Labels are names from the configuration or addresses
//! from discovery; the number of series of a kind is bounded all the same, and what comes when it
//! is full is counted under [`OTHER`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counter::{Counter, Histogram, Ranges};

/// The label of series beyond the limit.
pub(crate) const OTHER: &str = "(other)";
/// A series nobody counts in any more, after a reload or a change of instances, is shown so long:
/// every scraper should see its last value.
const KEPT: Duration = Duration::from_secs(600);
/// `1xx` to `5xx`.
pub(super) const STATUS_CLASSES: usize = 5;

/// Durations, counted in microseconds and shown in seconds.
pub(crate) static SECONDS: Ranges<16> = Ranges {
    bounds: [
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 10_000_000,
    ],
    per_shown: 1e6,
};
/// Sizes of bodies in bytes, from a kibibyte to a gibibyte.
pub(crate) static BYTES: Ranges<11> = Ranges {
    bounds: [
        1 << 10,
        1 << 12,
        1 << 14,
        1 << 16,
        1 << 18,
        1 << 20,
        1 << 22,
        1 << 24,
        1 << 26,
        1 << 28,
        1 << 30,
    ],
    per_shown: 1.0,
};

/// What a finished request was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// From the request head to the last byte of the response, in microseconds.
    pub(crate) duration_us: u64,
    /// From the request head to the instance's response head, in microseconds.
    pub(crate) upstream_us: Option<u64>,
    /// Whether it was answered on a connection that had served others; `None`: not answered.
    pub(crate) connection_reused: Option<bool>,
    /// Request body bytes.
    pub(crate) bytes_in: u64,
    /// Response body bytes.
    pub(crate) bytes_out: u64,
}

/// Requests by class of status.
#[derive(Debug, Default)]
pub(crate) struct Requests([Counter; STATUS_CLASSES]);

impl Requests {
    fn count(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES) - 1;
        self.0[class].add(1);
    }

    /// The number of each class, `1xx` first.
    pub(super) fn read(&self) -> [u64; STATUS_CLASSES] {
        std::array::from_fn(|class| self.0[class].read())
    }
}

/// What one worker counts of one route.
#[derive(Debug)]
pub(crate) struct RouteSeries {
    pub(super) requests: Requests,
    pub(super) duration: Histogram<16>,
}

impl Default for RouteSeries {
    fn default() -> Self {
        Self {
            requests: Requests::default(),
            duration: Histogram::new(&SECONDS),
        }
    }
}

impl RouteSeries {
    pub(crate) fn count(&self, outcome: &Outcome) {
        self.requests.count(outcome.status);
        self.duration.observe(outcome.duration_us);
    }
}

/// What one worker counts of one service.
#[derive(Debug)]
pub(crate) struct ServiceSeries {
    pub(super) requests: Requests,
    pub(super) duration: Histogram<16>,
    pub(super) upstream: Histogram<16>,
    pub(super) bytes_in: Histogram<11>,
    pub(super) bytes_out: Histogram<11>,
}

impl Default for ServiceSeries {
    fn default() -> Self {
        Self {
            requests: Requests::default(),
            duration: Histogram::new(&SECONDS),
            upstream: Histogram::new(&SECONDS),
            bytes_in: Histogram::new(&BYTES),
            bytes_out: Histogram::new(&BYTES),
        }
    }
}

impl ServiceSeries {
    pub(crate) fn count(&self, outcome: &Outcome) {
        self.requests.count(outcome.status);
        self.duration.observe(outcome.duration_us);
        if let Some(upstream) = outcome.upstream_us {
            self.upstream.observe(upstream);
        }
        self.bytes_in.observe(outcome.bytes_in);
        self.bytes_out.observe(outcome.bytes_out);
    }
}

/// What one worker counts of one instance.
#[derive(Debug)]
pub(crate) struct InstanceSeries {
    pub(super) requests: Requests,
    pub(super) upstream: Histogram<16>,
    /// Requests answered on a connection that was opened for them.
    pub(super) connections_new: Counter,
    /// Requests answered on a connection that had served others.
    pub(super) connections_reused: Counter,
}

impl Default for InstanceSeries {
    fn default() -> Self {
        Self {
            requests: Requests::default(),
            upstream: Histogram::new(&SECONDS),
            connections_new: Counter::default(),
            connections_reused: Counter::default(),
        }
    }
}

impl InstanceSeries {
    pub(crate) fn count(&self, outcome: &Outcome) {
        self.requests.count(outcome.status);
        if let Some(upstream) = outcome.upstream_us {
            self.upstream.observe(upstream);
        }
        match outcome.connection_reused {
            Some(true) => self.connections_reused.add(1),
            Some(false) => self.connections_new.add(1),
            None => {}
        }
    }
}

/// Two labels: route and service, or service and instance. The second may be empty.
pub(super) type Labels = (Box<str>, Box<str>);

/// The series of one kind that one worker has.
#[derive(Debug)]
pub(super) struct Ledger<S> {
    series: BTreeMap<Labels, Entry<S>>,
    /// Series at most, that for [`OTHER`] apart.
    series_max: usize,
}

#[derive(Debug)]
struct Entry<S> {
    series: Arc<S>,
    /// Since when nobody else holds the series, as far as was seen.
    unused_since: Option<Instant>,
}

impl<S: Default> Ledger<S> {
    pub(super) fn new(series_max: usize) -> Self {
        Self {
            series: BTreeMap::new(),
            series_max,
        }
    }

    /// The series of these labels, for its one writer.
    pub(super) fn open(&mut self, first: &str, second: &str) -> Arc<S> {
        let mut labels: Labels = (first.into(), second.into());
        if !self.series.contains_key(&labels) && self.series.len() >= self.series_max {
            self.series
                .retain(|_, entry| Arc::strong_count(&entry.series) > 1);
            if self.series.len() >= self.series_max {
                labels = (OTHER.into(), OTHER.into());
            }
        }
        let entry = self.series.entry(labels).or_insert_with(|| Entry {
            series: Arc::default(),
            unused_since: None,
        });
        entry.unused_since = None;
        Arc::clone(&entry.series)
    }

    /// Every series; forgets those that nobody has counted in for [`KEPT`].
    pub(super) fn read(&mut self, now: Instant, mut visit: impl FnMut(&Labels, &Arc<S>)) {
        self.series.retain(|labels, entry| {
            if Arc::strong_count(&entry.series) > 1 {
                entry.unused_since = None;
            } else if now.duration_since(*entry.unused_since.get_or_insert(now)) >= KEPT {
                return false;
            }
            visit(labels, &entry.series);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ledger: &mut Ledger<RouteSeries>, now: Instant) -> Vec<String> {
        let mut names = Vec::new();
        ledger.read(now, |labels, _| names.push(labels.0.to_string()));
        names
    }

    #[test]
    fn series_beyond_the_limit_are_counted_together() {
        let mut ledger = Ledger::<RouteSeries>::new(2);
        let held = [ledger.open("a", ""), ledger.open("b", "")];
        let other = ledger.open("c", "");
        assert!(Arc::ptr_eq(&other, &ledger.open("d", "")));
        assert!(Arc::ptr_eq(&held[0], &ledger.open("a", "")));
        assert_eq!(names(&mut ledger, Instant::now()), [OTHER, "a", "b"]);
    }

    #[test]
    fn a_full_ledger_makes_room_from_what_nobody_uses() {
        let mut ledger = Ledger::<RouteSeries>::new(2);
        let _held = ledger.open("a", "");
        drop(ledger.open("b", ""));
        let _new = ledger.open("c", "");
        assert_eq!(names(&mut ledger, Instant::now()), ["a", "c"]);
    }

    #[test]
    fn what_nobody_uses_is_shown_for_ten_minutes_more() {
        let mut ledger = Ledger::<RouteSeries>::new(10);
        let held = ledger.open("a", "");
        drop(ledger.open("b", ""));
        let start = Instant::now();
        assert_eq!(names(&mut ledger, start), ["a", "b"]);
        let last = start + KEPT - Duration::from_millis(1);
        assert_eq!(names(&mut ledger, last), ["a", "b"]);
        drop(held);
        assert_eq!(names(&mut ledger, start + KEPT), ["a"]);
        let again = ledger.open("a", "");
        assert_eq!(names(&mut ledger, start + KEPT * 3), ["a"]);
        drop(again);
    }
}
