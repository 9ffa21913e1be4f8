//! The response body: from the instance, or from the gateway itself, to the client.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use super::BoxError;
use super::stall::Stall;
use super::trailers::{self, TrailerLimits};
use crate::config::ServerLimits;
use crate::serve::stream::Taking;
use crate::telemetry::exchange::Exchange;
use crate::upstream::endpoint::{AnswerBody, Lease};
use crate::upstream::wire::PolledFrame;

/// A response body, and with it the end of the exchange: when it is dropped, the request is over,
/// its connection returned and its line in the access log written.
pub(crate) struct ResponseBody {
    source: Source,
    /// How far the client takes it, with HTTP/2.
    taking: Option<Rc<Taking>>,
    exchange: Exchange,
}

enum Source {
    /// Made by the gateway.
    Own(Full<Bytes>),
    /// Streamed from an instance.
    Upstream {
        inner: AnswerBody,
        stall: Stall,
        trailers: TrailerLimits,
        lease: Option<Lease>,
    },
    /// An instance's body that broke off.
    Broken(Option<BoxError>),
}

impl ResponseBody {
    /// A body of the gateway's own.
    pub(crate) fn own(body: Full<Bytes>, exchange: Exchange) -> Self {
        Self {
            source: Source::Own(body),
            taking: Taking::begin(exchange.body_rate()),
            exchange,
        }
    }

    /// The body of an instance's response, which may stand still and bring trailers within `limits`.
    pub(crate) fn upstream(
        inner: AnswerBody,
        lease: Lease,
        limits: &ServerLimits,
        exchange: Exchange,
    ) -> Self {
        let stall = Stall::new(limits.body_idle_timeout);
        Self {
            source: Source::Upstream {
                inner,
                stall,
                trailers: limits.trailers(),
                lease: Some(lease),
            },
            taking: Taking::begin(exchange.body_rate()),
            exchange,
        }
    }

    /// The body ends here with an error, but only at the next poll: hyper closes the connection at
    /// once for it, and the client is to have what came before.
    fn break_off(
        &mut self,
        reason: &'static str,
        error: BoxError,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.exchange.broke_off(reason);
        self.source = Source::Broken(Some(error));
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&mut self) {
        self.exchange.body_complete();
        if let Source::Upstream { lease, .. } = &mut self.source
            && let Some(lease) = lease.take()
        {
            lease.release();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Source::Upstream {
                inner,
                stall,
                trailers,
                lease,
            } => match poll_upstream(inner, lease.as_mut(), cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    stall.touch();
                    let fields = frame.trailers_ref();
                    match fields.map_or(Ok(()), |fields| trailers::check(fields, *trailers)) {
                        Ok(()) => Poll::Ready(Some(Ok(frame))),
                        Err(fault) => this.break_off("upstream-trailers", fault.into(), cx),
                    }
                }
                Poll::Ready(Some(Err(error))) => this.break_off("upstream-broken", error, cx),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending if stall.poll(cx).is_ready() => {
                    let error = "the instance stopped sending".into();
                    this.break_off("upstream-stalled", error, cx)
                }
                Poll::Pending => Poll::Pending,
            },
            Source::Broken(error) => Poll::Ready(error.take().map(Err)),
        };
        let mut handed = None;
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                this.exchange.sent(bytes);
                handed = Some(bytes);
            }
            Poll::Ready(None) => this.end(),
            _ => {}
        }
        if let Some(taking) = &this.taking {
            taking.asked(handed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_end_stream(),
            Source::Upstream { inner, .. } => inner.is_end_stream(),
            Source::Broken(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => body.size_hint(),
            Source::Upstream { inner, .. } => inner.size_hint(),
            Source::Broken(_) => SizeHint::default(),
        }
    }
}

fn poll_upstream(
    body: &mut AnswerBody,
    lease: Option<&mut Lease>,
    cx: &mut Context<'_>,
) -> PolledFrame {
    match lease {
        Some(lease) => lease.poll_body(body, cx),
        // It was given back at the end of the body.
        None => Poll::Ready(None),
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.taking.as_ref().is_some_and(|taking| taking.is_over()) {
            self.exchange.too_slow();
        }
        // hyper does not ask again after the last byte of a body of known length.
        if self.is_end_stream() {
            self.end();
        }
    }
}
