//! The circuit breaker of a service: when too much of it fails, requests are refused at once.
//!
//! Closed, it counts requests and failures over a sliding window. When the share of failures is too
//! large it opens: for a time everything is refused, so that neither the service nor those who
//! wait for it are loaded for nothing. Then it is half open: a few requests are let through, and
//! only if all of them are answered well does it close; the first failure opens it again.
//!
//! Shared by all workers. While it is closed a request costs a read and two additions; the lock is
//! taken only while it is not. What is wrong with a single instance is for [`outlier`](super::outlier),
//! which is the breaker of that.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::BreakerConfig;

/// Parts of the window; it moves by one of them at a time.
const SLOTS: u64 = 10;

/// The breaker of one service.
#[derive(Debug)]
pub(crate) struct Breaker {
    service: Arc<str>,
    config: BreakerConfig,
    epoch: Instant,
    slots: [Slot; SLOTS as usize],
    /// Whether `state` is worth a look.
    open: AtomicBool,
    state: Mutex<Open>,
    openings: AtomicU64,
}

/// What was counted in one part of the window.
#[derive(Debug, Default)]
struct Slot {
    /// Which part, counted from the epoch, plus one.
    number: AtomicU64,
    requests: AtomicU32,
    failed: AtomicU32,
}

/// What is so while the breaker is not closed.
#[derive(Debug, Default)]
struct Open {
    /// `None`: it is closed.
    until: Option<Instant>,
    /// Probes under way or answered well.
    probes: u32,
    /// Probes answered well.
    good: u32,
    /// Which opening this is: a probe of an earlier one says nothing any more.
    number: u64,
}

impl Breaker {
    pub(crate) fn new(service: Arc<str>, config: BreakerConfig, epoch: Instant) -> Self {
        Self {
            service,
            config,
            epoch,
            slots: Default::default(),
            open: AtomicBool::new(false),
            state: Mutex::default(),
            openings: AtomicU64::new(0),
        }
    }

    /// What it was made from.
    pub(crate) fn config(&self) -> &BreakerConfig {
        &self.config
    }

    /// Whether requests are refused, or let through as probes only.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// How often it has opened.
    pub(crate) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// How long it will refuse everything, not at all if it lets probes through; `None`: it is
    /// closed.
    pub(crate) fn open_for(&self, now: Instant) -> Option<Duration> {
        let until = self.lock().until?;
        Some(until.saturating_duration_since(now))
    }

    /// It was open in an earlier process, and stays so for what is `left` of it.
    pub(crate) fn stay_open(&self, left: Duration, now: Instant) {
        let mut open = self.lock();
        if open.until.is_none() {
            open.until = Some(now + left.min(self.config.open));
            open.number += 1;
            self.open.store(true, Ordering::Relaxed);
        }
    }

    /// Lets a request through, or says how long none will be.
    pub(crate) fn admit(&self, now: Instant) -> Result<Pass<'_>, Duration> {
        let pass = |probe| Pass {
            breaker: self,
            probe,
            reported: false,
        };
        if !self.is_open() {
            return Ok(pass(None));
        }
        let mut open = self.lock();
        let Some(until) = open.until else {
            return Ok(pass(None));
        };
        if now < until {
            return Err(until - now);
        }
        if open.probes >= self.config.probes {
            // The probes under way will tell; they take no longer than any request.
            return Err(Duration::ZERO);
        }
        open.probes += 1;
        Ok(pass(Some(open.number)))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the outcome of a request that came in while it was closed.
    fn count(&self, good: bool, now: Instant) {
        let slot = self.slot(now);
        slot.requests.fetch_add(1, Ordering::Relaxed);
        if good {
            return;
        }
        slot.failed.fetch_add(1, Ordering::Relaxed);
        let (requests, failed) = self.sums(now);
        let over = failed * 100 >= u64::from(self.config.failure_percent) * requests;
        if over && requests >= u64::from(self.config.requests_min) && !self.is_open() {
            self.trip(&mut self.lock(), now);
        }
    }

    fn trip(&self, open: &mut Open, now: Instant) {
        open.until = Some(now + self.config.open);
        (open.probes, open.good) = (0, 0);
        open.number += 1;
        self.open.store(true, Ordering::Relaxed);
        self.openings.fetch_add(1, Ordering::Relaxed);
        let (service, length) = (&self.service, self.config.open);
        tracing::warn!(%service, ?length, "the circuit breaker opens");
    }

    /// Takes the outcome of a probe; `None`: it was given up without one.
    fn probed(&self, number: u64, good: Option<bool>, now: Instant) {
        let mut open = self.lock();
        if open.number != number || open.until.is_none() {
            return;
        }
        match good {
            None => open.probes -= 1,
            Some(false) => self.trip(&mut open, now),
            Some(true) => {
                open.good += 1;
                if open.good >= self.config.probes {
                    open.until = None;
                    self.forget();
                    self.open.store(false, Ordering::Relaxed);
                    tracing::info!(service = %self.service, "the circuit breaker closes");
                }
            }
        }
    }

    fn number(&self, now: Instant) -> u64 {
        let width = (self.config.window.as_micros() as u64 / SLOTS).max(1);
        let passed = now.saturating_duration_since(self.epoch).as_micros() as u64;
        passed / width + 1
    }

    /// The part of the window `now` is in, emptied if it was of an earlier round. A count that
    /// comes between the two steps of emptying is lost, which changes nothing.
    fn slot(&self, now: Instant) -> &Slot {
        let number = self.number(now);
        let slot = &self.slots[(number % SLOTS) as usize];
        let known = slot.number.load(Ordering::Relaxed);
        let order = Ordering::Relaxed;
        if known < number
            && slot
                .number
                .compare_exchange(known, number, order, order)
                .is_ok()
        {
            slot.requests.store(0, Ordering::Relaxed);
            slot.failed.store(0, Ordering::Relaxed);
        }
        slot
    }

