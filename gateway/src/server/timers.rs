//! Timers for waits that are nearly always over before their time.
//!
//! Every request waits with a deadline, and hardly any meets it. A timer that is not needed any more
//! stays set, for the next wait to use: what it was set to is sooner than that one's deadline, so it
//! is moved on when it fires, once for thousands of requests.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// Timers that wait to be used again. One more is dropped.
const IDLE_MAX: usize = 128;

/// The timers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Timers(RefCell<Vec<Pin<Box<Sleep>>>>);

impl Timers {
    /// Completes at `deadline`. A timer is taken when it is polled first.
    pub(crate) fn sleep_until(&self, deadline: Instant) -> Timer<'_> {
        Timer {
            timers: self,
            sleep: None,
            deadline,
        }
    }

    /// A timer that fires at `deadline` or before.
    fn take(&self, deadline: Instant) -> Pin<Box<Sleep>> {
        let Some(mut sleep) = self.0.borrow_mut().pop() else {
            return Box::pin(tokio::time::sleep_until(deadline));
        };
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep
    }

    fn put(&self, sleep: Pin<Box<Sleep>>) {
        let mut idle = self.0.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push(sleep);
        }
    }
}

/// A wait for a deadline.
#[derive(Debug)]
pub(crate) struct Timer<'t> {
    timers: &'t Timers,
    sleep: Option<Pin<Box<Sleep>>>,
    deadline: Instant,
}

impl Timer<'_> {
    /// Waits for another deadline, which is no sooner.
    pub(crate) fn put_off(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl Future for Timer<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let (timers, deadline) = (this.timers, this.deadline);
        let sleep = this.sleep.get_or_insert_with(|| timers.take(deadline));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if let Some(sleep) = self.sleep.take() {
            self.timers.put(sleep);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_end_at_their_deadline_whatever_the_timer_was_set_to() {
        let timers = Timers::default();
        // How long each wait may take, how long it does take, and when it ends; in seconds.
        let table = [
            (10, None, 10),
            (10, Some(1), 1),
            (10, Some(9), 9),
            (10, None, 10),
            (3, None, 3),
            (100, Some(20), 20),
            (5, Some(1), 1),
            (10, None, 10),
        ];
        for (number, (limit, work, end)) in table.into_iter().enumerate() {
            let begin = Instant::now();
            let timer = timers.sleep_until(begin + Duration::from_secs(limit));
            let work = async {
                match work {
                    Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                () = work => {}
            }
            assert_eq!((Instant::now() - begin).as_secs(), end, "wait {number}");
            assert_eq!(timers.0.borrow().len(), 1, "one timer serves them all");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_put_off_and_only_so_many_timers_kept() {
        let timers = Timers::default();
        let begin = Instant::now();
        let mut timer = timers.sleep_until(begin + Duration::from_secs(1));
        (&mut timer).await;
        timer.put_off(begin + Duration::from_secs(4));
        (&mut timer).await;
        assert_eq!((Instant::now() - begin).as_secs(), 4);
        drop(timer);

        let soon = || timers.sleep_until(Instant::now() + Duration::from_secs(1));
        for count in [IDLE_MAX, IDLE_MAX + 1] {
            let waits = (0..count).map(|_| soon()).collect::<Vec<_>>();
            futures_util::future::join_all(waits).await;
            assert_eq!(timers.0.borrow().len(), IDLE_MAX, "after {count} at once");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_never_polled_takes_no_timer() {
        let timers = Timers::default();
        drop(timers.sleep_until(Instant::now()));
        assert_eq!(timers.0.borrow().len(), 0);
    }
}
