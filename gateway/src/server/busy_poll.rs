//! Busy polling: a worker that has just read something looks for more before it sleeps.
//!
//! To let a thread sleep and to wake it takes microseconds, often more than the gateway needs for a
//! small request, and a request sleeps twice: until the instance answers, and until the next one
//! comes. Where latency counts for more than processor time, `server.busy_poll` says how long after
//! the last read a worker stays awake. It asks the kernel again and again in that time, runs
//! whatever comes, and sleeps once nothing has come for so long. A worker without traffic sleeps as
//! ever. (HAProxy's `busy-polling` and the kernel's `net.core.busy_poll` are of this kind.)

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::socket;
use crate::telemetry::metrics::Shard;

thread_local! {
    static VIGIL: RefCell<Vigil> = const { RefCell::new(Vigil::new()) };
}

/// How long the event loop of this thread stays awake.
#[derive(Debug)]
struct Vigil {
    /// After the last read; zero: it sleeps at once.
    span: Duration,
    until: Option<Instant>,
    /// Wakes the task of [`run`]: an event loop with a task to run does not sleep. Beside it, where
    /// that is counted.
    waker: Option<(Waker, Arc<Shard>)>,
}

impl Vigil {
    const fn new() -> Self {
        Self {
            span: Duration::ZERO,
            until: None,
            waker: None,
        }
    }

    /// Whether the loop stays awake at `now`; `was_read`: a socket was, since it was last asked.
    fn lasts(&mut self, was_read: bool, now: Instant) -> bool {
        if was_read {
            self.until = Some(now + self.span);
        }
        let lasts = self.until.is_some_and(|until| now < until);
        if !lasts {
            self.until = None;
        }
        lasts
    }
}

/// Ends the turn of this thread's event loop, which is about to sleep, and keeps it awake if
/// something was read a short while ago.
pub(super) fn end_turn() {
    socket::flush();
    let was_read = socket::was_read();
    VIGIL.with_borrow_mut(|vigil| {
        // Without busy polling nobody needs to know the time.
        if (vigil.until.is_some() || (was_read && !vigil.span.is_zero()))
            && vigil.lasts(was_read, Instant::now())
            && let Some((waker, metrics)) = &vigil.waker
        {
            metrics.busy_poll();
            waker.wake_by_ref();
        }
    });
}

/// From now on this thread stays awake for so long after a read.
pub(super) fn set(span: Duration) {
    VIGIL.with_borrow_mut(|vigil| {
        vigil.span = span;
        vigil.until = None;
    });
}

/// The task that keeps this thread's event loop awake. It does nothing.
pub(super) async fn run(metrics: Arc<Shard>) {
    poll_fn(|cx| {
        VIGIL.with_borrow_mut(|vigil| match &mut vigil.waker {
            Some((waker, _)) => waker.clone_from(cx.waker()),
            none => *none = Some((cx.waker().clone(), Arc::clone(&metrics))),
        });
        Poll::<()>::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::super::runtime;
    use super::*;

    /// How often the event loop of this thread has gone to sleep.
    fn sleeps() -> u64 {
        Handle::current().metrics().worker_park_count(0)
    }

    #[test]
    fn a_loop_sleeps_if_nothing_was_read_or_it_may_not_stay_awake() {
        const LONG: Duration = Duration::from_secs(3600);
        let metrics = Arc::<Shard>::default();
        runtime().unwrap().block_on(async {
            tokio::task::spawn_local(run(Arc::clone(&metrics)));
            tokio::task::yield_now().await;
            // How long it may stay awake, whether a socket is read, whether it sleeps.
            for (span, is_read, expected) in [
                (Duration::ZERO, true, true),
                (LONG, false, true),
                (LONG, true, false),
                (LONG, false, false),
                (Duration::ZERO, false, true),
            ] {
                // An hour that has begun goes on.
                if VIGIL.with_borrow(|vigil| vigil.span != span) {
                    set(span);
                }
                if is_read {
                    socket::note_read();
                }
                let (before, polls) = (sleeps(), metrics.busy_polls());
                tokio::time::sleep(Duration::from_millis(2)).await;
                assert_eq!(sleeps() > before, expected, "{span:?} {is_read}");
                assert_eq!(
                    metrics.busy_polls() == polls,
                    expected,
                    "{span:?} {is_read}"
                );
            }
        });
    }

    #[test]
    fn a_loop_stays_awake_for_its_span_after_each_read() {
        const SPAN: u64 = 50;
        // Microseconds since the start, whether a socket was read, whether the loop stays awake.
        let table = [
            (0, false, false),
            (10, true, true),
            (59, false, true),
            (60, false, false),
            (61, false, false),
            (70, true, true),
            (100, true, true),
            (149, false, true),
            (150, false, false),
        ];
        let start = Instant::now();
        let mut vigil = Vigil {
            span: Duration::from_micros(SPAN),
            ..Vigil::new()
        };
        for (at, was_read, lasts) in table {
            let now = start + Duration::from_micros(at);
            assert_eq!(vigil.lasts(was_read, now), lasts, "at {at} µs");
        }
        vigil.span = Duration::ZERO;
        assert!(!vigil.lasts(true, start), "switched off");
    }
}
