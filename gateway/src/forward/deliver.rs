//! Getting a request to an instance: choose, connect, send, and try again where that is safe.

use std::rc::Rc;

use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::body::{RequestBody, Upload};
use crate::filter::reject::Reject;
use crate::telemetry::exchange::Record;
use crate::upstream::cluster::{Affinity, Cluster};
use crate::upstream::endpoint::Lease;
use crate::upstream::pool::ConnectFailure;

/// The delivery of one request.
pub(super) struct Delivery<'r> {
    cluster: &'r Cluster,
    affinity: Affinity,
    retries: u32,
    upload: &'r Rc<Upload>,
    /// Instances that failed, by position.
    failed: Vec<usize>,
    /// Only connections that no request was sent on before.
    fresh: bool,
}

/// A request that was not answered.
struct Unanswered {
    reject: Reject,
    /// The request, where sending it again is safe.
    again: Option<Request<RequestBody>>,
    /// The connection had been idle and was closed meanwhile: the instance is not to blame.
    stale: bool,
}

impl<'r> Delivery<'r> {
    /// A delivery that tries `retries` further instances after the first.
    pub(super) fn new(
        cluster: &'r Cluster,
        affinity: Affinity,
        retries: u32,
        upload: &'r Rc<Upload>,
    ) -> Self {
        Self {
            cluster,
            affinity,
            retries,
            upload,
            failed: Vec::new(),
            fresh: false,
        }
    }

    /// Sends the request until it is answered or may not be tried again.
    pub(super) async fn run(
        mut self,
        head: Parts,
        body: RequestBody,
        record: &mut Record,
    ) -> Result<(Response<Incoming>, Lease), Reject> {
        let spare = (is_idempotent(&head.method) && body.is_end_stream()).then(|| head.clone());
        let mut request = Request::from_parts(head, body);
        let mut reject = Reject::NoInstance;
        loop {
            let picked = self.cluster.pick(&self.failed, self.affinity);
            let Some(endpoint) = picked.cloned() else {
                return Err(reject);
            };
            record.endpoint = Some(Rc::clone(&endpoint));
            let index = endpoint.index;

            match endpoint.lease(self.fresh).await {
                Err(failure) => {
                    tracing::debug!(service = %self.cluster.name, index, %failure, "not reached");
                    reject = refusal(&failure);
                    self.failed.push(index);
                }
                Ok(mut lease) => match lease.send(request).await {
                    Ok(response) => return Ok((response, lease)),
                    Err(error) => {
                        let unanswered = self.unanswered(error, lease.reused, spare.as_ref());
                        let Some(again) = unanswered.again else {
                            return Err(unanswered.reject);
                        };
                        request = again;
                        reject = unanswered.reject;
                        if unanswered.stale {
                            // At most once: the next connection is not an idle one.
                            self.fresh = true;
                        } else {
                            self.failed.push(index);
                        }
                    }
                },
            }
            if self.failed.len() > self.retries as usize {
                return Err(reject);
            }
            record.retries += 1;
        }
    }

    fn unanswered(
        &self,
        mut error: TrySendError<Request<RequestBody>>,
        reused: bool,
        spare: Option<&Parts>,
    ) -> Unanswered {
        let unsent = error.take_message();
        let error = error.into_error();
        tracing::debug!(%error, reused, unsent = unsent.is_some(), "request not answered");
        let again = unsent.or_else(|| {
            // An answer that is no HTTP was an answer: asking again would bring the same.
            let head = spare.filter(|_| !error.is_parse())?;
            let body = RequestBody::empty(Rc::clone(self.upload));
            Some(Request::from_parts(head.clone(), body))
        });
        Unanswered {
            reject: Reject::UpstreamProtocol,
            again,
            stale: reused && !self.fresh,
        }
    }
}

fn refusal(failure: &ConnectFailure) -> Reject {
    match failure {
        ConnectFailure::Busy => Reject::UpstreamBusy,
        ConnectFailure::Waited => Reject::UpstreamQueueTimeout,
        ConnectFailure::Handshake(_) => Reject::UpstreamProtocol,
        ConnectFailure::Refused(_) => Reject::UpstreamConnect,
        ConnectFailure::Timeout => Reject::UpstreamConnectTimeout,
    }
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}
