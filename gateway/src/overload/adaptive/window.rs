//! The latencies of one window, as a histogram with buckets that grow with what they hold.

use std::time::Duration;

/// Buckets for each doubling of the latency: a bucket is 1/8 of its octave wide, so a median
/// taken from its middle is wrong by at most 6 %.
const STEPS: usize = 8;
/// Doublings covered, from a microsecond to over an hour.
const OCTAVES: usize = 32;

/// What was measured since the window opened.
#[derive(Debug)]
pub(super) struct Window {
    buckets: Box<[u32; STEPS * OCTAVES]>,
    answers: u32,
    overloads: u32,
    /// The most requests that were in flight at the same time.
    in_flight_max: u32,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            buckets: Box::new([0; STEPS * OCTAVES]),
            answers: 0,
            overloads: 0,
            in_flight_max: 0,
        }
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, latency: Duration) {
        self.buckets[bucket(latency)] += 1;
        self.answers += 1;
    }

    /// A request ended in a way that says "too much".
    pub(super) fn overloaded(&mut self) {
        self.overloads += 1;
    }

    /// So many were in flight.
    pub(super) fn in_flight(&mut self, count: u32) {
        self.in_flight_max = self.in_flight_max.max(count);
    }

    pub(super) fn answers(&self) -> u32 {
        self.answers
    }

    pub(super) fn overloads(&self) -> u32 {
        self.overloads
    }

    pub(super) fn in_flight_max(&self) -> u32 {
        self.in_flight_max
    }

    /// The median latency; `None` if nothing was answered.
    pub(super) fn median(&self) -> Option<Duration> {
        let middle = self.answers.div_ceil(2);
        let mut below = 0;
        let found = self.buckets.iter().position(|count| {
            below += count;
            below >= middle && middle > 0
        })?;
        Some(middle_of(found))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.buckets.fill(0);
        self.answers = 0;
        self.overloads = 0;
        self.in_flight_max = 0;
    }
}

/// The bucket of a latency: its octave, and the step within.
fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros())
        .unwrap_or(u64::MAX)
        .clamp(1, (1 << OCTAVES) - 1);
    let octave = micros.ilog2() as usize;
    let step = ((micros - (1 << octave)) * STEPS as u64) >> octave;
    octave * STEPS + step as usize
}

/// The latency in the middle of a bucket.
fn middle_of(bucket: usize) -> Duration {
    let (octave, step) = (bucket / STEPS, bucket % STEPS);
    let width = (1_u64 << octave) as f64 / STEPS as f64;
    let micros = (1_u64 << octave) as f64 + width * (step as f64 + 0.5);
    Duration::from_nanos((micros * 1e3) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_near_the_middle_value() {
        // Latencies in microseconds, their median.
        let table: [(&[u64], u64); 5] = [
            (&[1000], 1000),
            (&[10, 20, 30_000], 20),
            (&[100, 100, 100, 1_000_000], 100),
            (&[5_000, 7_000], 5_000),
            (&[3_600_000_000; 3], 3_600_000_000),
        ];
        for (latencies, expected) in table {
            let mut window = Window::new();
            for micros in latencies {
                window.answered(Duration::from_micros(*micros));
            }
            let median = window.median().unwrap().as_secs_f64() * 1e6;
            let error = (median - expected as f64).abs() / expected as f64;
            assert!(error <= 0.0625, "{latencies:?}: {median}");
        }
    }

    #[test]
    fn extremes_have_a_bucket_and_nothing_has_no_median() {
        let mut window = Window::new();
        assert_eq!(window.median(), None);
        window.overloaded();
        assert_eq!(window.median(), None);
        window.answered(Duration::ZERO);
        window.answered(Duration::MAX);
        assert_eq!(window.answers(), 2);
        window.clear();
        assert_eq!((window.answers(), window.median()), (0, None));
    }
}
