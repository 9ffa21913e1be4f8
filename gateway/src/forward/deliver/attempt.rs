//! One instance asked once, and what may come of it.

use std::rc::Rc;
use std::time::Duration;

use http::Request;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::{Answer, Delivery};
use crate::filter::reject::Reject;
use crate::forward::body::RequestBody;
use crate::forward::patience;
use crate::upstream::endpoint::{Endpoint, Lease};
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::ConnectFailure;

/// Bytes of an answer nobody gets that are read so that its connection can be used again.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Why an attempt failed, as far as another one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Asking again would bring the same, or the client is to blame.
    Final,
    /// No connection: nothing was sent.
    Connect,
    /// The connection ended before the answer.
    Reset,
    /// It took longer than `per_try_timeout`.
    Timeout,
    /// The answer is one to try again on.
    Status,
}

/// An attempt that failed.
pub(super) struct Failed {
    pub(super) cause: Cause,
    /// What the client gets if there is no other attempt.
    pub(super) last: Result<Answer, Reject>,
    /// The request, if nothing of it was sent.
    pub(super) again: Option<Request<RequestBody>>,
}

impl Failed {
    /// Boxed: most requests never need the room.
    fn new(
        cause: Cause,
        last: Result<Answer, Reject>,
        again: Option<Request<RequestBody>>,
    ) -> Box<Self> {
        Box::new(Self { cause, last, again })
    }

    fn timeout(again: Option<Request<RequestBody>>) -> Box<Self> {
        Self::new(Cause::Timeout, Err(Reject::UpstreamTryTimeout), again)
    }
}

impl Delivery<'_> {
    /// Asks the instance. A connection that had gone stale while it was idle says nothing about
    /// the instance: then it is asked once more, on a new one.
    pub(super) async fn ask(
        &self,
        endpoint: &Rc<Endpoint>,
        request: Request<RequestBody>,
    ) -> Result<Answer, Box<Failed>> {
        let outcome = match self.ask_once(endpoint, request, false).await {
            Err(Stopped::Stale(again)) => {
                self.resent.set(self.resent.get() + 1);
                Box::pin(self.ask_once(endpoint, *again, true)).await
            }
            outcome => outcome,
        };
        let outcome = outcome.map_err(|stopped| match stopped {
            Stopped::Failed(failed) => failed,
            Stopped::Stale(again) => {
                Failed::new(Cause::Reset, Err(Reject::UpstreamProtocol), Some(*again))
            }
        });
        let seen = match &outcome {
            Ok((response, _)) => Some(Outcome::of_status(response.status())),
            Err(failed) => failed.outcome(),
        };
        if let Some(seen) = seen {
            self.cluster.care.observe(&endpoint.instance, seen);
        }
        match outcome {
            Ok(answer) if self.is_retried(&answer) => {
                Err(Failed::new(Cause::Status, Ok(answer), None))
            }
            outcome => outcome,
        }
    }

    fn is_retried(&self, (response, _): &Answer) -> bool {
        let statuses = &self.retry.on_statuses;
        !statuses.is_empty() && statuses.binary_search(&response.status().as_u16()).is_ok()
    }

    async fn ask_once(
        &self,
        endpoint: &Rc<Endpoint>,
        request: Request<RequestBody>,
        fresh: bool,
    ) -> Result<Answer, Stopped> {
        let limit = self.retry.per_try_timeout;
        let began = tokio::time::Instant::now();
        let lease = Rc::clone(endpoint).lease(fresh);
        let lease = patience::within(limit, began, self.upload, lease).await;
        let mut lease = match lease {
            None => return Err(Stopped::Failed(Failed::timeout(Some(request)))),
            Some(Ok(lease)) => lease,
            Some(Err(failure)) => {
                tracing::debug!(service = %self.cluster.name, %failure, "not reached");
                let failed = Failed::new(Cause::Connect, Err(refusal(&failure)), Some(request));
                return Err(Stopped::Failed(failed));
            }
        };
        let sent = patience::within(limit, began, self.upload, lease.send(request)).await;
        match sent {
            None => Err(Stopped::Failed(Failed::timeout(None))),
            Some(Ok(response)) => Ok((response, lease)),
            Some(Err(error)) => Err(self.unanswered(error, lease.reused && !fresh)),
        }
    }

    fn unanswered(&self, mut error: TrySendError<Request<RequestBody>>, stale: bool) -> Stopped {
        let unsent = error.take_message();
        let error = error.into_error();
        tracing::debug!(%error, stale, unsent = unsent.is_some(), "request not answered");
        if self.upload.failure().is_some() {
            // The client broke off, so the request could not be completed.
            return Stopped::Failed(Failed::new(Cause::Final, Err(Reject::BadRequest), None));
        }
        // An answer that is no HTTP was an answer: asking again would bring the same.
        let invalid = || Err(Reject::UpstreamProtocol);
        if error.is_parse() && unsent.is_none() {
            return Stopped::Failed(Failed::new(Cause::Final, invalid(), None));
        }
        match unsent {
            Some(again) if stale => Stopped::Stale(Box::new(again)),
            None if stale && let Some(again) = self.repetition() => Stopped::Stale(Box::new(again)),
            again => Stopped::Failed(Failed::new(Cause::Reset, invalid(), again)),
        }
    }
}

impl Failed {
    /// What it says about the instance; `None`: nothing.
    fn outcome(&self) -> Option<Outcome> {
        match &self.last {
            Err(Reject::UpstreamBusy | Reject::UpstreamQueueTimeout | Reject::BadRequest) => None,
            _ => Some(Outcome::Failure),
        }
    }
}

/// Why an instance gave no answer.
enum Stopped {
    Failed(Box<Failed>),
    /// The connection was closed while it was idle; the request may be sent again.
    Stale(Box<Request<RequestBody>>),
}

fn refusal(failure: &ConnectFailure) -> Reject {
    match failure {
        ConnectFailure::Busy => Reject::UpstreamBusy,
        ConnectFailure::Waited => Reject::UpstreamQueueTimeout,
        ConnectFailure::Handshake(_) => Reject::UpstreamProtocol,
        ConnectFailure::NoDescriptor(_) => Reject::NoDescriptor,
        ConnectFailure::Refused(_) => Reject::UpstreamConnect,
        ConnectFailure::Timeout => Reject::UpstreamConnectTimeout,
    }
}

/// Reads an answer nobody gets to its end, if that is near, so that its connection can be used
/// again.
pub(super) fn discard((response, lease): Answer) {
    let body = response.into_body();
    if body.is_end_stream() {
        lease.release();
        return;
    }
    tokio::task::spawn_local(async move {
        // Otherwise dropping the lease closes the connection.
        if let Ok(true) = tokio::time::timeout(DISCARD_TIMEOUT, ends(body)).await {
            Lease::release(lease);
        }
    });
}

async fn ends(mut body: Incoming) -> bool {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return false;
        };
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        if bytes > DISCARDED_BYTES_MAX {
            return false;
        }
    }
    true
}
