//! Ejection of outliers: an instance whose answers fail is left out for a while.
//!
//! Two signs are looked at. Failures in a row are counted with each answer, and act at once. Rates
//! are taken over an interval by one task for all workers: an instance that fails for too large a
//! share of its requests, or whose rate of success lies too far below that of the others. The
//! counts are atomics of the instance, shared by all workers, so a reload does not forget them.
//!
//! An ejection is [`Bar::Ejected`] until a time. Each one of an instance is longer than the last;
//! an interval without one takes the next a step back. Never too many are ejected at a time: what
//! is wrong with all of them is not put right by using none.
//!
//! This is the circuit breaker of a single instance; there is no other beside it. Failures in a row
//! open it, it closes by time, and what comes then is its probe: one failure is not enough to open
//! it again, but the next opening is longer. A breaker that let only a few requests through would
//! add nothing where other instances take the rest; where there are none, ejection stops short of
//! the last, and the [`breaker`](super::breaker) of the service decides.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::availability::Bar;
use super::instance::Instance;
use crate::config::OutlierConfig;

/// What an attempt to get an answer from an instance came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer that is no fault of the instance.
    Good,
    /// A 5xx that the instance may mean.
    ServerError,
    /// No connection, no answer, or 502 to 504.
    Failure,
}

impl Outcome {
    /// What an answer with this status says about the instance.
    pub(crate) fn of_status(status: http::StatusCode) -> Self {
        match status.as_u16() {
            502..=504 => Self::Failure,
            500..=599 => Self::ServerError,
            _ => Self::Good,
        }
    }
}

/// What was counted of one instance.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    failures_in_row: AtomicU32,
    errors_in_row: AtomicU32,
    /// Of the interval.
    requests: AtomicU32,
    failed: AtomicU32,
    /// How often the next ejection is as long as the first, less one.
    step: AtomicU32,
    ejections: AtomicU64,
}

impl Tally {
    /// How often the instance was ejected.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// How often the next ejection is as long as the first, less one.
    pub(crate) fn step(&self) -> u32 {
        self.step.load(Ordering::Relaxed)
    }

    /// The same, known from an earlier process.
    pub(crate) fn set_step(&self, step: u32) {
        self.step.store(step, Ordering::Relaxed);
    }

    fn counts(&self) -> Counts {
        Counts {
            requests: self.requests.swap(0, Ordering::Relaxed),
            failed: self.failed.swap(0, Ordering::Relaxed),
        }
    }
}

/// Requests of an interval, and how many of them failed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counts {
    requests: u32,
    failed: u32,
}

/// Why an instance is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    ConsecutiveFailures,
    Consecutive5xx,
    FailurePercent,
    SuccessRate,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive-failures",
            Self::Consecutive5xx => "consecutive-5xx",
            Self::FailurePercent => "failure-percent",
            Self::SuccessRate => "success-rate",
        }
    }
}

/// The outliers of one service.
#[derive(Debug)]
pub(crate) struct Outliers {
    service: Arc<str>,
    config: OutlierConfig,
    instances: Vec<Arc<Instance>>,
    /// Held while one is ejected, so that two workers do not eject one too many.
    ejecting: Mutex<()>,
}

impl Outliers {
    pub(crate) fn new(
        service: Arc<str>,
        config: OutlierConfig,
        instances: Vec<Arc<Instance>>,
    ) -> Self {
        Self {
            service,
            config,
            instances,
            ejecting: Mutex::default(),
        }
    }

