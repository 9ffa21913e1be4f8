//! Numbers one thread writes and another reads: no locked instruction, no shared cache line.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A counter only ever added to by one thread, and read by another.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: u64) {
        // One writer: a plain load and store spare the locked instruction.
        self.0.store(self.read() + amount, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, changed by one thread only.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicI64);

impl Gauge {
    pub(super) fn add(&self, amount: i64) {
        self.0.store(self.read() + amount, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
