//! One HTTP/1.1 connection to an instance.
//!
//! Whoever uses the wire moves its bytes: the request's own task writes the request, waits for the
//! answer and reads it, without another task in between that would have to be woken each time. Only
//! when an instance answers before it has the whole request, the rest of that is written by a task
//! of its own: a client that does not read before it has written everything must not stop both.
//!
//! The heads and framing are read and written here rather than by hyper, which keeps a connection
//! ready for any order of events and costs more than twice as much for the usual one (`bench/README.md`).
//! Of the grammar, `httparse` reads the part that takes care; where a body ends is said in one place,
//! [`normalise::response_length`](crate::normalise::response_length).

mod decode;
mod encode;
mod fault;
mod head;
mod input;
pub(crate) mod maps;
mod output;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Frame;
use tokio::io::AsyncWrite as _;
use tokio::task::AbortHandle;

use self::decode::Decoded;
pub(crate) use self::decode::Decoder;
pub(crate) use self::fault::{Fault, Unanswered};
use self::head::Answered;
use self::input::Input;
use self::output::Output;
use super::pool::Place;
use super::stream::AnswerFirst;
use super::transport::Transport;
use crate::forward::body::{BoxError, RequestBody};

/// Reads for one head before other tasks have their turn.
const READS_IN_A_ROW_MAX: u32 = 16;

/// What polling a response body gives.
pub(crate) type PolledFrame = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// An HTTP/1.1 connection to an instance.
pub(crate) struct Wire {
    connection: Rc<RefCell<Connection>>,
    /// Writes the rest of a request that was answered early.
    uploading: Option<Uploading>,
}

/// What a connection is once it has changed its protocol.
pub(crate) struct Switched {
    pub(crate) stream: AnswerFirst<Transport>,
    /// What was read of it already.
    pub(crate) ahead: Bytes,
    /// It counts as a connection still.
    _place: Place,
}

struct Connection {
    io: AnswerFirst<Transport>,
    input: Input,
    /// Bytes of the input in which no head ends.
    searched: usize,
    output: Output,
    phase: Phase,
    /// The method of the request under way.
    method: Method,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No request was sent yet.
    Fresh,
    /// No request is under way.
    Idle,
    /// A request is; whether the connection may serve another one after it.
    Busy { keeps_alive: bool },
    /// There will be no other request.
    Over,
}

impl Wire {
    /// A connection that stands.
    pub(super) fn new(io: AnswerFirst<Transport>, place: Place) -> Self {
        let connection = Connection {
            io,
            input: Input::new(),
            searched: 0,
            output: Output::default(),
            phase: Phase::Fresh,
            method: Method::GET,
            place,
        };
        Self {
            connection: Rc::new(RefCell::new(connection)),
            uploading: None,
        }
    }

    /// Whether the connection has ended; looks at what the instance did meanwhile.
    pub(super) fn has_ended(&self) -> bool {
        self.connection.borrow_mut().has_ended()
    }

    /// Whether another request may be sent at once. It may not if the instance answered before it
    /// had read the whole request: such a connection is not worth waiting for.
    pub(super) fn is_ready(&self) -> bool {
        let connection = &mut *self.connection.borrow_mut();
        connection.output.is_done() && !connection.has_ended()
    }

    /// Frees the buffers of a connection that nobody has used for a while.
    pub(super) fn rest(&self) {
        self.connection.borrow_mut().input.rest();
    }

    /// Sends the request, and waits for the head of its answer.
    ///
    /// Not an `async fn`: the head is written out at once, so the future is small.
    pub(super) fn send(&mut self, head: &Parts, body: RequestBody) -> Answering<'_> {
        self.uploading = None;
        let unsent = self.connection.borrow_mut().begin(head, body);
        Answering {
            wire: self,
            unsent,
            switch: None,
        }
    }

    /// Polls the body of an answer that came over this wire.
    pub(super) fn poll_body(&self, body: &mut Decoder, cx: &mut Context<'_>) -> PolledFrame {
        self.connection.borrow_mut().poll_body(body, cx)
    }

    /// The stream of a connection that has answered 101.
    pub(super) fn switched(self) -> Option<Switched> {
        let connection = Rc::into_inner(self.connection)?.into_inner();
        Some(Switched {
            stream: connection.io,
            ahead: connection.input.bytes.freeze(),
            _place: connection.place,
        })
    }
}

impl Connection {
    /// Takes a request over, or returns its body if the connection has ended.
    fn begin(&mut self, head: &Parts, body: RequestBody) -> Option<Box<RequestBody>> {
        // One that was used before was looked at when it was taken.
        if self.phase != Phase::Idle && self.has_ended() {
            return Some(Box::new(body));
        }
        self.output.begin(head, body);
        self.phase = Phase::Busy { keeps_alive: false };
        self.method = head.method.clone();
        None
    }

