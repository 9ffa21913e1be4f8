//! Idle connections that other workers need the place of.
//!
//! `connections_max` counts the connections to an instance of all workers together, and a worker
//! that needs one may find the last places taken by idle connections of another. Those can be
//! closed by their own worker alone, so it is asked to.

use std::sync::Arc;

use tokio::sync::Notify;

/// What the workers ask each other.
#[derive(Debug)]
pub(crate) struct Spare {
    /// By worker.
    asked: Box<[Notify]>,
}

impl Spare {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let asked = (0..workers.max(1)).map(|_| Notify::new());
        Arc::new(Self {
            asked: asked.collect(),
        })
    }

    /// Asks the workers other than number `own` to close idle connections that are waited for.
    pub(super) fn ask_others(&self, own: usize) {
        let others = self.asked.iter().enumerate();
        for (_, other) in others.filter(|(worker, _)| *worker != own) {
            other.notify_one();
        }
    }

    /// Completes when worker number `own` was asked.
    pub(crate) async fn asked(&self, own: usize) {
        self.asked[own].notified().await;
    }
}
