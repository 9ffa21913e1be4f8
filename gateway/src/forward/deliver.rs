//! Getting a request to an instance: choose, connect, send, and try again where that is safe.
//!
//! | what happened | the request is sent again |
//! |---|---|
//! | no connection | always possible: nothing was sent |
//! | an idle connection was closed at the moment of its reuse | at once, on a new one; not counted |
//! | connection ended, attempt timed out, or an answer `retry.on` lists | if it may be repeated |
//!
//! A request may be repeated if its method is idempotent (RFC 9110 section 9.2.2) or the route says
//! so, and it has no body or one that was kept. Beyond that the route's `attempts`, its `timeout`
//! and the service's budget must allow it; otherwise the client gets what the last attempt gave.

mod attempt;
mod hedged;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Method, Request, Response};

pub(super) use self::attempt::discard;
use self::attempt::{Cause, Slot};
use super::body::{KeptBody, RequestBody, Upload};
use crate::config::RetryConfig;
use crate::filter::reject::Reject;
use crate::forward::hedge::Hedge;
use crate::route::Route;
use crate::telemetry::exchange::Record;
use crate::upstream::budget::Retrying;
use crate::upstream::cluster::{Affinity, Cluster};
use crate::upstream::endpoint::{AnswerBody, Endpoint, Lease};
use crate::upstream::wire::maps;

/// A response, and the connection its body comes from.
pub(super) type Answer = (Response<AnswerBody>, Lease);

/// The delivery of one request.
pub(super) struct Delivery<'r> {
    cluster: &'r Cluster,
    affinity: Affinity,
    retry: &'r RetryConfig,
    hedge: Option<&'r Hedge>,
    /// From the complete request to the head of the answer.
    timeout: Duration,
    upload: &'r Rc<Upload>,
    head: Box<Parts>,
    body: Slot,
    /// The body of a repetition; `None`: the request may not be repeated.
    spare: Option<KeptBody>,
    /// Instances that were asked, by position.
    tried: RefCell<Vec<usize>>,
    /// Requests that were sent again because a connection had gone stale.
    resent: Cell<u32>,
}

impl<'r> Delivery<'r> {
    /// The delivery of a request by the rules of a route.
    pub(super) fn new(
        (head, body): (Box<Parts>, RequestBody),
        cluster: &'r Cluster,
        affinity: Affinity,
        route: &'r Route,
        upload: &'r Rc<Upload>,
    ) -> Self {
        Self {
            cluster,
            affinity,
            retry: &route.retry,
            hedge: route.hedge.as_deref(),
            timeout: route.timeout,
            upload,
            head,
            body: Cell::new(Some(body)),
            spare: None,
            tried: RefCell::default(),
            resent: Cell::new(0),
        }
    }

