//! One instance asked once, and what may come of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use super::{Answer, Delivery};
use crate::filter::reject::Reject;
use crate::forward::body::RequestBody;
use crate::forward::patience::TryLimit;
use crate::upstream::endpoint::{AnswerBody, Endpoint, Lease};
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::ConnectFailure;
use crate::upstream::wire::Unanswered;

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
}

impl Failed {
    /// Boxed: most requests never need the room.
    fn new(cause: Cause, last: Result<Answer, Reject>) -> Box<Self> {
        Box::new(Self { cause, last })
    }

    /// What it says about the instance; `None`: nothing.
    fn outcome(&self) -> Option<Outcome> {
        match &self.last {
            Err(Reject::UpstreamBusy | Reject::UpstreamQueueTimeout | Reject::BadRequest) => None,
            _ => Some(Outcome::Failure),
        }
    }
}

/// Where a request's body waits until it is sent. Whatever failed, it is here still, or again, if
/// nothing of it was sent. A place rather than a value: it is large, and handed down several calls.
pub(super) type Slot = Cell<Option<RequestBody>>;

impl Delivery<'_> {
    /// Asks the instance. A connection that had gone stale while it was idle says nothing about
    /// the instance: then it is asked once more, on a new one.
    pub(super) async fn ask(
        &self,
        endpoint: &Rc<Endpoint>,
        body: &Slot,
    ) -> Result<Answer, Box<Failed>> {
        let mut outcome = self.ask_once(endpoint, body, false).await;
        if matches!(outcome, Err(Stopped::Stale)) {
            self.resent.set(self.resent.get() + 1);
            outcome = Box::pin(self.ask_once(endpoint, body, true)).await;
        }
        let outcome = outcome.map_err(|stopped| match stopped {
            Stopped::Failed(failed) => failed,
            Stopped::Stale => Failed::new(Cause::Reset, Err(Reject::UpstreamProtocol)),
        });
        let seen = match &outcome {
            Ok((response, _)) => Some(Outcome::of_status(response.status())),
            Err(failed) => failed.outcome(),
        };
        if let Some(seen) = seen {
            self.cluster.care.observe(&endpoint.instance, seen);
        }
        match outcome {
            Ok(answer) if self.is_retried(&answer) => Err(Failed::new(Cause::Status, Ok(answer))),
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
        body: &Slot,
        fresh: bool,
    ) -> Result<Answer, Stopped> {
        let limit = self.retry.per_try_timeout.map(TryLimit::starting);
        let lease = Rc::clone(endpoint).lease(fresh);
        let lease = match limit {
            None => lease.await,
            Some(limit) => Box::pin(limit.within(self.upload, lease))
                .await
                .ok_or_else(Stopped::timeout)?,
        };
        let mut lease = lease.map_err(|failure| {
            tracing::debug!(service = %self.cluster.name, %failure, "not reached");
            Stopped::Failed(Failed::new(Cause::Connect, Err(refusal(&failure))))
        })?;
        let unsent = body
            .take()
            .expect("a request is asked for while its body is in its slot");
        let sent = lease.send(&self.head, unsent);
        let sent = match limit {
            None => sent.await,
            Some(limit) => Box::pin(limit.within(self.upload, sent))
                .await
                .ok_or_else(Stopped::timeout)?,
        };
        match sent {
            Ok(response) => Ok((response, lease)),
            Err(unanswered) => Err(self.stopped(unanswered, lease.reused && !fresh, body)),
        }
    }

    fn stopped(&self, unanswered: Unanswered, stale: bool, body: &Slot) -> Stopped {
        let refusal = unanswered.refusal();
        let Unanswered { fault, unsent } = unanswered;
        tracing::debug!(%fault, stale, unsent = unsent.is_some(), "request not answered");
        if self.upload.failure().is_some() {
            // The client broke off, so the request could not be completed.
            return Stopped::Failed(Failed::new(Cause::Final, Err(Reject::BadRequest)));
        }
        // Nothing behind the handshake was looked at, so it is as if nothing had been sent.
        if fault.is_refused_by_tls() {
            body.set(unsent.map(|body| *body));
            return Stopped::Failed(Failed::new(Cause::Connect, Err(Reject::UpstreamTls)));
        }
        if let Some(refusal) = refusal {
            return Stopped::Failed(Failed::new(Cause::Final, Err(refusal)));
        }
        let unsent = unsent.map(|body| *body);
        let again = if stale {
            unsent.or_else(|| self.repetition())
        } else {
            unsent
        };
        let stale = stale && again.is_some();
        body.set(again);
        if stale {
            Stopped::Stale
        } else {
            Stopped::Failed(Failed::new(Cause::Reset, Err(Reject::UpstreamProtocol)))
        }
    }
}

/// Why an instance gave no answer.
enum Stopped {
    Failed(Box<Failed>),
    /// The connection was closed while it was idle; the request is in its slot again.
    Stale,
}

impl Stopped {
    fn timeout() -> Self {
        Self::Failed(Failed::new(Cause::Timeout, Err(Reject::UpstreamTryTimeout)))
    }
}

fn refusal(failure: &ConnectFailure) -> Reject {
    match failure {
        ConnectFailure::Busy => Reject::UpstreamBusy,
        ConnectFailure::Waited => Reject::UpstreamQueueTimeout,
        ConnectFailure::Handshake(_) => Reject::UpstreamProtocol,
        ConnectFailure::NoDescriptor(_) => Reject::NoDescriptor,
        ConnectFailure::Refused(_) => Reject::UpstreamConnect,
        ConnectFailure::Tls(_) => Reject::UpstreamTls,
        ConnectFailure::Timeout => Reject::UpstreamConnectTimeout,
    }
}

/// Reads an answer nobody gets to its end, if that is near, so that its connection can be used
/// again.
pub(in crate::forward) fn discard((response, mut lease): Answer) {
    let body = response.into_body();
    if body.is_end_stream() {
        lease.release();
        return;
    }
    tokio::task::spawn_local(async move {
        // Otherwise dropping the lease closes the connection.
        if let Ok(true) = tokio::time::timeout(DISCARD_TIMEOUT, ends(body, &mut lease)).await {
            lease.release();
        }
    });
}

async fn ends(mut body: AnswerBody, lease: &mut Lease) -> bool {
    let mut bytes = 0;
    while let Some(frame) = poll_fn(|cx| lease.poll_body(&mut body, cx)).await {
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
