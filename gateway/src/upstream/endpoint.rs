//! One instance as one worker sees it: its connections and the requests it has in flight.

use std::cell::OnceCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::future::Either;
use futures_util::{FutureExt as _, TryFutureExt as _};
use http::request::Parts;
use http::{Request, Response};
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::instance::Instance;
use super::link::Link;
use super::pool::{ConnectFailure, Sender, Taken};
use super::wire::{Decoder, Fault, PolledFrame, Switched, Unanswered};
use crate::forward::body::{BoxError, RequestBody};
use crate::forward::head_of;
use crate::telemetry::metrics::{InstanceSeries, Shard};

/// One instance of a service.
pub(crate) struct Endpoint {
    /// Its position among the service's endpoints.
    pub(crate) index: usize,
    /// Shared by all workers.
    pub(crate) instance: Arc<Instance>,
    /// Shared with earlier and later configurations of this worker.
    pub(crate) link: Rc<Link>,
    series: OnceCell<Arc<InstanceSeries>>,
}

impl Endpoint {
    pub(crate) fn new(index: usize, instance: Arc<Instance>, link: Rc<Link>) -> Self {
        Self {
            index,
            instance,
            link,
            series: OnceCell::new(),
        }
    }

    /// What this worker counts of the instance.
    pub(crate) fn series(&self, shard: &Shard, service: &str) -> &InstanceSeries {
        self.series
            .get_or_init(|| shard.instance(service, &self.instance.name))
    }

    /// A connection for one request. With `fresh`, one that no request was sent on before.
    pub(crate) async fn lease(self: Rc<Self>, fresh: bool) -> Result<Lease, ConnectFailure> {
        // Counted before the connection stands, so that a slow instance looks as busy as it is.
        let mut in_flight = InFlight::new(Rc::clone(&self));
        match in_flight.connect(fresh).await {
            Ok(taken) => {
                self.instance.trust();
                Ok(Lease {
                    in_flight,
                    sender: Some(taken.sender),
                    reused: taken.reused,
                })
            }
            Err(failure) => {
                if failure.is_fault_of_instance() {
                    self.instance.suspect(Instant::now());
                }
                Err(failure)
            }
        }
    }
}

/// Counts one request while it lives.
struct InFlight {
    endpoint: Rc<Endpoint>,
    /// It has a place among the requests of all workers.
    placed: bool,
}

impl InFlight {
    fn new(endpoint: Rc<Endpoint>) -> Self {
        endpoint.link.begins();
        Self {
            endpoint,
            placed: false,
        }
    }

    async fn connect(&mut self, fresh: bool) -> Result<Taken, ConnectFailure> {
        let (pool, instance) = (&self.endpoint.link.pool, &self.endpoint.instance);
        if !pool.has_place(instance) {
            // Boxed: waiting is the exception, and takes room in every request's future.
            Box::pin(pool.wait_for_place(instance)).await?;
        }
        self.placed = true;
        pool.take(instance, fresh).await
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.link.ends();
        if self.placed {
            self.endpoint.instance.requests.give_back();
        }
    }
}

/// A connection in the hands of one request. Dropping it closes the connection (HTTP/1.1) or the
/// stream (HTTP/2); [`Lease::release`] lets the next request have it.
pub(crate) struct Lease {
    in_flight: InFlight,
    sender: Option<Sender>,
    /// Whether an earlier request was sent on the connection: it may have gone stale meanwhile.
    pub(crate) reused: bool,
}

impl Lease {
    /// The instance at the other end.
    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.in_flight.endpoint
    }

    /// Sends the request. The error holds its body if nothing was written.
    ///
    /// Not an `async fn`: that would keep room for the request beside the future it goes into.
    pub(crate) fn send(
        &mut self,
        head: &Parts,
        body: RequestBody,
    ) -> impl Future<Output = Result<Response<AnswerBody>, Unanswered>> + use<'_> {
        let sender = self.sender.as_mut();
        let sender = sender.expect("only release takes it, and release consumes the lease");
        let timing = self.in_flight.endpoint.link.time();
        let answer = match sender {
            Sender::Http1(wire) => {
                let answer = wire.send(head, body);
                Either::Left(answer.map_ok(|response| response.map(AnswerBody::Http1)))
            }
            Sender::Http2(sender) => Either::Right(
                (sender.try_send_request(Request::from_parts(head_of(head), body)))
                    .map_ok(|response| response.map(AnswerBody::Http2))
                    .map_err(unanswered),
            ),
        };
        answer.inspect(|answer| {
            if answer.is_ok() {
                timing.answered();
            }
        })
    }

    /// Polls the body of the response.
    pub(crate) fn poll_body(&mut self, body: &mut AnswerBody, cx: &mut Context<'_>) -> PolledFrame {
        match (body, &mut self.sender) {
            (AnswerBody::Http1(body), Some(Sender::Http1(wire))) => wire.poll_body(body, cx),
            (AnswerBody::Http1(_), _) => Poll::Ready(None),
            (AnswerBody::Http2(body), _) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
            }
        }
    }

    /// The stream of an HTTP/1.1 connection that has answered 101; the lease goes on counting the
    /// request. `None`: there is none.
    pub(crate) fn switched(&mut self) -> Option<Switched> {
        match self.sender.take() {
            Some(Sender::Http1(wire)) => wire.switched(),
            _ => None,
        }
    }

    /// The response was read to its end: the connection may serve another request.
    pub(crate) fn release(mut self) {
        if let Some(sender) = self.sender.take() {
            let endpoint = self.endpoint();
            let pool = &endpoint.link.pool;
            pool.put(sender, &endpoint.instance, Instant::now());
        }
    }
}

/// The body of an answer. Its bytes come through the [lease](Lease::poll_body).
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// What is still to come of it over the connection.
    Http1(Decoder),
    Http2(Incoming),
}

impl AnswerBody {
    /// Whether nothing more comes.
    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_ended(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    /// What is known of the length of the rest.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

fn unanswered(mut error: TrySendError<Request<RequestBody>>) -> Unanswered {
    Unanswered {
        unsent: (error.take_message()).map(|request| Box::new(request.into_body())),
        fault: Fault::Http2(error.into_error()),
    }
}
