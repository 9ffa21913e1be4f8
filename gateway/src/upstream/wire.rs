//! One HTTP/1.1 connection to an instance.
//!
//! Whoever uses the wire moves its bytes: the request's own task writes the request, waits for the
//! answer and reads it, without another task in between that would have to be woken each time. A
//! request with a body gets a task for its wire instead: there both directions must move even while
//! nobody asks for the answer. If it may become a tunnel, it gets it when it turns out that it does
//! not. The next request without a body moves its bytes itself again.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::pool::Place;
use super::stream::AnswerFirst;
use crate::forward::body::RequestBody;
use crate::socket::Socket;

/// What polling a response body gives.
pub(crate) type PolledFrame = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

type Connection = http1::Connection<TokioIo<AnswerFirst<Socket>>, RequestBody>;

/// What a connection is once it has changed its protocol: the stream, and what was read of it already.
pub(crate) type Switched = (AnswerFirst<Socket>, Bytes);

/// An HTTP/1.1 connection to an instance.
pub(crate) struct Wire {
    sender: http1::SendRequest<RequestBody>,
    mover: Mover,
    _place: Place,
}

/// Who moves the bytes of a connection.
enum Mover {
    /// Whoever uses it.
    User(Box<Connection>),
    /// A task of its own.
    Task(Lent),
    /// Nobody: it has ended. It is kept where it may have ended as HTTP only.
    Nobody(Option<Box<Connection>>),
}

/// A connection in the hands of a task, which holds it until it ends or is taken back.
struct Lent {
    connection: Rc<RefCell<Option<Box<Connection>>>>,
    task: AbortHandle,
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
            mover: Mover::User(Box::new(connection)),
            _place: place,
        }
    }

    /// Whether the connection has ended; looks at what the instance did meanwhile.
    pub(super) fn has_ended(&mut self) -> bool {
        // Nobody waits for an idle connection, so nobody is to be woken for it: neither by the
        // instance, nor by the next request, which would wake the task of the last.
        let mut nobody = Context::from_waker(Waker::noop());
        self.mover.drive(&mut nobody, false);
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
        let has_body = !request.body().is_end_stream();
        // The stream is wanted back when the answer is 101, so no task may own it until then.
        let may_switch = request.headers().contains_key(UPGRADE);
        if has_body && !may_switch {
            self.mover.detach();
        } else {
            self.mover.take_back();
        }
        // Boxed, because it is polled by hand; hyper keeps the request elsewhere, so it is small.
        let mut answer = Box::pin(self.sender.try_send_request(request));
        let mover = &mut self.mover;
        poll_fn(move |cx| {
            if matches!(mover, Mover::Task(_)) {
                return answer.as_mut().poll(cx);
            }
            mover.drive(cx, may_switch);
            // The answer came in with these bytes or is not there yet: nobody is to be woken.
            let mut quiet = Context::from_waker(Waker::noop());
            let polled = answer.as_mut().poll(&mut quiet);
            match &polled {
                Poll::Ready(Ok(response)) if has_body && !is_switch(response) => mover.detach(),
                Poll::Pending if mover.end() => return answer.as_mut().poll(&mut quiet),
                _ => {}
            }
            polled
        })
    }

    /// Polls the body of an answer that came over this wire.
    pub(super) fn poll_body(&mut self, body: &mut Incoming, cx: &mut Context<'_>) -> PolledFrame {
        if !self.mover.is_user() {
            return Pin::new(body).poll_frame(cx);
        }
        let mut quiet = Context::from_waker(Waker::noop());
        let there = Pin::new(&mut *body).poll_frame(&mut quiet);
        if there.is_ready() {
            return there;
        }
        self.mover.drive(cx, false);
        Pin::new(body).poll_frame(&mut quiet)
    }

    /// Gives the wire a task of its own.
    pub(crate) fn detach(&mut self) {
        self.mover.detach();
    }

    /// The stream of a connection that has answered 101. `None`: it has ended since.
    pub(super) async fn switched(&mut self) -> Option<Switched> {
        let connection = match std::mem::replace(&mut self.mover, Mover::Nobody(None)) {
            Mover::User(mut connection) => (&mut *connection).await.ok().map(|()| connection),
            // Its request could not become a tunnel.
            Mover::Task(_) => None,
            Mover::Nobody(connection) => connection,
        };
        let parts = connection?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}

impl Mover {
    fn is_user(&self) -> bool {
        matches!(self, Self::User(_))
    }

    /// Moves bytes, if the task at hand is to do so. A connection that ends in good order is kept
    /// with `may_switch`, and otherwise dropped, from which whoever waits for it learns of the end.
    fn drive(&mut self, cx: &mut Context<'_>, may_switch: bool) {
        let Self::User(connection) = self else { return };
        let Poll::Ready(ended) = Pin::new(&mut **connection).poll(cx) else {
            return;
        };
        // Errors reach the request that is on it.
        if let Err(error) = &ended {
            tracing::debug!(%error, "upstream connection ended");
        }
        if let Self::User(connection) = std::mem::replace(self, Self::Nobody(None)) {
            *self = Self::Nobody((ended.is_ok() && may_switch).then_some(connection));
        }
    }

    /// Drops a connection that was kept; returns whether there was one.
    fn end(&mut self) -> bool {
        match self {
            Self::Nobody(kept) => kept.take().is_some(),
            _ => false,
        }
    }

    fn detach(&mut self) {
        *self = match std::mem::replace(self, Self::Nobody(None)) {
            Self::User(connection) => Self::Task(Lent::new(connection)),
            other => other,
        };
    }

    /// Ends the task of a connection that has one: its user moves its bytes from now on.
    fn take_back(&mut self) {
        if let Self::Task(lent) = self {
            *self = lent.take_back().map_or(Self::Nobody(None), Self::User);
        }
    }
}

impl Lent {
    fn new(connection: Box<Connection>) -> Self {
        let connection = Rc::new(RefCell::new(Some(connection)));
        let moved = Rc::clone(&connection);
        let task = tokio::task::spawn_local(poll_fn(move |cx| poll_lent(&moved, cx)));
        Self {
            connection,
            task: task.abort_handle(),
        }
    }

    /// The connection, unless it has ended.
    fn take_back(&self) -> Option<Box<Connection>> {
        self.task.abort();
        self.connection.take()
    }
}

/// Moves the bytes of a connection, which is dropped at its end: from that, whoever waits for it
/// learns of the end.
fn poll_lent(lent: &RefCell<Option<Box<Connection>>>, cx: &mut Context<'_>) -> Poll<()> {
    let mut lent = lent.borrow_mut();
    let Some(connection) = &mut *lent else {
        return Poll::Ready(());
    };
    Pin::new(&mut **connection).poll(cx).map(|ended| {
        if let Err(error) = ended {
            tracing::debug!(%error, "upstream connection ended");
        }
        *lent = None;
    })
}

/// Whether the connection is no HTTP any more.
fn is_switch(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}
