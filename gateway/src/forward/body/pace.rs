//! Notices a client that sends or takes a body too slowly.
//!
//! Only the time we wait for the client counts: an instance that is slow itself makes no client
//! slow. The time is looked at window by window, so that a fast start buys no slow rest.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config::BodyRate;

/// Completes when a whole window of waiting has brought less than it must. Nothing is allocated,
/// and no clock read, before the first wait.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<BodyRate>,
    window: Option<Box<Window>>,
}

#[derive(Debug)]
struct Window {
    timer: Pin<Box<Sleep>>,
    /// Since when we wait, if we do.
    since: Option<Instant>,
    /// The waits before it, together.
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// A body that must keep to `rate`.
    pub(crate) fn new(rate: Option<BodyRate>) -> Self {
        Self { rate, window: None }
    }

    /// What must be kept to from now on.
    pub(crate) fn demand(&mut self, rate: Option<BodyRate>) {
        self.rate = rate;
    }

    /// The wait is over: this many bytes have moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        let Some(window) = &mut self.window else {
            return;
        };
        window.bytes += bytes as u64;
        if let Some(since) = window.since.take() {
            window.waited += since.elapsed();
        }
    }

    /// To be polled while waiting for the client; ready once that is too slow.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(rate) = self.rate else {
            return Poll::Pending;
        };
        let window = self.window.get_or_insert_with(|| {
            Box::new(Window {
                timer: Box::pin(tokio::time::sleep(rate.window)),
                since: None,
                waited: Duration::ZERO,
                bytes: 0,
            })
        });
        let since = *window.since.get_or_insert_with(Instant::now);
        // The timer is not moved when a wait ends: it looks how much was waited when it fires.
        while window.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let waited = window.waited + (now - since);
            let left = rate.window.saturating_sub(waited);
            if !left.is_zero() {
                window.timer.as_mut().reset(now + left);
                continue;
            }
            if window.bytes < rate.bytes {
                return Poll::Ready(());
            }
            window.since = Some(now);
            window.waited = Duration::ZERO;
            window.bytes = 0;
            window.timer.as_mut().reset(now + rate.window);
            return window.timer.as_mut().poll(cx);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);
    const RATE: BodyRate = BodyRate {
        window: WINDOW,
        bytes: 100,
    };

    /// What it is, the wait before each piece, the pieces, and when it is too slow.
    type Case = (&'static str, Duration, Vec<usize>, Option<(u64, usize)>);

    /// Waits for `wait` before each of these pieces; returns after how many seconds and pieces it
    /// was too slow.
    async fn too_slow(wait: Duration, pieces: &[usize]) -> Option<(u64, usize)> {
        let start = Instant::now();
        let mut pace = Pace::new(Some(RATE));
        for (count, piece) in pieces.iter().enumerate() {
            let waiting = poll_fn(|cx| pace.poll(cx));
            if tokio::time::timeout(wait, waiting).await.is_ok() {
                return Some(((Instant::now() - start).as_secs(), count));
            }
            pace.moved(*piece);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn each_window_must_bring_enough() {
        let second = Duration::from_secs(1);
        let table: [Case; 5] = [
            ("at the rate", second, vec![12; 60], None),
            ("below it", second, vec![9; 60], Some((10, 9))),
            ("nothing", second * 60, vec![1], Some((10, 0))),
            (
                "slow later",
                second,
                [vec![50; 10], vec![1; 60]].concat(),
                Some((20, 19)),
            ),
            ("short of one window", second, vec![0; 9], None),
        ];
        for (what, wait, pieces, expected) in table {
            assert_eq!(too_slow(wait, &pieces).await, expected, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_spent_elsewhere_does_not_count() {
        let mut pace = Pace::new(Some(RATE));
        for _ in 0..9 {
            let waiting = tokio::time::timeout(Duration::from_secs(1), poll_fn(|cx| pace.poll(cx)));
            assert!(waiting.await.is_err());
            pace.moved(1);
            // The instance takes its time.
            tokio::time::sleep(WINDOW).await;
        }
        let start = Instant::now();
        poll_fn(|cx| pace.poll(cx)).await;
        assert_eq!((Instant::now() - start).as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_is_slow() {
        let mut pace = Pace::new(None);
        let waiting = tokio::time::timeout(WINDOW * 100, poll_fn(|cx| pace.poll(cx)));
        assert!(waiting.await.is_err());
    }
}
