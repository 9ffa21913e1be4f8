//! How many at a time, over all workers: requests under way to an instance, connections to it.
//!
//! The places taken are one atomic; a place costs one exchange to take and one to give back. Behind
//! the lock is only what happens when there is none: a queue, first come first served. The limits
//! are the caller's, so that a reload changes them without touching what is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// Too many wait for one already.
    Full,
    /// None became free in time.
    TimedOut,
}

/// The places of one kind at one instance.
///
/// A cache line of its own: it is written with every request, and what lies beside it is only read.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Permits {
    taken: AtomicU32,
    /// Length of the queue, to be seen without the lock.
    waiting: AtomicU32,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next_number: u64,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// Places there may be by the configuration it came with.
    max: u32,
    /// Hears when it has a place.
    granted: oneshot::Sender<()>,
}

impl Permits {
    /// Takes a place if fewer than `max` are taken and nobody waits for one. Whoever has one gives
    /// it [back](Self::give_back).
    pub(crate) fn take(&self, max: u32) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0 && self.take_in_turn(max)
    }

    /// Takes a place once there is one, behind at most `waiting_max` others.
    pub(crate) async fn wait(
        &self,
        max: u32,
        waiting_max: usize,
        patience: Duration,
    ) -> Result<(), NoPlace> {
        let (granted, mut hears) = oneshot::channel();
        let mut waiting = self.queue_up(max, waiting_max, granted)?;
        let heard = tokio::time::timeout(patience, &mut hears).await.is_ok();
        // Whoever is no longer in the queue was given a place, heard of or not.
        let placed = heard || !self.leave(waiting.number);
        waiting.over = true;
        placed.then_some(()).ok_or(NoPlace::TimedOut)
    }

    /// A place is free again.
    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        if self.is_awaited() {
            self.grant();
        }
    }

    /// Whether anybody waits for a place.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    fn take_in_turn(&self, max: u32) -> bool {
        let more = |taken: u32| (taken < max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .is_ok()
    }

    fn queue_up(
        &self,
        max: u32,
        waiting_max: usize,
        granted: oneshot::Sender<()>,
    ) -> Result<Waiting<'_>, NoPlace> {
        let mut queue = self.queue();
        if queue.waiters.len() >= waiting_max {
            // One that became free a moment ago is better taken than refused.
            let late = queue.waiters.is_empty() && self.take_in_turn(max);
            if !late {
                return Err(NoPlace::Full);
            }
            // Heard at once: the other end is in the caller's hands.
            let _ = granted.send(());
            return Ok(self.waiting(u64::MAX));
        }
        let number = queue.next_number;
        queue.next_number += 1;
        queue.waiters.push_back(Waiter {
            number,
            max,
            granted,
        });
        self.publish(&queue);
        drop(queue);
        let waiting = self.waiting(number);
        // A place may have become free before the queue was seen not to be empty any more.
        self.grant();
        Ok(waiting)
    }

    fn waiting(&self, number: u64) -> Waiting<'_> {
        Waiting {
            permits: self,
            number,
            over: false,
        }
    }

    /// Gives free places to those who wait.
    fn grant(&self) {
        let mut queue = self.queue();
        while let Some(first) = queue.waiters.front()
            && self.take_in_turn(first.max)
        {
            let first = queue.waiters.pop_front();
            // One that has given up meanwhile gives the place back.
            let _ = first.map(|first| first.granted.send(()));
        }
        self.publish(&queue);
    }

    /// Whether it was still in the queue.
    fn leave(&self, number: u64) -> bool {
        let mut queue = self.queue();
        let found = queue.waiters.iter().position(|one| one.number == number);
        let left = found.and_then(|at| queue.waiters.remove(at)).is_some();
        self.publish(&queue);
        drop(queue);
        if left && self.is_awaited() {
            // Whoever is first now may have come with a larger limit.
            self.grant();
        }
        left
    }

    fn publish(&self, queue: &Queue) {
        let length = u32::try_from(queue.waiters.len()).unwrap_or(u32::MAX);
        self.waiting.store(length, Ordering::SeqCst);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic cannot leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody in the queue. Dropped there, because its client has left, it makes room; dropped with a
/// place it has not heard of, it gives that back.
struct Waiting<'p> {
    permits: &'p Permits,
    number: u64,
    /// It has its place, or has left.
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over && !self.permits.leave(self.number) {
            self.permits.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn exactly_so_many_are_admitted_by_many_threads() {
        const MAX: u32 = 5;
        let (permits, there) = (Permits::default(), AtomicUsize::new(0));
        let (gate, peak) = (Barrier::new(8), AtomicUsize::new(0));
        let admitted = std::thread::scope(|scope| {
            let thread = || {
                // All come at once, and whoever has a place keeps it until all have come.
                gate.wait();
                let admitted = permits.take(MAX);
                gate.wait();
                if admitted {
                    permits.give_back();
                }
                gate.wait();
                for _ in 0..20_000 {
                    if permits.take(MAX) {
                        let now = there.fetch_add(1, Ordering::SeqCst) + 1;
                        peak.fetch_max(now, Ordering::SeqCst);
                        there.fetch_sub(1, Ordering::SeqCst);
                        permits.give_back();
                    }
                }
                admitted
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(thread)).collect();
            let admitted = threads.into_iter().map(|thread| thread.join().unwrap());
            admitted.filter(|admitted| *admitted).count()
        });
        assert_eq!(admitted, MAX as usize);
        let peak = peak.into_inner();
        assert!((1..=MAX as usize).contains(&peak), "{peak} at a time");
        assert_eq!(permits.taken.into_inner(), 0);
    }

    #[test]
    fn those_who_wait_on_other_threads_are_served() {
        // Two places for four threads of their own runtimes: nobody is forgotten.
        let (permits, there) = (Permits::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        for _ in 0..2000 {
                            if !permits.take(2) {
                                permits.wait(2, 4, LONG).await.unwrap();
                            }
                            assert!(there.fetch_add(1, Ordering::SeqCst) < 2);
                            tokio::task::yield_now().await;
                            there.fetch_sub(1, Ordering::SeqCst);
                            permits.give_back();
                        }
                    });
                });
            }
        });
        assert_eq!(permits.taken.into_inner(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn first_come_first_served_and_only_so_many_wait() {
        let permits = Permits::default();
        assert!(permits.take(1) && !permits.take(1));
        let mut first = Box::pin(permits.wait(1, 2, LONG));
        let mut second = Box::pin(permits.wait(1, 2, LONG));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        assert_eq!(permits.wait(1, 2, LONG).await, Err(NoPlace::Full));
        permits.give_back();
        assert!(!permits.take(1), "it is another's turn");
        assert!(poll(second.as_mut()).is_pending());
        assert_eq!(first.await, Ok(()));
        permits.give_back();
        assert_eq!(second.await, Ok(()));
        permits.give_back();
        assert!(permits.take(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_makes_room_and_loses_no_place() {
        let permits = Permits::default();
        assert!(permits.take(1));
        let patience = Duration::from_secs(3);
        assert_eq!(permits.wait(1, 1, patience).await, Err(NoPlace::TimedOut));
        let mut gone = Box::pin(permits.wait(1, 1, LONG));
        assert!(poll(gone.as_mut()).is_pending());
        drop(gone);
        let mut granted = Box::pin(permits.wait(1, 1, LONG));
        assert!(poll(granted.as_mut()).is_pending(), "there was room again");
        permits.give_back();
        drop(granted);
        assert!(permits.take(1), "given back by one who never heard of it");
        assert!(!permits.take(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_larger_limit_holds_for_those_who_come_with_it() {
        let permits = Permits::default();
        assert!(permits.take(1));
        let mut old = Box::pin(permits.wait(1, 9, LONG));
        assert!(poll(old.as_mut()).is_pending());
        let mut new = Box::pin(permits.wait(2, 9, LONG));
        assert!(poll(new.as_mut()).is_pending(), "it is behind another");
        drop(old);
        assert_eq!(new.await, Ok(()));
        assert!(!permits.take(2));
    }
}
