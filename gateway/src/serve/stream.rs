//! The streams of an HTTP/2 connection: each ends when its client does not take the response.
//!
//! A client decides how much of each stream it takes. One that gives no room holds the stream, the
//! request behind it and the connection to the instance, while its connection looks alive; and
//! nobody asks a body for more that cannot be sent. So each stream is watched from outside: from
//! the moment a piece of the response is handed on, the client has a window of the route's
//! `body_rate_min`, and the time the piece takes at that rate.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config::BodyRate;

thread_local! {
    /// What the stream that is being polled has told of its response.
    static CURRENT: RefCell<Option<Rc<Taking>>> = const { RefCell::new(None) };
}

/// Runs the streams of a client's HTTP/2 connection on the thread they belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamExecutor;

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(watched(future));
    }
}

/// Whose move it is in a response.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    /// At which rate the client must take it; `None`: at none.
    rate: Cell<Option<BodyRate>>,
    /// Bytes of the piece the client has to take; `None`: we have to bring the next one.
    due: Cell<Option<u64>>,
    /// Pieces handed on so far: tells one from the next.
    pieces: Cell<u64>,
    over: Cell<bool>,
}

impl Taking {
    /// The response of the stream that is being polled begins: its client must give room, and keep
    /// to `rate`. `None` outside a watched stream.
    pub(crate) fn begin(rate: Option<BodyRate>) -> Option<Rc<Self>> {
        let current = CURRENT.with_borrow(Clone::clone);
        if let Some(taking) = &current {
            taking.rate.set(rate);
            taking.due.set(Some(0));
        }
        current
    }

    /// The client has room, and was handed a piece of this size, or nothing yet.
    pub(crate) fn asked(&self, handed: Option<u64>) {
        self.due.set(handed);
        self.pieces.set(self.pieces.get() + 1);
    }

    /// Whether the client was too slow.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }
}

/// Runs a stream until it is done or its client too slow. Giving it up resets the stream.
async fn watched(stream: impl Future) {
    let mut stream = pin!(stream);
    let taking = Rc::new(Taking::default());
    let mut watch = Watch::default();
    std::future::poll_fn(|cx| {
        CURRENT.set(Some(Rc::clone(&taking)));
        let polled = stream.as_mut().poll(cx);
        CURRENT.set(None);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        let too_slow = watch.poll(&taking, cx);
        taking.over.set(too_slow.is_ready());
        too_slow
    })
    .await;
}

#[derive(Default)]
struct Watch {
    /// The piece that is waited for, and until when.
    piece: u64,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    fn poll(&mut self, taking: &Taking, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(bytes), Some(rate)) = (taking.due.get(), taking.rate.get()) else {
            self.deadline = None;
            return Poll::Pending;
        };
        let piece = taking.pieces.get();
        let deadline = match self.deadline {
            Some(deadline) if self.piece == piece => deadline,
            _ => Instant::now() + allowed(bytes, rate),
        };
        (self.piece, self.deadline) = (piece, Some(deadline));
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // The timer is moved when it fires, and not with every piece.
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// The time a piece of this size may take.
fn allowed(bytes: u64, rate: BodyRate) -> Duration {
    let share = bytes as f64 / rate.bytes as f64;
    rate.window + rate.window.mul_f64(share.min(f64::from(u16::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: BodyRate = BodyRate {
        window: Duration::from_secs(10),
        bytes: 100,
    };

    /// Bytes, and the seconds after which they are taken.
    type Pieces = &'static [(u64, u64)];

    /// A response in pieces.
    async fn response(pieces: Pieces) {
        let taking = Taking::begin(Some(RATE)).expect("a watched stream");
        for (bytes, seconds) in pieces {
            taking.asked(Some(*bytes));
            tokio::time::sleep(Duration::from_secs(*seconds)).await;
        }
        taking.asked(None);
        // The instance brings nothing more for long.
        tokio::time::sleep(Duration::from_secs(1000)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_time_by_the_size_of_the_piece() {
        let table: [(&str, Pieces, u64); 4] = [
            ("in time", &[(100, 19), (1000, 109)], 1128),
            ("too slow", &[(100, 19), (100, 21)], 39),
            ("no room at all", &[(0, 11)], 10),
            ("short waits", &[(1, 9); 20], 1180),
        ];
        for (what, pieces, seconds) in table {
            let start = Instant::now();
            watched(response(pieces)).await;
            assert_eq!((Instant::now() - start).as_secs(), seconds, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_due_before_the_first_piece() {
        let start = Instant::now();
        let never_asked = async {
            let taking = Taking::begin(Some(RATE));
            std::future::pending::<()>().await;
            drop(taking);
        };
        watched(never_asked).await;
        assert_eq!((Instant::now() - start).as_secs(), 10);
        assert!(Taking::begin(None).is_none(), "nothing is left behind");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_response_yet_waits() {
        let start = Instant::now();
        watched(tokio::time::sleep(Duration::from_secs(500))).await;
        assert_eq!((Instant::now() - start).as_secs(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_a_client_has_all_the_time() {
        let start = Instant::now();
        let slow = async {
            let taking = Taking::begin(None).expect("a watched stream");
            taking.asked(Some(1_000_000));
            tokio::time::sleep(Duration::from_secs(5000)).await;
        };
        watched(slow).await;
        assert_eq!((Instant::now() - start).as_secs(), 5000);
    }
}