    /// Requests and failures within the window.
    fn sums(&self, now: Instant) -> (u64, u64) {
        let number = self.number(now);
        let within = |slot: &&Slot| slot.number.load(Ordering::Relaxed) + SLOTS > number;
        let slots = self.slots.iter().filter(within);
        slots.fold((0, 0), |(requests, failed), slot| {
            let load = |count: &AtomicU32| u64::from(count.load(Ordering::Relaxed));
            (requests + load(&slot.requests), failed + load(&slot.failed))
        })
    }

    fn forget(&self) {
        for slot in &self.slots {
            slot.requests.store(0, Ordering::Relaxed);
            slot.failed.store(0, Ordering::Relaxed);
        }
    }
}

/// A request that was let through. Dropped without a report, it says nothing about the service.
#[derive(Debug)]
pub(crate) struct Pass<'b> {
    breaker: &'b Breaker,
    /// The opening it probes the service after.
    probe: Option<u64>,
    reported: bool,
}

impl Pass<'_> {
    /// The request was answered, well or not.
    pub(crate) fn report(mut self, good: bool, now: Instant) {
        self.reported = true;
        match self.probe {
            None => self.breaker.count(good, now),
            Some(number) => self.breaker.probed(number, Some(good), now),
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let (Some(number), false) = (self.probe, self.reported) {
            // The time matters to a failed probe only.
            self.breaker.probed(number, None, self.breaker.epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(epoch: Instant) -> Breaker {
        let config = BreakerConfig {
            failure_percent: 50,
            requests_min: 4,
            window: 10 * SECOND,
            open: 5 * SECOND,
            probes: 2,
        };
        Breaker::new("app".into(), config, epoch)
    }

    /// `+` and `-` for requests answered well or not; returns how many were refused.
    fn requests(breaker: &Breaker, outcomes: &str, now: Instant) -> usize {
        let refused = outcomes.chars().filter(|outcome| match breaker.admit(now) {
            Ok(pass) => {
                pass.report(*outcome == '+', now);
                false
            }
            Err(_) => true,
        });
        refused.count()
    }

    #[test]
    fn it_opens_when_the_share_of_failures_is_too_large() {
        // Outcomes by second; whether it is open after the last.
        let table: [(&str, &[&str], bool); 7] = [
            ("half", &["++--"], true),
            ("less than half", &["+++--"], false),
            ("too few", &["---"], false),
            ("over some seconds", &["-", "+", "-", "-"], true),
            ("good ones do not open", &["---", "", "", "+"], false),
            (
                "long ago",
                &["---", "", "", "", "", "", "", "", "", "", "", "-"],
                false,
            ),
            (
                "just within the window",
                &["---", "", "", "", "", "", "", "", "", "-"],
                true,
            ),
        ];
        for (what, seconds, open) in table {
            let start = Instant::now();
            let breaker = breaker(start);
            for (second, outcomes) in (0..).zip(seconds) {
                requests(&breaker, outcomes, start + SECOND * second);
            }
            assert_eq!(breaker.is_open(), open, "{what}");
        }
    }

    #[test]
    fn open_it_refuses_and_says_for_how_long() {
        let start = Instant::now();
        let breaker = breaker(start);
        assert_eq!(requests(&breaker, "----++", start), 2);
        let refused = breaker.admit(start + 2 * SECOND).unwrap_err();
        assert_eq!(refused, 3 * SECOND);
        assert_eq!(breaker.openings(), 1);
    }

    #[test]
    fn half_open_it_closes_after_good_probes() {
        let start = Instant::now();
        let breaker = breaker(start);
        requests(&breaker, "----", start);
        let later = start + 5 * SECOND;
        let first = breaker.admit(later).unwrap();
        let second = breaker.admit(later).unwrap();
        assert_eq!(
            breaker.admit(later).unwrap_err(),
            Duration::ZERO,
            "two at a time"
        );
        first.report(true, later);
        assert!(breaker.is_open());
        second.report(true, later);
        assert!(!breaker.is_open());
        assert_eq!(
            requests(&breaker, "---", later),
            0,
            "what was before is forgotten"
        );
        assert!(!breaker.is_open());
    }

    #[test]
    fn half_open_it_opens_again_after_a_bad_probe() {
        let start = Instant::now();
        let breaker = breaker(start);
        requests(&breaker, "----", start);
        let later = start + 5 * SECOND;
        let (good, bad) = (breaker.admit(later).unwrap(), breaker.admit(later).unwrap());
        bad.report(false, later);
        good.report(true, later);
        assert_eq!(breaker.admit(later).unwrap_err(), 5 * SECOND);
        assert_eq!(breaker.openings(), 2);
    }

    #[test]
    fn a_probe_that_is_given_up_makes_room_for_another() {
        let start = Instant::now();
        let breaker = breaker(start);
        requests(&breaker, "----", start);
        let later = start + 5 * SECOND;
        let probes: Vec<_> = (0..2).map(|_| breaker.admit(later).unwrap()).collect();
        assert!(breaker.admit(later).is_err());
        drop(probes);
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn late_answers_do_not_open_it_twice() {
        let start = Instant::now();
        let breaker = breaker(start);
        let late: Vec<_> = (0..8).map(|_| breaker.admit(start).unwrap()).collect();
        for pass in late {
            pass.report(false, start);
        }
        assert_eq!(breaker.openings(), 1);
    }
}