    /// Sends the request until it is answered or may not be tried again.
    pub(super) async fn run(&mut self, record: &mut Record) -> Result<Answer, Reject> {
        self.cluster.care.budget.earn();
        self.keep_spare().await?;
        let mut endpoint = self.pick().ok_or(Reject::NoInstance)?;
        let mut retrying = None;
        let mut made = 0;
        loop {
            made += 1;
            self.tried.borrow_mut().push(endpoint.index);
            record.endpoint = Some(Rc::clone(&endpoint));
            let outcome = match self.hedging() {
                None => self.ask(&endpoint, &self.body).await,
                Some(hedge) => Box::pin(self.hedged(hedge, endpoint, record)).await,
            };
            drop(retrying);
            record.retries += self.resent.take();
            let failed = match outcome {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let again = self.body.take().or_else(|| self.repetition());
            let Some(again) = again.filter(|_| self.is_wanted(failed.cause)) else {
                return failed.last;
            };
            let Some(next) = self.next(made, failed.cause, record) else {
                return failed.last;
            };
            self.body.set(Some(again));
            if let Ok(answer) = failed.last {
                attempt::discard(answer);
            }
            endpoint = next.endpoint;
            retrying = Some(next.retrying);
            record.retries += 1;
            if let Some(wait) = next.wait {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Keeps what a repetition of the request is made from, if it may be repeated.
    async fn keep_spare(&mut self) -> Result<(), Reject> {
        if self.retry.non_idempotent || is_idempotent(&self.head.method) {
            let body = self.body.get_mut().as_mut();
            let body = body.expect("the body is in its slot until it is sent");
            // The client is to blame for a failure, which is told by the upload.
            let kept = body.keep(self.retry.body_bytes_max).await;
            self.spare = kept.map_err(|_| Reject::BadRequest)?;
        }
        Ok(())
    }

    /// The hedging of the route, if this request may be hedged.
    fn hedging(&self) -> Option<&'r Hedge> {
        let kept = self.spare.as_ref()?;
        self.hedge.filter(|_| kept.is_empty())
    }

    /// An instance that was not asked yet, or any if all were.
    fn pick(&self) -> Option<Rc<Endpoint>> {
        let any = || self.cluster.pick(&[], self.affinity).cloned();
        self.pick_untried().or_else(|| {
            if self.tried.borrow().is_empty() {
                None
            } else {
                any()
            }
        })
    }

    fn pick_untried(&self) -> Option<Rc<Endpoint>> {
        let tried = self.tried.borrow();
        self.cluster.pick(&tried, self.affinity).cloned()
    }

    fn is_wanted(&self, cause: Cause) -> bool {
        match cause {
            Cause::Final => false,
            Cause::Connect => self.retry.on_connect,
            Cause::Reset => self.retry.on_reset,
            Cause::Timeout => self.retry.on_timeout,
            Cause::Status => true,
        }
    }

    /// What the attempt after those that were `made` is, if there may be one.
    fn next(&self, made: u32, cause: Cause, record: &mut Record) -> Option<Next<'r>> {
        if made > self.retry.attempts {
            return None;
        }
        let endpoint = self.pick()?;
        let elsewhere = !self.tried.borrow().contains(&endpoint.index);
        let wait = match cause {
            Cause::Connect if elsewhere => None,
            _ => Some(self.backoff(made)),
        };
        let now = Instant::now();
        let deadline = self.upload.moved() + self.timeout;
        if self.upload.is_finished() && now + wait.unwrap_or_default() >= deadline {
            return None;
        }
        match self.cluster.care.budget.pay(now) {
            Ok(retrying) => Some(Next {
                endpoint,
                wait,
                retrying,
            }),
            Err(exhausted) => {
                record.no_retry = Some(exhausted);
                None
            }
        }
    }

    /// A random wait, in the mean twice as long with each attempt that was `made`: those who failed
    /// together must not come back together.
    fn backoff(&self, made: u32) -> Duration {
        let doublings = made.saturating_sub(1).min(16);
        let most = self.retry.backoff.saturating_mul(1 << doublings);
        let share = self.cluster.care.random.next() as f64 / u64::MAX as f64;
        most.min(self.retry.backoff_max).mul_f64(share)
    }

    /// The body once more.
    fn repetition(&self) -> Option<RequestBody> {
        let kept = self.spare.as_ref()?;
        Some(RequestBody::kept(kept.clone(), Rc::clone(self.upload)))
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        maps::give_back(std::mem::take(&mut self.head.headers));
    }
}

/// A further attempt.
struct Next<'r> {
    endpoint: Rc<Endpoint>,
    wait: Option<Duration>,
    retrying: Retrying<'r>,
}

/// The head of a request, for another one.
pub(crate) fn head_of(head: &Parts) -> Parts {
    let mut copy = Request::new(());
    *copy.method_mut() = head.method.clone();
    *copy.uri_mut() = head.uri.clone();
    *copy.version_mut() = head.version;
    *copy.headers_mut() = head.headers.clone();
    copy.into_parts().0
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}
