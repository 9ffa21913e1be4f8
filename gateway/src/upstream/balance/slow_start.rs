//! Slow start: an instance that is new, or healthy again, takes its full share only after a while,
//! so that cold caches and compilers do not meet full load at once.

use std::time::{Duration, Instant};

/// The share an instance begins with: enough to warm up by, and never none at all.
const SHARE_MIN: f64 = 0.1;
/// Steps of the way from the first share to the full one.
const STEPS: u32 = 20;
/// Bounds of the length of a step.
const STEP_MIN: Duration = Duration::from_millis(20);
const STEP_MAX: Duration = Duration::from_secs(1);

/// The share of its weight, from 0.1 to 1, that an instance usable since `since` has `now`: linear
/// over `window`, which is more than nothing.
pub(crate) fn share(since: Instant, now: Instant, window: Duration) -> f64 {
    let age = now.saturating_duration_since(since);
    (age.as_secs_f64() / window.as_secs_f64()).clamp(SHARE_MIN, 1.0)
}

/// How long a share may be used before it is looked at again.
pub(crate) fn step(window: Duration) -> Duration {
    (window / STEPS).clamp(STEP_MIN, STEP_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_in_a_straight_line() {
        let window = Duration::from_secs(10);
        let table = [
            (0, 0.1),
            (500, 0.1),
            (1000, 0.1),
            (2500, 0.25),
            (5000, 0.5),
            (10_000, 1.0),
            (60_000, 1.0),
        ];
        let since = Instant::now();
        for (age_ms, expected) in table {
            let now = since + Duration::from_millis(age_ms);
            assert!(
                (share(since, now, window) - expected).abs() < 1e-9,
                "{age_ms} ms"
            );
        }
    }

    #[test]
    fn steps_are_bounded() {
        assert_eq!(step(Duration::from_millis(100)), STEP_MIN);
        assert_eq!(step(Duration::from_secs(10)), Duration::from_millis(500));
        assert_eq!(step(Duration::from_secs(3600)), STEP_MAX);
    }
}
