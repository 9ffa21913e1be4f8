//! Whether an instance may be used: everything that speaks against it, shared by all workers.
//!
//! Whoever finds fault with an instance sets a [`Bar`], for a time or until it is lifted. Bars are
//! independent of each other: an instance is usable when none stands. Each change counts up the
//! [`Changes`] of the service, so that a worker looks at the instances again only when something
//! about them has changed, not with every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a failed connection keeps an instance from being chosen while others are usable.
pub(crate) const SUSPECT_FOR: Duration = Duration::from_secs(2);

/// How far back times are known at most: what an earlier process knew of an instance.
pub(crate) const REACH: Duration = Duration::from_secs(24 * 60 * 60);

/// No bar.
const FREE: u64 = 0;
/// A bar that stands until it is lifted.
const UNTIL_LIFTED: u64 = u64::MAX;

/// What may speak against using an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bar {
    /// Active checks find it unhealthy.
    Check,
    /// It answered worse than others and is left out for a while: its circuit breaker, so to say.
    Ejected,
    /// A connection to it failed a moment ago: it is used only where no other is left.
    Suspect,
}

impl Bar {
    /// Bars that keep an instance from being used at all.
    const HARD: [Self; 2] = [Self::Check, Self::Ejected];
    const COUNT: usize = 3;
}

/// Counts changes of a service's instances. Shared by all that see the same service.
#[derive(Debug, Default)]
pub(crate) struct Changes(AtomicU64);

impl Changes {
    /// The number of changes so far.
    pub(crate) fn count(&self) -> u64 {
        // Acquire: whoever sees the count also sees what was changed before it.
        self.0.load(Ordering::Acquire)
    }

    /// Something has changed.
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// What is known against one instance. Usable until shown otherwise: a gateway that starts must
/// not refuse its first requests.
#[derive(Debug)]
pub(crate) struct Availability {
    /// Where the times below are counted from.
    epoch: Instant,
    /// By [`Bar`]: until when it stands, in milliseconds after `epoch`.
    bars: [AtomicU64; Bar::COUNT],
    /// Since when no hard bar stands, in milliseconds after `epoch`, plus one; 0: since ever.
    usable_since: AtomicU64,
    changes: Arc<Changes>,
}

impl Availability {
    /// An instance nothing is known against `now`.
    pub(crate) fn new(now: Instant, changes: Arc<Changes>) -> Self {
        Self {
            epoch: now.checked_sub(REACH).unwrap_or(now),
            bars: Default::default(),
            usable_since: AtomicU64::new(0),
            changes,
        }
    }

    /// Leaves the instance out until `until`, or until the bar is lifted.
    pub(crate) fn bar(&self, bar: Bar, until: Option<Instant>) {
        // Rounded up, and never free: a bar of less than a millisecond is still one.
        let until = until.map_or(UNTIL_LIFTED, |until| self.millis(until) + 1);
        if self.bars[bar as usize].swap(until, Ordering::Relaxed) != until {
            self.changes.note();
        }
    }

    /// Takes the bar away, if it stands.
    pub(crate) fn lift(&self, bar: Bar, now: Instant) {
        let was_usable = self.is_usable(now);
        self.clear(bar);
        if !was_usable && self.is_usable(now) {
            self.start_slowly(now);
        }
    }

    /// Takes the bar away without asking for the time: for bars that keep nobody out.
    pub(crate) fn clear(&self, bar: Bar) {
        // Read first: this is called for every request, and almost never finds anything.
        let known = &self.bars[bar as usize];
        if known.load(Ordering::Relaxed) != FREE {
            known.store(FREE, Ordering::Relaxed);
            self.changes.note();
        }
    }

    /// Whether the bar stands.
    pub(crate) fn is_barred(&self, bar: Bar, now: Instant) -> bool {
        match self.bars[bar as usize].load(Ordering::Relaxed) {
            FREE => false,
            UNTIL_LIFTED => true,
            until => self.millis(now) < until,
        }
    }

    /// For how long the bar will stand, for ever where it is to be lifted; `None`: it does not.
    pub(crate) fn barred_for(&self, bar: Bar, now: Instant) -> Option<Duration> {
        match self.bars[bar as usize].load(Ordering::Relaxed) {
            UNTIL_LIFTED => Some(Duration::MAX),
            until => {
                let left = until
                    .checked_sub(self.millis(now))
                    .filter(|left| *left > 0)?;
                Some(Duration::from_millis(left))
            }
        }
    }

