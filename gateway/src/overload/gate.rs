//! How many requests may be under way to one service, or over one route, at a time.
//!
//! Shared by all workers: the number in flight is one atomic, looked at only where a limit is
//! configured. Behind a lock is only what happens when there is no room: the queue, and what an
//! adaptive limit learns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::adaptive::{Adaptive, AdaptivePolicy, Outcome};
use super::class::Class;
use super::queue::{Pushed, Queue};

/// What a gate is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Requests in flight at most, at least 1.
    pub in_flight_max: u32,
    /// Follows the latency, below `in_flight_max`; `None`: the limit is fixed. Requests count
    /// until the head of their answer where it is adaptive, else until the end.
    pub adaptive: Option<AdaptivePolicy>,
    /// Requests that wait for a place; 0: none do.
    pub queue_max: usize,
    /// How long one waits at most.
    pub queue_timeout: Duration,
    /// The part of the limit that sheddable requests may take up, 1 to 100.
    pub sheddable_percent: u32,
}

impl Policy {
    /// A fixed limit for whoever comes, without a queue.
    pub fn fixed(in_flight_max: u32) -> Self {
        Self {
            in_flight_max,
            adaptive: None,
            queue_max: 0,
            queue_timeout: Duration::ZERO,
            sheddable_percent: 100,
        }
    }
}

/// Why a gate let a request not through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No place, and no room to wait for one.
    Full,
    /// It waited in vain.
    TimedOut,
    /// It waited, until a request that matters more needed its room.
    Displaced,
    /// It waited, until memory ran short.
    Memory,
}

impl Refused {
    /// All reasons, in the order of their counters.
    pub(crate) const ALL: [Self; 4] = [Self::Full, Self::TimedOut, Self::Displaced, Self::Memory];

    /// The label in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::TimedOut => "timeout",
            Self::Displaced => "displaced",
            Self::Memory => "memory",
        }
    }
}

type Granted = Result<Permit, Refused>;

/// The gate of one service or route.
#[derive(Debug)]
pub struct Gate {
    policy: Policy,
    limit: AtomicU32,
    in_flight: AtomicU32,
    /// Length of the queue, to be seen without the lock.
    waiting: AtomicU32,
    queue: Mutex<Queue<oneshot::Sender<Granted>>>,
    adaptive: Option<Mutex<Adaptive>>,
    counts: Counts,
}

/// A gate is itself and no other: what it has let in makes it so.
impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// What a gate has done.
#[derive(Debug, Default)]
struct Counts {
    refused: [[AtomicU64; Refused::ALL.len()]; Class::ALL.len()],
    queued: AtomicU64,
    queued_us: AtomicU64,
}

/// The state of a gate, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) limit: u32,
    pub(crate) in_flight: u32,
    pub(crate) waiting: u32,
    /// Requests that waited and were let through, and how long they did, in microseconds.
    pub(crate) queued: u64,
    pub(crate) queued_us: u64,
    /// Microseconds; `None`: not adaptive, or not known yet.
    pub(crate) baseline_us: Option<u64>,
}

impl Gate {
    /// The gate of a new configuration; `previous` had its name in the last one. One with the same
    /// policy stays; one with another begins with what the last has learned. Requests under way by
    /// the last one are not counted by it, so for a moment there may be more than the limit.
    pub(crate) fn new(policy: Policy, previous: Option<&Arc<Self>>) -> Arc<Self> {
        if let Some(same) = previous.filter(|known| known.policy == policy) {
            return Arc::clone(same);
        }
        let now = Instant::now().into_std();
        let adaptive = policy.adaptive.clone().map(|adaptive| {
            let known = previous.and_then(|known| known.learned());
            Adaptive::new(adaptive, policy.in_flight_max, now, known.as_deref())
        });
        let limit = adaptive
            .as_ref()
            .map_or(policy.in_flight_max, Adaptive::limit);
        Arc::new(Self {
            limit: AtomicU32::new(limit),
            in_flight: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            queue: Mutex::new(Queue::new(policy.queue_max, now)),
            adaptive: adaptive.map(Mutex::new),
            counts: Counts::default(),
            policy,
        })
    }

    /// Lets a request through, at once or after a wait.
    pub(crate) async fn enter(self: &Arc<Self>, class: Class) -> Granted {
        if self.waiting.load(Ordering::SeqCst) == 0 && self.take(class) {
            return Ok(Permit(Arc::clone(self)));
        }
        if self.policy.queue_max == 0 {
            return Err(self.count(class, Refused::Full));
        }
        // Boxed: waiting is the exception, and takes room in every request's future.
        Box::pin(self.wait(class)).await
    }

    /// A request was answered, or was too much; moves the limit.
    pub(crate) fn observe(self: &Arc<Self>, outcome: Outcome) {
        // Somebody else is at it: one observation more or less does not matter.
        let Some(mut adaptive) = self.adaptive.as_ref().and_then(|one| one.try_lock().ok()) else {
            return;
        };
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        adaptive.observe(outcome, in_flight, Instant::now().into_std());
        let limit = adaptive.limit();
        drop(adaptive);
        let before = self.limit.swap(limit, Ordering::SeqCst);
        if limit > before {
            self.grant_waiting();
        }
    }