    /// Whether it has ended. What comes while no request is under way is an end too: it would be
    /// taken for the answer to the next one.
    fn has_ended(&mut self) -> bool {
        if !matches!(self.phase, Phase::Fresh | Phase::Idle) {
            return true;
        }
        // Nobody waits for an idle connection, so nobody is to be woken for it.
        let mut nobody = Context::from_waker(Waker::noop());
        let silent = self.input.bytes.is_empty()
            && self.input.poll_fill(&mut self.io, &mut nobody).is_pending();
        if !silent {
            self.phase = Phase::Over;
        }
        !silent
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Decoder>, Fault>> {
        for _ in 0..READS_IN_A_ROW_MAX {
            if !self.input.bytes.is_empty() {
                let input = &mut self.input.bytes;
                let read = head::read(input, &mut self.searched, &self.method)?;
                if let Some(Answered {
                    response,
                    keeps_alive,
                }) = read
                {
                    self.phase = Phase::Busy { keeps_alive };
                    self.note_end(*response.body());
                    return Poll::Ready(Ok(response));
                }
            }
            let filled = self.input.poll_fill(&mut self.io, cx);
            if ready!(filled).map_err(Fault::Connection)? == 0 {
                return Poll::Ready(Err(Fault::Ended));
            }
        }
        // An instance that sends interim answers without end: others are to have their turn, the
        // timer of this request first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_body(&mut self, body: &mut Decoder, cx: &mut Context<'_>) -> PolledFrame {
        loop {
            match body.decode(&mut self.input.bytes) {
                Ok(Decoded::Frame(frame)) => {
                    self.note_end(*body);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(Decoded::Ended) => {
                    self.note_end(*body);
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
                Err(fault) => return self.break_off(body, fault.into()),
            }
            match ready!(self.input.poll_fill(&mut self.io, cx)) {
                Ok(0) => {
                    return match body.end() {
                        Ok(()) => Poll::Ready(None),
                        Err(fault) => self.break_off(body, fault.into()),
                    };
                }
                Ok(_) => {}
                Err(error) => return self.break_off(body, error.into()),
            }
        }
    }

    fn break_off(&mut self, body: &mut Decoder, fault: BoxError) -> PolledFrame {
        *body = Decoder::Ended;
        self.phase = Phase::Over;
        Poll::Ready(Some(Err(fault)))
    }

    /// Once nothing more of the answer is to come, the connection is idle, or over.
    fn note_end(&mut self, body: Decoder) {
        if let Phase::Busy { keeps_alive } = self.phase
            && body.is_ended()
        {
            self.phase = if keeps_alive {
                Phase::Idle
            } else {
                Phase::Over
            };
        }
    }
}

/// A request on its way, and the head of its answer.
pub(super) struct Answering<'w> {
    wire: &'w mut Wire,
    /// The request's body, if the connection had ended before.
    unsent: Option<Box<RequestBody>>,
    /// An instance may agree to another protocol before it has the whole request; the other
    /// protocol begins behind that.
    switch: Option<Response<Decoder>>,
}

impl Future for Answering<'_> {
    type Output = Result<Response<Decoder>, Unanswered>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(unsent) = this.unsent.take() {
            return Poll::Ready(Err(Unanswered {
                fault: Fault::Ended,
                unsent: Some(unsent),
            }));
        }
        let connection = &mut *this.wire.connection.borrow_mut();
        let sent = connection.output.poll(&mut connection.io, cx)?.is_ready();
        let response = match this.switch.take() {
            Some(response) => response,
            None => ready!(connection.poll_head(cx))?,
        };
        if !sent && response.status() == StatusCode::SWITCHING_PROTOCOLS {
            this.switch = Some(response);
            return Poll::Pending;
        }
        if !sent {
            this.wire.uploading = Some(Uploading::begin(&this.wire.connection));
        }
        Poll::Ready(Ok(response))
    }
}

/// The task that writes the rest of a request. It ends with its wire.
struct Uploading(AbortHandle);

impl Uploading {
    fn begin(connection: &Rc<RefCell<Connection>>) -> Self {
        let connection = Rc::clone(connection);
        let task = tokio::task::spawn_local(poll_fn(move |cx| {
            let connection = &mut *connection.borrow_mut();
            let written = ready!(connection.output.poll(&mut connection.io, cx));
            if let Err(fault) = written {
                tracing::debug!(%fault, "request not completed after its answer began");
                connection.phase = Phase::Over;
                // The instance is not to wait for the rest.
                let mut nobody = Context::from_waker(Waker::noop());
                let _ = Pin::new(&mut connection.io).poll_shutdown(&mut nobody);
            }
            Poll::Ready(())
        }));
        Self(task.abort_handle())
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.abort();
    }
}