    /// Whether nothing keeps the instance from being used.
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        !Bar::HARD.iter().any(|bar| self.is_barred(*bar, now))
    }

    /// Whether a connection to it failed a moment ago.
    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        self.is_barred(Bar::Suspect, now)
    }

    /// The instance is new, or back: it takes its full share only after a while, where the service
    /// is so configured.
    pub(crate) fn start_slowly(&self, now: Instant) {
        self.usable_since
            .store(self.millis(now) + 1, Ordering::Relaxed);
    }

    /// Since when it is usable; `None`: for ever, as far as the gateway knows. A bar that ended by
    /// itself ended at its time.
    pub(crate) fn usable_since(&self) -> Option<Instant> {
        let ended = |bar: &Bar| match self.bars[*bar as usize].load(Ordering::Relaxed) {
            UNTIL_LIFTED => FREE,
            until => until,
        };
        let ended = Bar::HARD.iter().map(ended).max().unwrap_or(FREE);
        let since = self.usable_since.load(Ordering::Relaxed).max(ended);
        let millis = since.checked_sub(1)?;
        Some(self.epoch + Duration::from_millis(millis))
    }

    /// When the next bar ends by itself, if one does.
    pub(crate) fn next_change(&self, now: Instant) -> Option<Instant> {
        let now = self.millis(now);
        let times = self.bars.iter().map(|bar| bar.load(Ordering::Relaxed));
        let next = times
            .filter(|until| *until != UNTIL_LIFTED && *until > now)
            .min()?;
        Some(self.epoch + Duration::from_millis(next))
    }

    fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn availability() -> (Availability, Arc<Changes>, Instant) {
        let (epoch, changes) = (Instant::now(), Arc::new(Changes::default()));
        (
            Availability::new(epoch, Arc::clone(&changes)),
            changes,
            epoch,
        )
    }

    #[test]
    fn a_bar_stands_until_its_time_or_until_lifted() {
        let (instance, _, now) = availability();
        assert!(instance.is_usable(now));
        assert_eq!(instance.next_change(now), None);

        instance.bar(Bar::Ejected, Some(now + 10 * MS));
        assert!(!instance.is_usable(now));
        assert!(!instance.is_usable(now + 10 * MS));
        assert!(instance.is_usable(now + 11 * MS));
        assert_eq!(instance.next_change(now), Some(now + 11 * MS));

        instance.bar(Bar::Check, None);
        assert!(!instance.is_usable(now + 1000 * MS));
        instance.lift(Bar::Check, now + 1000 * MS);
        assert!(instance.is_usable(now + 1000 * MS));
    }

    #[test]
    fn suspicion_passes_with_time_or_success_and_bars_nobody() {
        let (instance, _, now) = availability();
        instance.bar(Bar::Suspect, Some(now + SUSPECT_FOR));
        assert!(instance.is_suspect(now) && instance.is_usable(now));
        assert!(!instance.is_suspect(now + SUSPECT_FOR + MS));
        instance.lift(Bar::Suspect, now);
        assert!(!instance.is_suspect(now));
        assert_eq!(instance.usable_since(), None, "it was usable all the time");
    }

    #[test]
    fn changes_are_counted_once_each() {
        let (instance, changes, now) = availability();
        instance.lift(Bar::Check, now);
        assert_eq!(changes.count(), 0, "nothing was barred");
        instance.bar(Bar::Check, None);
        instance.bar(Bar::Check, None);
        assert_eq!(changes.count(), 1);
        instance.lift(Bar::Check, now);
        assert_eq!(changes.count(), 2);
    }

    #[test]
    fn an_instance_is_usable_since_its_last_bar_ended() {
        let (instance, _, now) = availability();
        instance.bar(Bar::Check, None);
        instance.bar(Bar::Ejected, None);
        instance.lift(Bar::Check, now + 5 * MS);
        assert_eq!(instance.usable_since(), None, "another bar stands");
        instance.lift(Bar::Ejected, now + 7 * MS);
        assert_eq!(instance.usable_since(), Some(now + 7 * MS));
        instance.bar(Bar::Ejected, Some(now + 20 * MS));
        assert_eq!(instance.usable_since(), Some(now + 20 * MS));
    }
}
