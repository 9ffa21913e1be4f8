//! What came of a service's discovery, for the metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Outcome;

/// Counts what was answered.
#[derive(Debug, Default)]
pub(crate) struct Record {
    found: AtomicU64,
    nothing: AtomicU64,
    failed: AtomicU64,
    stale: AtomicBool,
}

impl Record {
    pub(super) fn count(&self, outcome: &Outcome) {
        let (counter, stale) = match outcome {
            Outcome::Found(..) => (&self.found, false),
            Outcome::Nothing(_) => (&self.nothing, false),
            Outcome::Failed(_) => (&self.failed, true),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.stale.store(stale, Ordering::Relaxed);
    }

    /// How many answers there were of each kind.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 3] {
        [
            ("found", &self.found),
            ("nothing", &self.nothing),
            ("failed", &self.failed),
        ]
        .map(|(result, count)| (result, count.load(Ordering::Relaxed)))
    }

    /// Whether the last question was not answered: what is known may be old.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }
}
