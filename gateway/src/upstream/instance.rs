//! What the whole process knows of one instance, whatever worker and whatever configuration.
//!
//! An instance that a reload or a discovery leaves in place stays the same value, so nothing that
//! was learnt about it is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::availability::{Availability, Bar, Changes, SUSPECT_FOR};
use super::outlier::Tally;
use super::permits::Permits;

/// One instance of one service.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Where it is reached.
    pub(crate) address: SocketAddr,
    /// The address as text: the label in metrics and logs.
    pub(crate) name: Arc<str>,
    /// Whether it may be used.
    pub(crate) availability: Availability,
    /// What its answers were.
    pub(crate) tally: Tally,
    /// Requests under way to it, of all workers.
    pub(crate) requests: Permits,
    /// HTTP/1.1 connections to it, of all workers, idle or not.
    pub(crate) connections: Permits,
}

impl Instance {
    /// An instance nothing is known of yet; `changes` are its service's.
    pub(crate) fn new(address: SocketAddr, now: Instant, changes: Arc<Changes>) -> Self {
        Self {
            address,
            name: address.to_string().into(),
            availability: Availability::new(now, changes),
            tally: Tally::default(),
            requests: Permits::default(),
            connections: Permits::default(),
        }
    }

    /// A connection to it has failed.
    pub(crate) fn suspect(&self, now: Instant) {
        self.availability.bar(Bar::Suspect, Some(now + SUSPECT_FOR));
    }

    /// A connection to it stands: it is as good as any other.
    pub(crate) fn trust(&self) {
        // Suspicion bars nobody, so the time of its end matters to nobody either; and this runs
        // with every request, where a look at the clock would cost more than the rest of it.
        self.availability.clear(Bar::Suspect);
    }
}
