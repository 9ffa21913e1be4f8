//! When a second instance is asked: after a time, or when slower than most answers of late.
//!
//! The latencies of a route are counted in buckets that grow with their value (eight for each
//! doubling, so a percentile is at most an eighth too large), shared by all workers as atomics.
//! Every [`LOOK_EVERY`] answers the wait is worked out anew, and when there are many counts all are
//! halved, so that what was long ago fades.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::config::{HedgeAfter, HedgeConfig};

/// Answers after which the wait is worked out anew; before the first of these nobody is hedged.
const LOOK_EVERY: u64 = 128;
/// Counts at which all are halved.
const COUNTS_MAX: u64 = 4096;
/// Buckets for each doubling, as a power of two.
const STEPS_LOG2: u32 = 3;
/// Buckets: up to 2^32 microseconds, more than an hour.
const BUCKETS: usize = ((32 - STEPS_LOG2 as usize + 1) << STEPS_LOG2) + 1;

/// The hedging of one route.
#[derive(Debug)]
pub struct Hedge {
    config: HedgeConfig,
    /// For a percentile only.
    latencies: Option<Box<Latencies>>,
}

impl Hedge {
    /// Hedging as configured; nothing is known of latencies yet.
    pub fn new(config: HedgeConfig) -> Self {
        let latencies = match config.after {
            HedgeAfter::Time(_) => None,
            HedgeAfter::Percentile(percentile) => Some(Box::new(Latencies::new(percentile))),
        };
        Self { config, latencies }
    }

    /// Further instances asked at most.
    pub(crate) fn attempts(&self) -> u32 {
        self.config.attempts
    }

    /// How long to wait for an answer before the next instance is asked; `None`: for ever, as too
    /// little is known.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match (self.config.after, &self.latencies) {
            (HedgeAfter::Time(time), _) => Some(time),
            (HedgeAfter::Percentile(_), latencies) => latencies.as_ref()?.wait(),
        }
    }

    /// An instance took this long to answer.
    pub(crate) fn observe(&self, latency: Duration) {
        if let Some(latencies) = &self.latencies {
            latencies.observe(latency);
        }
    }
}

/// Latencies of late.
#[derive(Debug)]
struct Latencies {
    /// 50 to below 100.
    percentile: f64,
    counts: [AtomicU32; BUCKETS],
    observed: AtomicU64,
    /// The percentile in microseconds; 0: not known yet.
    wait_us: AtomicU64,
}

impl Latencies {
    fn new(percentile: f64) -> Self {
        Self {
            percentile,
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
            observed: AtomicU64::new(0),
            wait_us: AtomicU64::new(0),
        }
    }

    fn wait(&self) -> Option<Duration> {
        let micros = self.wait_us.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    fn observe(&self, latency: Duration) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.counts[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        let observed = self.observed.fetch_add(1, Ordering::Relaxed) + 1;
        // One of the workers comes by the number; what others count meanwhile is seen next time.
        if observed.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
    }

    fn look(&self) {
        let load = |count: &AtomicU32| u64::from(count.load(Ordering::Relaxed));
        let total: u64 = self.counts.iter().map(load).sum();
        let wanted = (total as f64 * self.percentile / 100.0).ceil() as u64;
        let mut below = 0;
        let reached = self.counts.iter().position(|count| {
            below += load(count);
            below >= wanted
        });
        let wait = upper_bound(reached.unwrap_or(BUCKETS - 1));
        self.wait_us.store(wait, Ordering::Relaxed);
        if total >= COUNTS_MAX {
            for count in &self.counts {
                let half = count.load(Ordering::Relaxed) / 2;
                count.store(half, Ordering::Relaxed);
            }
        }
    }
}

/// The bucket of a value: its highest bits.
fn bucket(value: u32) -> usize {
    let octave = value
        .checked_ilog2()
        .unwrap_or(0)
        .saturating_sub(STEPS_LOG2);
    ((octave << STEPS_LOG2) + (value >> octave)) as usize
}

/// The least value that is above all of a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let steps = 1 << STEPS_LOG2;
    if bucket < 2 * steps {
        return bucket as u64 + 1;
    }
    let octave = bucket / steps - 1;
    ((bucket - octave * steps + 1) as u64) << octave
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_an_eighth_wide() {
        let values = (0..100_000).chain([u32::MAX / 2, u32::MAX - 1, u32::MAX]);
        let mut last = 0;
        for value in values {
            let bucket = bucket(value);
            assert!(bucket >= last && bucket < BUCKETS, "{value} is in {bucket}");
            let bound = upper_bound(bucket);
            assert!(bound > u64::from(value), "{value}: {bound}");
            let most = u64::from(value) + u64::from(value) / 8 + 1;
            assert!(bound <= most, "{value}: {bound}");
            last = bucket;
        }
    }

    fn hedge(after: HedgeAfter) -> Hedge {
        Hedge::new(HedgeConfig { after, attempts: 1 })
    }

    #[test]
    fn a_time_is_a_time() {
        let time = Duration::from_millis(50);
        let hedge = hedge(HedgeAfter::Time(time));
        hedge.observe(Duration::from_secs(1));
        assert_eq!(hedge.wait(), Some(time));
    }

    #[test]
    fn a_percentile_is_known_after_some_answers() {
        let hedge = hedge(HedgeAfter::Percentile(90.0));
        let answers = |count, millis| {
            (0..count).for_each(|_| hedge.observe(Duration::from_millis(millis)));
        };
        answers(116, 1);
        answers(11, 100);
        assert_eq!(hedge.wait(), None);
        answers(1, 100);
        let wait = hedge.wait().unwrap();
        assert!(
            wait > Duration::from_millis(1) && wait < Duration::from_micros(1126),
            "{wait:?}"
        );

        // Slower from now on: once that is a tenth of all, it is what is waited for.
        answers(128, 100);
        let wait = hedge.wait().unwrap();
        assert!(
            wait > Duration::from_millis(100) && wait < Duration::from_millis(113),
            "{wait:?}"
        );

        // And what was long ago fades.
        answers(12_800, 1);
        answers(128, 2);
        let wait = hedge.wait().unwrap();
        assert!(wait < Duration::from_micros(1126), "{wait:?}");
    }
}