    /// Refuses those of a class that wait: they hold memory, and there is none.
    pub(super) fn shed_waiting(&self, class: Class) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut queue = self.queue();
        let gone = queue.clear(class);
        self.publish_len(&queue);
        drop(queue);
        for one in gone {
            // Whoever has given up meanwhile does not hear it.
            let _ = one.send(Err(Refused::Memory));
        }
    }

    /// Whether latencies are of interest.
    pub(crate) fn is_adaptive(&self) -> bool {
        self.adaptive.is_some()
    }

    /// The state, for metrics.
    pub(crate) fn reading(&self) -> Reading {
        let baseline = self.learned().and_then(|known| known.baseline());
        Reading {
            limit: self.limit.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            queued: self.counts.queued.load(Ordering::Relaxed),
            queued_us: self.counts.queued_us.load(Ordering::Relaxed),
            baseline_us: baseline.map(|latency| latency.as_micros() as u64),
        }
    }

    /// Requests of a class refused for a reason.
    pub(crate) fn refused(&self, class: Class, refused: Refused) -> u64 {
        self.counts.refused[class.index()][refused as usize].load(Ordering::Relaxed)
    }

    async fn wait(self: &Arc<Self>, class: Class) -> Granted {
        let since = Instant::now();
        let (sender, mut receiver) = oneshot::channel();
        let waiting = match self.queue_up(class, sender, since) {
            Ok(waiting) => waiting,
            Err(outcome) => return outcome,
        };
        let granted = match tokio::time::timeout(self.policy.queue_timeout, &mut receiver).await {
            Ok(granted) => granted,
            Err(_elapsed) if waiting.leave() => return Err(self.count(class, Refused::TimedOut)),
            // Somebody has just taken it out of the queue: the word is on its way.
            Err(_elapsed) => receiver.await,
        };
        let granted = granted.expect("whoever takes a request out of the queue answers it");
        match granted {
            Ok(permit) => {
                let waited = since.elapsed().as_micros() as u64;
                self.counts.queued.fetch_add(1, Ordering::Relaxed);
                self.counts.queued_us.fetch_add(waited, Ordering::Relaxed);
                Ok(permit)
            }
            Err(refused) => Err(self.count(class, refused)),
        }
    }

    /// Joins the queue, unless there is a place after all or no room.
    fn queue_up(
        self: &Arc<Self>,
        class: Class,
        sender: oneshot::Sender<Granted>,
        now: Instant,
    ) -> Result<Waiting, Granted> {
        let mut queue = self.queue();
        // Whoever waits for as important a request was here before.
        let behind = queue.highest().is_some_and(|highest| highest >= class);
        if !behind && self.take(class) {
            return Err(Ok(Permit(Arc::clone(self))));
        }
        let (number, displaced) = match queue.push(class, sender, now.into_std()) {
            Pushed::Waiting(number, displaced) => (number, displaced),
            Pushed::Full(_) => return Err(Err(self.count(class, Refused::Full))),
        };
        self.publish_len(&queue);
        drop(queue);
        if let Some(displaced) = displaced {
            // Whoever has given up meanwhile does not hear it.
            let _ = displaced.send(Err(Refused::Displaced));
        }
        // A place may have become free before the queue was seen not to be empty any more.
        self.grant_waiting();
        Ok(Waiting {
            gate: Arc::clone(self),
            class,
            number,
        })
    }

    /// Gives free places to those who wait.
    fn grant_waiting(self: &Arc<Self>) {
        while let Some(sender) = self.next_in_turn() {
            // A request that has given up meanwhile gives its place back with the permit.
            let _ = sender.send(Ok(Permit(Arc::clone(self))));
        }
    }

    /// Takes a place for the next that waits.
    fn next_in_turn(&self) -> Option<oneshot::Sender<Granted>> {
        let mut queue = self.queue();
        let class = queue.highest()?;
        if !self.take(class) {
            return None;
        }
        let next = queue.pop(class, Instant::now().into_std());
        self.publish_len(&queue);
        next.map(|(sender, _)| sender)
    }

    /// Takes a place if there is one.
    fn take(&self, class: Class) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        let room = match class {
            Class::Sheddable => {
                let share = u64::from(limit) * u64::from(self.policy.sheddable_percent) / 100;
                u32::try_from(share).unwrap_or(limit).max(1)
            }
            Class::Default | Class::Critical => limit,
        };
        let more = |count: u32| (count < room).then_some(count + 1);
        self.in_flight
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .is_ok()
    }

    fn give_back(self: &Arc<Self>) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.grant_waiting();
        }
    }

    fn count(&self, class: Class, refused: Refused) -> Refused {
        self.counts.refused[class.index()][refused as usize].fetch_add(1, Ordering::Relaxed);
        refused
    }

    fn learned(&self) -> Option<MutexGuard<'_, Adaptive>> {
        let adaptive = self.adaptive.as_ref()?;
        Some(adaptive.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn queue(&self) -> MutexGuard<'_, Queue<oneshot::Sender<Granted>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_len(&self, queue: &Queue<oneshot::Sender<Granted>>) {
        self.waiting.store(queue.len() as u32, Ordering::SeqCst);
    }
}

/// A place at a gate, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Gate>);

impl Permit {
    /// Where the place is.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// A request in the queue. Dropped while it waits, because the client has left, it makes room.
struct Waiting {
    gate: Arc<Gate>,
    class: Class,
    number: u64,
}

impl Waiting {
    /// Whether it was still in the queue.
    fn leave(&self) -> bool {
        let mut queue = self.gate.queue();
        let there = queue.remove(self.class, self.number);
        self.gate.publish_len(&queue);
        there
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The gates of a configuration, by name, for metrics and for the next configuration.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    /// Of services.
    pub services: BTreeMap<String, Arc<Gate>>,
    /// Of routes.
    pub routes: BTreeMap<String, Arc<Gate>>,
}

#[cfg(test)]
mod tests;
