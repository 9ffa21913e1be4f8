//! When to probe: every target at its own pace, spread out so that they do not all fire at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first probe comes within this time (or within one interval, if that is shorter): soon, because
/// a backend takes no flows before it, but not all thousands of them in the same millisecond.
const FIRST_WITHIN: Duration = Duration::from_millis(100);

/// Intervals vary by this many percent in both directions, so that the probes of several balancers do
/// not stay in step.
const JITTER_PERCENT: u32 = 10;

/// The waiting times of one target.
#[derive(Debug)]
pub(super) struct Schedule {
    every: Duration,
    /// Keyed afresh for each target: the source of randomness.
    random: RandomState,
    rounds: u64,
}

impl Schedule {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            random: RandomState::new(),
            rounds: 0,
        }
    }

    /// How long to wait before the first probe.
    pub(super) fn first(&mut self) -> Duration {
        let fraction = self.fraction();
        self.every.min(FIRST_WITHIN).mul_f64(fraction)
    }

    /// How long from the start of one probe to the start of the next.
    pub(super) fn next(&mut self) -> Duration {
        let fraction = self.fraction();
        jittered(self.every, fraction)
    }

    /// A number from 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.rounds += 1;
        self.random.hash_one(self.rounds) as f64 / u64::MAX as f64
    }
}

/// How much longer the longest interval of one target may be than the shortest of another.
pub(super) fn slack(every: Duration) -> Duration {
    2 * (every * JITTER_PERCENT / 100)
}

/// `every`, less 10 % at fraction 0 and plus 10 % at fraction 1.
fn jittered(every: Duration, fraction: f64) -> Duration {
    let spread = every * JITTER_PERCENT / 100;
    every - spread + (2 * spread).mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_ten_percent_in_both_directions() {
        let every = Duration::from_secs(10);
        let seconds = |fraction| jittered(every, fraction).as_secs_f64();
        assert_eq!(
            (seconds(0.0), seconds(0.5), seconds(1.0)),
            (9.0, 10.0, 11.0)
        );
        assert_eq!(seconds(0.0) + slack(every).as_secs_f64(), seconds(1.0));
    }

    #[test]
    fn waits_stay_within_their_bounds_and_differ() {
        let mut schedule = Schedule::new(Duration::from_secs(1));
        assert!(schedule.first() <= FIRST_WITHIN);
        let waits: Vec<_> = (0..1000).map(|_| schedule.next()).collect();
        let bounds = Duration::from_millis(900)..=Duration::from_millis(1100);
        assert!(waits.iter().all(|wait| bounds.contains(wait)));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }

    #[test]
    fn a_short_interval_bounds_the_first_wait() {
        let every = Duration::from_millis(1);
        assert!((0..100).all(|_| Schedule::new(every).first() <= every));
    }
}
