//! How long an instance takes to answer: a moving average that remembers peaks.
//!
//! A slower answer than the average is believed at once, a quicker one little by little, by the
//! time since the last (exponential decay). So one stall moves load away at once, and it comes back
//! slowly. After Finagle's Peak EWMA, which linkerd took over.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The cost in seconds of an instance that has answered nothing yet but has requests under way: it
/// may be very slow, so others are preferred until it has shown what it does.
const UNKNOWN_COST: f64 = 1e6;

/// The average of one instance, as one worker sees it.
#[derive(Debug)]
pub(crate) struct PeakEwma {
    /// The time after which a peak counts for 1/e of what it was.
    decay: Cell<Duration>,
    /// Seconds, and when they were last looked at; `None`: nothing is known yet.
    average: Cell<Option<(f64, Instant)>>,
}

impl PeakEwma {
    /// An average without values. `decay` is more than nothing.
    pub(crate) fn new(decay: Duration) -> Self {
        Self {
            decay: Cell::new(decay),
            average: Cell::new(None),
        }
    }

    /// Remembers peaks for a longer or shorter time from now on.
    pub(crate) fn set_decay(&self, decay: Duration) {
        self.decay.set(decay);
    }

    /// An answer that was complete `now` took `latency`.
    pub(crate) fn observe(&self, latency: Duration, now: Instant) {
        let latency = latency.as_secs_f64();
        let next = match self.average.get() {
            Some((average, at)) if latency < average => {
                let weight = self.weight(at, now);
                average * weight + latency * (1.0 - weight)
            }
            _ => latency,
        };
        self.average.set(Some((next, now)));
    }

    /// A request that failed `now` took `latency`: it counts if that is slower than the average.
    pub(crate) fn observe_peak(&self, latency: Duration, now: Instant) {
        if latency.as_secs_f64() > self.cost(0, now) {
            self.observe(latency, now);
        }
    }

    /// What one more request costs beside `in_flight` others: the time they will all take, by the
    /// average, in seconds. Without answers for long, a peak fades towards nothing.
    pub(crate) fn cost(&self, in_flight: u32, now: Instant) -> f64 {
        match self.average.get() {
            Some((average, at)) => average * self.weight(at, now) * f64::from(in_flight + 1),
            None if in_flight == 0 => 0.0,
            None => UNKNOWN_COST * f64::from(in_flight),
        }
    }

    fn weight(&self, since: Instant, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(since);
        (-passed.as_secs_f64() / self.decay.get().as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn cost(ewma: &PeakEwma, in_flight: u32, now: Instant) -> f64 {
        (ewma.cost(in_flight, now) * 1000.0).round() / 1000.0
    }

    #[test]
    fn peaks_are_believed_at_once_and_fade_slowly() {
        let (ewma, start) = (PeakEwma::new(10 * SECOND), Instant::now());
        ewma.observe(SECOND, start);
        assert_eq!(cost(&ewma, 0, start), 1.0);
        ewma.observe(3 * SECOND, start);
        assert_eq!(cost(&ewma, 0, start), 3.0, "a peak");
        assert_eq!(cost(&ewma, 1, start), 6.0, "and one under way");

        let later = start + 10 * SECOND;
        assert_eq!(cost(&ewma, 0, later), 1.104, "3 / e");
        ewma.observe(SECOND, later);
        assert_eq!(cost(&ewma, 0, later), 1.736, "3 / e + 1 * (1 - 1 / e)");
    }

    #[test]
    fn quick_failures_are_no_merit() {
        let (ewma, now) = (PeakEwma::new(10 * SECOND), Instant::now());
        ewma.observe(SECOND, now);
        ewma.observe_peak(SECOND / 2, now);
        assert_eq!(cost(&ewma, 0, now), 1.0);
        ewma.observe_peak(2 * SECOND, now);
        assert_eq!(cost(&ewma, 0, now), 2.0);
    }

    #[test]
    fn an_instance_nothing_is_known_of_gets_one_request_to_show_itself() {
        let (ewma, now) = (PeakEwma::new(10 * SECOND), Instant::now());
        assert_eq!(cost(&ewma, 0, now), 0.0);
        assert!(cost(&ewma, 1, now) > 1000.0);
        ewma.observe(SECOND / 100, now);
        assert_eq!(cost(&ewma, 1, now), 0.02);
    }
}
