//! The retry budget: how much retries and hedges may add to the load of a service.
//!
//! When a service fails, every request that is tried again makes it worse. So each request earns a
//! share of a retry, and a retry must be paid for; a few a second are free, so that a service with
//! little traffic has retries too, and keep for ten seconds. In the long run retries are at most that share of the requests,
//! whatever the routes' `attempts` say. The balance is bounded, so quiet hours save up no storm.
//!
//! What requests earn a worker keeps for itself: they are counted where they are, with one addition
//! and no clock. What is free, and how many retries there may be at a time, is shared by all workers
//! ([`Retries`]), and looked at only where there is a retry.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::RetryBudgetConfig;

/// What a retry costs, in what requests earn per percent.
const RETRY: u32 = 100;
/// Retries that may be saved up from requests: enough to move what is under way at a busy instance
/// that dies.
const SAVED_MAX: u32 = 1000;
/// Seconds for which free retries keep.
const FREE_KEEPS: f64 = 10.0;

/// The budget of one worker for one service.
#[derive(Debug)]
pub(crate) struct Budget {
    config: RetryBudgetConfig,
    /// What requests have earned.
    saved: Cell<u32>,
    retries: Arc<Retries>,
}

/// The retries of one service, by all workers.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    /// Free ones there were, and when; `None`: none was used yet.
    free: Mutex<Option<(f64, Instant)>>,
    in_flight: AtomicU32,
}

impl Retries {
    /// Takes a free one, of so many a second, if there is one.
    fn take_free(&self, per_second: f64, now: Instant) -> bool {
        let most = per_second * FREE_KEEPS;
        // A panic cannot leave it half changed.
        let mut known = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = known.map_or(most, |(free, since)| {
            let passed = now.saturating_duration_since(since).as_secs_f64();
            (free + passed * per_second).min(most)
        });
        let taken = free >= 1.0;
        if taken {
            *known = Some((free - 1.0, now));
        }
        taken
    }

    /// Counts one more under way, if there are fewer than `max`.
    fn begin(&self, max: u32) -> Option<Retrying<'_>> {
        let more = |count: u32| (count < max).then_some(count + 1);
        let counted = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.ok().map(|_| Retrying(self))
    }
}

/// Why there is no retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// Too many for the requests there were.
    Budget,
    /// Too many at a time.
    InFlight,
}

impl Exhausted {
    /// The labels in metrics.
    pub(crate) const NAMES: [&str; 2] = ["budget", "in-flight"];
}

impl Budget {
    /// The budget of one worker, beside others with the same `retries`.
    pub(crate) fn new(config: &RetryBudgetConfig, retries: Arc<Retries>) -> Self {
        Self {
            config: config.clone(),
            saved: Cell::new(0),
            retries,
        }
    }

    /// Whether it was made from this.
    pub(crate) fn is_for(&self, config: &RetryBudgetConfig) -> bool {
        self.config == *config
    }

    /// A request has come.
    pub(crate) fn earn(&self) {
        let saved = self.saved.get() + self.config.percent;
        self.saved.set(saved.min(SAVED_MAX * RETRY));
    }

    /// Pays for a retry, which is under way as long as the value lives.
    pub(crate) fn pay(&self, now: Instant) -> Result<Retrying<'_>, Exhausted> {
        let retrying = self.retries.begin(self.config.in_flight_max);
        let retrying = retrying.ok_or(Exhausted::InFlight)?;
        // What is free is used first: it keeps for a shorter time.
        let per_second = f64::from(self.config.min_per_second);
        if !self.retries.take_free(per_second, now) {
            let saved = self.saved.get().checked_sub(RETRY);
            self.saved.set(saved.ok_or(Exhausted::Budget)?);
        }
        Ok(retrying)
    }
}

/// A retry under way.
#[derive(Debug)]
pub(crate) struct Retrying<'r>(&'r Retries);

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The budgets of two workers.
    fn budgets(percent: u32, min_per_second: u32, in_flight_max: u32) -> [Budget; 2] {
        let config = RetryBudgetConfig {
            percent,
            min_per_second,
            in_flight_max,
        };
        let retries = Arc::default();
        [(); 2].map(|()| Budget::new(&config, Arc::clone(&retries)))
    }

    /// How many of `wanted` retries there are, one after the other.
    fn granted(budget: &Budget, wanted: usize, now: Instant) -> usize {
        (0..wanted).filter(|_| budget.pay(now).is_ok()).count()
    }

    #[test]
    fn requests_earn_their_share_of_retries() {
        // Percent, requests, retries granted of 2000 wanted.
        let table = [
            (20, 0, 0),
            (20, 4, 0),
            (20, 5, 1),
            (20, 100, 20),
            (20, 499, 99),
            (20, 100_000, 1000),
            (100, 7, 7),
            (1000, 2, 20),
            (0, 1000, 0),
        ];
        for (percent, requests, expected) in table {
            let [budget, _] = budgets(percent, 0, 1000);
            (0..requests).for_each(|_| budget.earn());
            let granted = granted(&budget, 2000, Instant::now());
            assert_eq!(granted, expected, "{percent} % of {requests}");
        }
    }

    #[test]
    fn some_a_second_are_free() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let [one, other] = budgets(20, 10, 1000);
        // What has come in ten seconds before the start is there for whoever needs it.
        assert_eq!(granted(&one, 70, start), 70);
        assert_eq!(granted(&other, 100, start), 30);
        assert_eq!(granted(&one, 100, start), 0);
        assert_eq!(granted(&one, 100, at(100)), 1);
        assert_eq!(granted(&other, 100, at(400)), 3);
        assert_eq!(granted(&one, 100, at(2000)), 16);
        let late = granted(&one, 200, at(60_000));
        assert_eq!(late, 100, "they do not keep for ever");
    }

    #[test]
    fn less_than_one_a_look_comes_in_time() {
        let start = Instant::now();
        let [budget, _] = budgets(0, 1, 1000);
        assert_eq!(granted(&budget, 99, start), 10);
        assert_eq!(granted(&budget, 9, start + Duration::from_millis(500)), 0);
        assert_eq!(granted(&budget, 9, start + Duration::from_secs(1)), 1);
    }

    #[test]
    fn only_so_many_at_a_time() {
        let ([one, other], now) = (budgets(0, 100, 3), Instant::now());
        let held = [one.pay(now).unwrap(), other.pay(now).unwrap()];
        let last = one.pay(now).unwrap();
        assert_eq!(other.pay(now).unwrap_err(), Exhausted::InFlight);
        drop(last);
        assert!(other.pay(now).is_ok());
        drop(held);
    }
}
