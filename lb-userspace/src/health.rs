//! Health checks: which backends live.
//!
//! [`start`] gives a [`Handle`]; [`Handle::set_targets`] says what to probe, and every change of a
//! backend's health arrives as an [`Event`]. Each target has a task of its own: wait for its turn
//! (`schedule`), probe (`tcp`, `http`), let the [`State`] decide, report a transition.
//!
//! A backend's health is unknown until its first probe has finished, and that probe alone decides
//! it. From then on `fall` failures in a row take it down and `rise` successes bring it back.
//!
//! Whoever gets no answer from anybody is more likely to be cut off himself than to see everybody die
//! in the same second. So a backend is only *confirmed* down by failures during which another backend
//! of its VIP did answer (`witness`); until then its live connections are left alone. What that
//! costs: when nobody answers, nothing moves until somebody does.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time;

use crate::config::{HealthCheck, Probe};

use schedule::Schedule;
pub use state::{State, Transition};
use witness::Witnesses;

mod http;
mod schedule;
mod state;
mod tcp;
mod witness;

/// Probes of all targets that may be under way at once. The others wait; waiting is not held against
/// their backend.
pub const PROBES_IN_FLIGHT_MAX: usize = 256;

/// One backend to probe on behalf of one VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the VIP.
    pub vip: String,
    /// Name of the backend.
    pub backend: String,
    /// Where probes go: the backend's address and the check's port.
    pub address: SocketAddr,
    /// How to probe.
    pub check: HealthCheck,
}

/// The health of a backend has changed, or is known for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name of the VIP.
    pub vip: String,
    /// Name of the backend.
    pub backend: String,
    /// Whether it answers.
    pub healthy: bool,
    /// Whether that is certain; if not, perhaps it is us whom nobody answers.
    pub confirmed: bool,
    /// What the deciding probes saw, for a log or a person.
    pub reason: String,
    /// When the deciding probe finished.
    pub at: Instant,
}

/// What a probe saw when it succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The connection was accepted.
    Connected,
    /// The response carried this status code.
    Status(u16),
}

/// What a probe saw when it failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// Nothing decisive within the check's timeout.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection was refused, reset, or there was no way to the backend.
    #[error("could not connect: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came was not HTTP.
    #[error("no valid HTTP response: {0}")]
    Http(#[from] hyper::Error),
    /// The response carried a status code that does not count as success.
    #[error("HTTP status {status}, expected {}", display_range(.expected))]
    Status {
        /// The status code received.
        status: u16,
        /// The status codes that count as success.
        expected: RangeInclusive<u16>,
    },
}

/// How one probe ended.
pub type Outcome = Result<Answer, Failure>;

/// Starts probing on the current Tokio runtime, with no targets yet. Events go to `events`; a full
/// channel holds probes back rather than losing a transition.
///
/// # Panics
///
/// Outside a Tokio runtime.
pub fn start(events: mpsc::Sender<Event>) -> Handle {
    let (targets, changes) = watch::channel(Vec::new());
    let supervisor = Task(tokio::spawn(supervise(changes, events)));
    Handle {
        targets,
        _supervisor: supervisor,
    }
}

/// Steers the probing that [`start`] began. Dropping it ends all probes.
#[derive(Debug)]
pub struct Handle {
    targets: watch::Sender<Vec<Target>>,
    _supervisor: Task,
}

impl Handle {
    /// Replaces what is probed. A target that is in the list unchanged goes on with its state and its
    /// schedule; one that is new or differs in anything starts as unknown and is probed at once.
    /// Of two targets with the same VIP and backend the later one counts.
    ///
    /// Events of targets that are gone may still be in the channel: ignore names you do not know.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.targets.send_replace(targets);
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps one task per target, until the handle is dropped.
async fn supervise(mut changes: watch::Receiver<Vec<Target>>, events: mpsc::Sender<Event>) {
    let in_flight = Arc::new(Semaphore::new(PROBES_IN_FLIGHT_MAX));
    let witnesses = Arc::new(Witnesses::default());
    let mut running: HashMap<(String, String), (Target, Task)> = HashMap::new();
    while changes.changed().await.is_ok() {
        let wanted: HashMap<_, _> = changes
            .borrow_and_update()
            .iter()
            .map(|target| ((target.vip.clone(), target.backend.clone()), target.clone()))
            .collect();
        running.retain(|name, (target, _)| wanted.get(name) == Some(target));
        witnesses.retain(|name| wanted.contains_key(name));
        for (name, target) in wanted {
            running.entry(name).or_insert_with(|| {
                let shared = (Arc::clone(&in_flight), Arc::clone(&witnesses));
                let watch = watch_over(target.clone(), events.clone(), shared);
                (target, Task(tokio::spawn(watch)))
            });
        }
    }
}

/// Probes one target again and again, until nobody listens.
async fn watch_over(
    target: Target,
    events: mpsc::Sender<Event>,
    (in_flight, witnesses): (Arc<Semaphore>, Arc<Witnesses>),
) {
    let check = &target.check;
    let mut schedule = Schedule::new(check.every);
    let mut state = State::new(check.fall, check.rise);
    let mut previous = time::Instant::now().into_std();
    time::sleep(schedule.first()).await;
    loop {
        let started = time::Instant::now();
        let outcome = {
            let _permit = in_flight
                .acquire()
                .await
                .expect("the semaphore is never closed");
            probe(target.address, check).await
        };
        let now = time::Instant::now().into_std();
        let since = previous.checked_sub(schedule::slack(check.every));
        let witnessed = match outcome {
            Ok(_) => witnesses.answered(&target, now),
            Err(_) => witnesses.others_since(&target, since.unwrap_or(previous)),
        };
        previous = now;
        let first = state.healthy().is_none();
        if let Some(transition) = state.observe(&outcome, witnessed, now) {
            let soon = first && !transition.confirmed;
            if events.send(event(&target, transition, now)).await.is_err() {
                return;
            }
            if soon {
                // The others may be about to answer for the first time.
                time::sleep(schedule.first()).await;
                continue;
            }
        }
        time::sleep_until(started + schedule.next()).await;
    }
}

fn event(target: &Target, transition: Transition, at: Instant) -> Event {
    Event {
        vip: target.vip.clone(),
        backend: target.backend.clone(),
        healthy: transition.healthy,
        confirmed: transition.confirmed,
        reason: transition.reason,
        at,
    }
}

/// One probe, which fails when it takes longer than the check allows.
async fn probe(address: SocketAddr, check: &HealthCheck) -> Outcome {
    let attempt = async {
        match &check.probe {
            Probe::Tcp => tcp::probe(address).await,
            Probe::Http { path, host, status } => {
                http::probe(address, path, host.as_deref(), status).await
            }
        }
    };
    time::timeout(check.timeout, attempt)
        .await
        .unwrap_or(Err(Failure::Timeout(check.timeout)))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => write!(f, "connection accepted"),
            Self::Status(status) => write!(f, "HTTP status {status}"),
        }
    }
}

fn display_range(range: &RangeInclusive<u16>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{} to {}", range.start(), range.end())
    }
}

#[cfg(test)]
mod tests;
