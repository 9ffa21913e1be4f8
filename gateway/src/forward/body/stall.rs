//! Notices when a stream stands still.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Completes when nothing has moved for `limit`. The timer is made at the first wait only, and
/// moved on when it fires rather than at every step: most bodies never need one.
#[derive(Debug)]
pub(super) struct Stall {
    limit: Duration,
    timer: Option<Timer>,
}

#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// When something moved last.
    moved: Instant,
}

impl Stall {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    /// Something moved.
    pub(super) fn touch(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.moved = Instant::now();
        }
    }

    /// To be polled while waiting; ready once the wait is too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Timer {
            sleep: Box::pin(tokio::time::sleep(limit)),
            moved: Instant::now(),
        });
        while timer.sleep.as_mut().poll(cx).is_ready() {
            let deadline = timer.moved + limit;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_from_the_last_move() {
        let limit = Duration::from_secs(10);
        let start = Instant::now();
        let mut stall = Stall::new(limit);
        let early = tokio::time::timeout(Duration::from_secs(6), poll_fn(|cx| stall.poll(cx)));
        assert!(early.await.is_err());
        stall.touch();
        poll_fn(|cx| stall.poll(cx)).await;
        assert_eq!((Instant::now() - start).as_secs(), 16);
    }
}
