//! Copies of requests for a service whose answers nobody waits for.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Sends copies of some requests to a service.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Index into `Config::services`.
    pub service: usize,
    /// How many of the requests.
    pub share: Share,
    /// Request bodies up to this size are copied; requests with larger ones are not.
    pub body_bytes_max: usize,
    /// Copies under way at a time, over all workers; further ones are not made.
    pub in_flight_max: usize,
    /// Copies under way.
    pub in_flight: Arc<AtomicUsize>,
}

/// A part of all requests, from none to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Below `of`: that many of `of`.
    numerator: u64,
    of: u64,
}

impl Share {
    /// So many of so many; nothing if there are none, or more than all.
    pub fn new(numerator: u64, of: u64) -> Option<Self> {
        (of > 0 && numerator <= of).then_some(Self { numerator, of })
    }

    /// Percent from 0 to 100, to four digits behind the point.
    pub fn percent(percent: f64) -> Option<Self> {
        let fits = (0.0..=100.0).contains(&percent);
        fits.then(|| (percent * 10_000.0).round() as u64)
            .and_then(|parts| Self::new(parts, 1_000_000))
    }

    /// The share in percent.
    pub fn as_percent(self) -> f64 {
        self.numerator as f64 * 100.0 / self.of as f64
    }

    /// Whether a request is among them, by 64 random bits.
    pub fn takes(self, random: impl FnOnce() -> u64) -> bool {
        self.numerator == self.of
            || ((u128::from(random()) * u128::from(self.of)) >> 64) < u128::from(self.numerator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_take_what_they_say() {
        let half = 1 << 63;
        let table = [
            (Share::new(1, 1), u64::MAX, true),
            (Share::new(0, 1), 0, false),
            (Share::new(1, 2), half - 1, true),
            (Share::new(1, 2), half, false),
            (Share::percent(50.0), half - 1, true),
            (Share::percent(50.0), half, false),
            (Share::percent(0.0001), 0, true),
            (Share::percent(100.0), u64::MAX, true),
        ];
        for (share, random, expected) in table {
            assert_eq!(
                share.unwrap().takes(|| random),
                expected,
                "{share:?} {random}"
            );
        }
        for wrong in [Share::new(2, 1), Share::new(0, 0), Share::percent(100.1)] {
            assert_eq!(wrong, None);
        }
        assert_eq!(Share::percent(-1.0), None);
        assert_eq!(Share::percent(f64::NAN), None);
        assert!((Share::new(1, 8).unwrap().as_percent() - 12.5).abs() < 1e-9);
    }
}
