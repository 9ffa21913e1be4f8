//! The retry budget: how much retries and hedges may add to the load of a service.
//!
//! When a service fails, every request that is tried again makes it worse. So each request earns a
//! share of a retry, and a retry must be paid for; a few a second are free, so that a service with
//! little traffic has retries too, and keep for ten seconds. In the long run retries are at most that share of the requests,
//! whatever the routes' `attempts` say. The balance is bounded, so quiet hours save up no storm.
//!
//! A worker keeps a budget of its own for each service: requests are counted where they are, with
//! one addition and no clock. What is free or limited per process is divided among the workers.

use std::cell::Cell;
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
    /// Earned with each request.
    percent: u32,
    /// What requests have earned.
    saved: Cell<u32>,
    /// Free retries a second.
    free_per_second: f64,
    /// Free retries there are, and since when.
    free: Cell<(f64, Option<Instant>)>,
    in_flight: Cell<u32>,
    in_flight_max: u32,
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
    /// The budget of one of so many `workers`.
    pub(crate) fn new(config: &RetryBudgetConfig, workers: usize) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let free_per_second = f64::from(config.min_per_second) / f64::from(workers);
        Self {
            config: config.clone(),
            percent: config.percent,
            saved: Cell::new(0),
            free_per_second,
            free: Cell::new((0.0, None)),
            in_flight: Cell::new(0),
            in_flight_max: config.in_flight_max.div_ceil(workers),
        }
    }

    /// Whether it was made from this.
    pub(crate) fn is_for(&self, config: &RetryBudgetConfig) -> bool {
        self.config == *config
    }

    /// A request has come.
    pub(crate) fn earn(&self) {
        let saved = self.saved.get() + self.percent;
        self.saved.set(saved.min(SAVED_MAX * RETRY));
    }

    /// Pays for a retry, which is under way as long as the value lives.
    pub(crate) fn pay(&self, now: Instant) -> Result<Retrying<'_>, Exhausted> {
        if self.in_flight.get() >= self.in_flight_max {
            return Err(Exhausted::InFlight);
        }
        // What is free is used first: it keeps for a shorter time.
        let free = self.free_at(now);
        if free >= 1.0 {
            self.free.set((free - 1.0, Some(now)));
        } else {
            let saved = self.saved.get().checked_sub(RETRY);
            self.saved.set(saved.ok_or(Exhausted::Budget)?);
        }
        self.in_flight.set(self.in_flight.get() + 1);
        Ok(Retrying(self))
    }

    /// Free retries: at most those of the seconds for which they keep.
    fn free_at(&self, now: Instant) -> f64 {
        let most = self.free_per_second * FREE_KEEPS;
        match self.free.get() {
            (_, None) => most,
            (free, Some(since)) => {
                let passed = now.saturating_duration_since(since).as_secs_f64();
                (free + passed * self.free_per_second).min(most)
            }
        }
    }
}

/// A retry under way.
#[derive(Debug)]
pub(crate) struct Retrying<'b>(&'b Budget);

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn budget(percent: u32, min_per_second: u32, in_flight_max: u32, workers: usize) -> Budget {
        let config = RetryBudgetConfig {
            percent,
            min_per_second,
            in_flight_max,
        };
        Budget::new(&config, workers)
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
            let budget = budget(percent, 0, 1000, 1);
            (0..requests).for_each(|_| budget.earn());
            let granted = granted(&budget, 2000, Instant::now());
            assert_eq!(granted, expected, "{percent} % of {requests}");
        }
    }

    #[test]
    fn some_a_second_are_free() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let budget = budget(20, 10, 1000, 2);
        // The share of one of two workers, and what has come in ten seconds before the start.
        assert_eq!(granted(&budget, 100, start), 50);
        assert_eq!(granted(&budget, 100, at(100)), 0);
        assert_eq!(granted(&budget, 100, at(400)), 2);
        assert_eq!(granted(&budget, 100, at(2000)), 8);
        assert_eq!(
            granted(&budget, 100, at(60_000)),
            50,
            "they do not keep for ever"
        );
    }

    #[test]
    fn less_than_one_a_second_comes_in_time() {
        let start = Instant::now();
        let budget = budget(0, 1, 1000, 4);
        assert_eq!(granted(&budget, 9, start), 2);
        assert_eq!(granted(&budget, 9, start + Duration::from_secs(1)), 0);
        assert_eq!(granted(&budget, 9, start + Duration::from_secs(2)), 1);
    }

    #[test]
    fn only_so_many_at_a_time() {
        let (budget, now) = (budget(0, 100, 3, 2), Instant::now());
        let held: Vec<_> = (0..2).map(|_| budget.pay(now).unwrap()).collect();
        assert_eq!(budget.pay(now).unwrap_err(), Exhausted::InFlight);
        drop(held);
        assert!(budget.pay(now).is_ok());
    }
}
