//! Several instances asked for the same, because the first is slow: the first good answer is taken.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::attempt::{Failed, Slot};
use super::{Answer, Delivery, attempt};
use crate::forward::hedge::Hedge;
use crate::telemetry::exchange::Record;
use crate::upstream::endpoint::Endpoint;

impl Delivery<'_> {
    /// Asks `first`, and further instances each time the wait is over. Those that lose are
    /// cancelled: their connection is closed (HTTP/1.1), or their stream reset (HTTP/2).
    pub(super) async fn hedged(
        &self,
        hedge: &Hedge,
        first: Rc<Endpoint>,
        record: &mut Record,
    ) -> Result<Answer, Box<Failed>> {
        let mut running = FuturesUnordered::new();
        let ask = async |endpoint: Rc<Endpoint>, body: Slot, paid| {
            let began = Instant::now();
            let outcome = self.ask(&endpoint, &body).await;
            drop(paid);
            (endpoint, began.elapsed(), outcome)
        };
        running.push(ask(Rc::clone(&first), Cell::new(self.body.take()), None));
        let mut left = hedge.attempts();
        let mut last = None;
        loop {
            let wait = hedge.wait().filter(|_| left > 0);
            let timer = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((endpoint, took, outcome)) = running.next() => {
                    record.endpoint = Some(Rc::clone(&endpoint));
                    match outcome {
                        Ok(answer) => {
                            hedge.observe(took);
                            record.hedge_won = !Rc::ptr_eq(&endpoint, &first);
                            return Ok(answer);
                        }
                        Err(failed) => last = Some(better(last, failed)),
                    }
                    if running.is_empty() && let Some(last) = last.take() {
                        return Err(last);
                    }
                }
                () = timer => {
                    left -= 1;
                    // Nobody else to ask, or nothing to pay with: the first may still answer.
                    let other = self.pick_untried();
                    let (Some(other), Some(again)) = (other, self.repetition()) else {
                        left = 0;
                        continue;
                    };
                    match self.cluster.care.budget.pay(Instant::now()) {
                        Ok(paid) => {
                            record.hedges += 1;
                            self.tried.borrow_mut().push(other.index);
                            running.push(ask(other, Cell::new(Some(again)), Some(paid)));
                        }
                        Err(exhausted) => {
                            record.no_retry = Some(exhausted);
                            left = 0;
                        }
                    }
                }
            }
        }
    }
}

/// What the client gets if no instance answers well: an answer rather than none.
fn better(known: Option<Box<Failed>>, failed: Box<Failed>) -> Box<Failed> {
    match known {
        Some(known) if known.last.is_ok() => {
            if let Ok(answer) = failed.last {
                attempt::discard(answer);
            }
            known
        }
        _ => failed,
    }
}
