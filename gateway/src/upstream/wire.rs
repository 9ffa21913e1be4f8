//! One HTTP/1.1 connection to an instance.
//!
//! Whoever uses the wire moves its bytes: the request's own task writes the request, waits for the
//! answer and reads it, without another task in between that would have to be woken each time. A
//! request with a body, and one that may become a tunnel, gets a task for its wire instead: there
//! both directions must move even while nobody asks for the answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::pool::Place;
use super::stream::AnswerFirst;
use crate::forward::body::RequestBody;

/// What polling a response body gives.
pub(crate) type PolledFrame = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

type Connection = http1::Connection<TokioIo<AnswerFirst<TcpStream>>, RequestBody>;

/// An HTTP/1.1 connection to an instance.
pub(crate) struct Wire {
    sender: http1::SendRequest<RequestBody>,
    /// `None`: a task of its own moves its bytes, or it has ended.
    connection: Option<Box<Connection>>,
    _place: Place,
}

impl Wire {
    /// The two halves of a connection that hyper has made.
    pub(super) fn new(
        sender: http1::SendRequest<RequestBody>,
        connection: Connection,
        place: Place,
    ) -> Self {
        Self {
            sender,
            connection: Some(Box::new(connection)),
            _place: place,
        }
    }

    /// Whether the connection has ended; looks at what the instance did meanwhile.
    pub(super) fn has_ended(&mut self) -> bool {
        // Nobody waits for an idle connection, so nobody is to be woken for it.
        drive(
            &mut self.connection,
            &mut Context::from_waker(Waker::noop()),
        );
        self.sender.is_closed()
    }

    /// Whether another request may be sent at once. It may not if the instance answered before it
    /// had read the whole request: such a connection is not worth waiting for.
    pub(super) fn is_ready(&mut self) -> bool {
        !self.has_ended() && self.sender.is_ready()
    }

    /// Sends the request. The error holds the request if nothing of it was written.
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<'_>
    {
        if !request.body().is_end_stream() || request.headers().keys().any(|name| *name == UPGRADE)
        {
            self.detach();
        }
        // Boxed, because it is polled by hand; hyper keeps the request elsewhere, so it is small.
        let mut answer = Box::pin(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        poll_fn(move |cx| {
            if connection.is_none() {
                return answer.as_mut().poll(cx);
            }
            drive(connection, cx);
            // The answer came in with these bytes or is not there yet: nobody is to be woken.
            answer
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
        })
    }

    /// Polls the body of an answer that came over this wire.
    pub(super) fn poll_body(&mut self, body: &mut Incoming, cx: &mut Context<'_>) -> PolledFrame {
        if self.connection.is_none() {
            return Pin::new(body).poll_frame(cx);
        }
        let mut quiet = Context::from_waker(Waker::noop());
        let there = Pin::new(&mut *body).poll_frame(&mut quiet);
        if there.is_ready() {
            return there;
        }
        drive(&mut self.connection, cx);
        Pin::new(body).poll_frame(&mut quiet)
    }

    /// Gives the wire a task of its own.
    pub(crate) fn detach(&mut self) {
        if let Some(connection) = self.connection.take() {
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "upstream connection ended");
                }
            });
        }
    }
}

/// Moves bytes, if the task at hand is to do so.
fn drive(connection: &mut Option<Box<Connection>>, cx: &mut Context<'_>) {
    let Some(driven) = connection else { return };
    if let Poll::Ready(ended) = Pin::new(&mut **driven).poll(cx) {
        // Its errors reach the request that is on it.
        if let Err(error) = ended {
            tracing::debug!(%error, "upstream connection ended");
        }
        *connection = None;
    }
}
