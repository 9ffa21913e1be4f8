//! What goes wrong on a connection to an instance, and what that says about the request.

use std::io;

use crate::filter::reject::Reject;
use crate::forward::body::{BoxError, RequestBody};
use crate::upstream::transport;

/// What is wrong with the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadFault {
    /// It does not follow the grammar of RFC 9112 section 4.
    #[error("it does not follow the grammar: {0}")]
    Syntax(httparse::Error),
    /// It is over [`HEAD_BYTES_MAX`](super::head::HEAD_BYTES_MAX).
    #[error("its head is larger than {} bytes", super::head::HEAD_BYTES_MAX)]
    TooLarge,
    /// It states the length of its body in two ways, or in none that is understood.
    #[error("the length of its body is ambiguous")]
    Framing,
}

/// What is wrong with the body of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyFault {
    /// The connection ended within it.
    #[error("the connection ended within the body of the answer")]
    Short,
    /// It is not in chunks as RFC 9112 section 7.1 has them.
    #[error("the chunks of the answer are broken")]
    Chunk,
    /// The line of a chunk, or the trailer section, is over its limit.
    #[error("a chunk's line or the trailer section of the answer is too large")]
    TooLarge,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The connection ended first.
    #[error("the connection ended before the answer")]
    Ended,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Connection(io::Error),
    /// What came is no answer.
    #[error("no answer: {0}")]
    Head(#[from] HeadFault),
    /// The request could not be completed.
    #[error("the request body failed: {0}")]
    Upload(BoxError),
    /// The same, in the words of HTTP/2.
    #[error(transparent)]
    Http2(hyper::Error),
}

impl Fault {
    /// Whether the instance does not accept the gateway's certificate, or misses one.
    pub(crate) fn is_refused_by_tls(&self) -> bool {
        match self {
            Self::Connection(error) => transport::is_refused(error),
            Self::Http2(error) => transport::is_refused(error),
            _ => false,
        }
    }

    /// The refusal for what was an answer, but none that may be passed on: asking again would
    /// bring the same. `None`: there was no answer.
    fn refusal(&self) -> Option<Reject> {
        match self {
            Self::Head(HeadFault::Framing) => Some(Reject::UpstreamFraming),
            Self::Head(_) => Some(Reject::UpstreamProtocol),
            Self::Http2(error) if error.is_parse() => Some(Reject::UpstreamProtocol),
            _ => None,
        }
    }
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) fault: Fault,
    /// The request's body, if nothing was written. Boxed: it is seldom there.
    pub(crate) unsent: Option<Box<RequestBody>>,
}

impl Unanswered {
    /// The refusal for an answer that was none.
    pub(crate) fn refusal(&self) -> Option<Reject> {
        self.fault.refusal().filter(|_| self.unsent.is_none())
    }
}

impl From<Fault> for Unanswered {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            unsent: None,
        }
    }
}