    /// Whether these are the instances it looks at, in this way.
    pub(crate) fn is_for(&self, config: &OutlierConfig, instances: &[Arc<Instance>]) -> bool {
        let pairs = || self.instances.iter().zip(instances);
        self.config == *config
            && self.instances.len() == instances.len()
            && pairs().all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Counts an outcome, and ejects the instance if it was one too many.
    pub(crate) fn observe(&self, instance: &Instance, outcome: Outcome, now: Instant) {
        let tally = &instance.tally;
        if self.takes_rates() {
            tally.requests.fetch_add(1, Ordering::Relaxed);
            let failed = u32::from(outcome != Outcome::Good);
            tally.failed.fetch_add(failed, Ordering::Relaxed);
        }
        let failures = in_row(&tally.failures_in_row, outcome == Outcome::Failure);
        let errors = in_row(&tally.errors_in_row, outcome != Outcome::Good);
        if failures >= self.config.consecutive_failures {
            self.eject(instance, Cause::ConsecutiveFailures, now);
        } else if self.config.consecutive_5xx.is_some_and(|max| errors >= max) {
            self.eject(instance, Cause::Consecutive5xx, now);
        }
    }

    /// An answer that was counted as good broke off. That shows in the rates only: how many in a
    /// row were good is known when their heads come.
    pub(crate) fn broke_off(&self, instance: &Instance) {
        if self.takes_rates() {
            instance.tally.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn takes_rates(&self) -> bool {
        self.config.failure_percent.is_some() || self.config.success_deviations.is_some()
    }

    /// Leaves the instance out, unless it is out already or too many are.
    fn eject(&self, instance: &Instance, cause: Cause, now: Instant) {
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_out = |one: &Instance| one.availability.is_barred(Bar::Ejected, now);
        let out = self.instances.iter().filter(|one| is_out(one)).count();
        let percent = self.config.ejected_percent_max;
        if is_out(instance) || out >= ejected_max(self.instances.len(), percent) {
            return;
        }
        let tally = &instance.tally;
        tally.failures_in_row.store(0, Ordering::Relaxed);
        tally.errors_in_row.store(0, Ordering::Relaxed);
        tally.ejections.fetch_add(1, Ordering::Relaxed);
        let step = tally.step.fetch_add(1, Ordering::Relaxed);
        let length = self.length(step);
        instance.availability.bar(Bar::Ejected, Some(now + length));
        let (service, instance, cause) = (&self.service, &instance.name, cause.name());
        tracing::warn!(%service, %instance, cause, ?length, "instance is ejected");
    }

    /// How long the ejection after `step` others is.
    fn length(&self, step: u32) -> Duration {
        let longer = self.config.ejection.checked_mul(step.saturating_add(1));
        longer.map_or(self.config.ejection_max, |longer| {
            longer.min(self.config.ejection_max)
        })
    }

    /// Ends an interval: looks at the rates, and lets those that behaved forget a step.
    fn interval(&self, now: Instant) {
        let counts: Vec<Counts> = self
            .instances
            .iter()
            .map(|one| one.tally.counts())
            .collect();
        for (instance, cause) in by_rates(&counts, &self.config) {
            self.eject(&self.instances[instance], cause, now);
        }
        for instance in &self.instances {
            if !instance.availability.is_barred(Bar::Ejected, now) {
                let forget = |step: u32| step.checked_sub(1);
                let step = &instance.tally.step;
                // Nothing to forget is no error.
                let _ = step.fetch_update(Ordering::Relaxed, Ordering::Relaxed, forget);
            }
        }
    }
}

/// Adds to a number of things in a row, or starts over; returns the number.
fn in_row(count: &AtomicU32, one_more: bool) -> u32 {
    if one_more {
        return count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    }
    // Read first: the usual answer is good, and then no cache line changes hands.
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
    0
}

/// How many of `count` instances may be ejected at a time: `percent` of them, but one in any case,
/// and never the last.
fn ejected_max(count: usize, percent: u32) -> usize {
    let share = count * percent as usize / 100;
    share.max(1).min(count.saturating_sub(1))
}

/// Who is to be ejected by the rates of an interval.
fn by_rates(counts: &[Counts], config: &OutlierConfig) -> Vec<(usize, Cause)> {
    let looked_at = |counts: &Counts| counts.requests >= config.requests_min;
    let rate = |counts: &Counts| 1.0 - f64::from(counts.failed) / f64::from(counts.requests);
    let rates: Vec<f64> = counts
        .iter()
        .filter(|one| looked_at(one))
        .map(rate)
        .collect();
    let least = config
        .success_deviations
        .filter(|_| rates.len() >= config.instances_min as usize)
        .map_or(0.0, |deviations| lower_bound(&rates, deviations));
    let judge = |counts: &Counts| {
        let percent = u64::from(config.failure_percent?) * u64::from(counts.requests);
        (u64::from(counts.failed) * 100 >= percent).then_some(Cause::FailurePercent)
    };
    let judged = counts.iter().enumerate().filter(|(_, one)| looked_at(one));
    judged
        .filter_map(|(index, one)| {
            let low = (rate(one) < least).then_some(Cause::SuccessRate);
            Some((index, judge(one).or(low)?))
        })
        .collect()
}

/// The mean less so many standard deviations.
fn lower_bound(rates: &[f64], deviations: f64) -> f64 {
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    mean - deviations * variance.sqrt()
}

/// Ends each interval, forever. Says when an instance is back.
pub(crate) async fn watch(outliers: Arc<Outliers>) {
    /// How late a return may be noticed.
    const LOOK_EVERY: Duration = Duration::from_secs(1);

    let every = outliers.config.every;
    let mut out = vec![false; outliers.instances.len()];
    let mut ends = Instant::now() + every;
    loop {
        let look = Instant::now() + LOOK_EVERY;
        tokio::time::sleep_until(ends.min(look).into()).await;
        let now = Instant::now();
        if now >= ends {
            outliers.interval(now);
            ends = now + every;
        }
        for (instance, was_out) in outliers.instances.iter().zip(&mut out) {
            let is_out = instance.availability.is_barred(Bar::Ejected, now);
            if *was_out && !is_out {
                let (service, instance) = (&outliers.service, &instance.name);
                tracing::info!(%service, %instance, "the ejection of an instance is over");
            }
            *was_out = is_out;
        }
    }
}

#[cfg(test)]
mod tests;
