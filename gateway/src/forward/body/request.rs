//! The request body: from the client to the instance.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::kept::Copying;
use super::trailers::{self, TrailerFault, TrailerLimits};
use super::{BoxError, KeptBody, Pace};
use crate::config::{BodyRate, ServerLimits};
use crate::route::Route;

/// Why a request body was not passed on to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadFailure {
    /// It is larger than the route allows.
    #[error("the request body is over its limit")]
    TooLarge,
    /// The client broke off, or its framing is broken.
    #[error("the request body broke off")]
    Broken,
    /// It came too slowly.
    #[error("the request body came too slowly")]
    TooSlow,
    /// Its trailers may not pass.
    #[error(transparent)]
    Trailers(#[from] TrailerFault),
}

/// What a request body must keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes of data.
    pub(crate) bytes_max: u64,
    /// Its trailer section.
    pub(crate) trailers: TrailerLimits,
    /// How fast it must come.
    pub(crate) rate: Option<BodyRate>,
}

impl BodyLimits {
    /// The limits of a route. What it does not say, the server does.
    pub(crate) fn new(route: &Route, server: &ServerLimits) -> Self {
        Self {
            bytes_max: route.body_bytes_max.unwrap_or(server.body_bytes_max),
            trailers: server.trailers(),
            rate: route.body_rate,
        }
    }
}

/// How far the request body has come; shared with whoever waits for the response.
#[derive(Debug)]
pub(crate) struct Upload {
    bytes: Cell<u64>,
    moved: Cell<Instant>,
    finished: Cell<bool>,
    awaits_client: Cell<bool>,
    failure: Cell<Option<UploadFailure>>,
}

impl Upload {
    pub(super) fn new(finished: bool) -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            moved: Cell::new(Instant::now()),
            finished: Cell::new(finished),
            awaits_client: Cell::new(false),
            failure: Cell::new(None),
        })
    }

    /// One that stands still, by the fault of the client or of the instance.
    #[cfg(test)]
    pub(crate) fn standing(finished: bool, awaits_client: bool) -> Rc<Self> {
        let upload = Self::new(finished);
        upload.awaits_client.set(awaits_client);
        upload
    }

    /// Body bytes passed on so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// When something of it last moved; its end, once it is finished.
    pub(crate) fn moved(&self) -> Instant {
        self.moved.get()
    }

    /// Whether all of it was passed on.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.get()
    }

    /// Whether the next move is the client's: otherwise the instance is slow to take the body.
    pub(crate) fn awaits_client(&self) -> bool {
        self.awaits_client.get()
    }

    /// Why it ended early, if it did.
    pub(crate) fn failure(&self) -> Option<UploadFailure> {
        self.failure.get()
    }

    fn fail(&self, failure: UploadFailure) -> BoxError {
        self.failure.set(Some(failure));
        failure.into()
    }
}

/// A request body that counts itself and ends at its limit.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None`: there is nothing to stream.
    pub(super) inner: Option<Incoming>,
    /// What was read before.
    pub(super) kept: Option<Box<KeptBody>>,
    pub(super) bytes_left: u64,
    pub(super) trailers: TrailerLimits,
    pub(super) pace: Pace,
    /// A copy in the making, for mirrors.
    pub(super) copying: Option<Box<Copying>>,
    pub(super) upload: Rc<Upload>,
}

impl RequestBody {
    /// The body of a request, which is let through within `limits`. Fails at once if the client
    /// announced more.
    pub(crate) fn new(inner: Incoming, limits: BodyLimits) -> Result<Self, UploadFailure> {
        if inner.size_hint().lower() > limits.bytes_max {
            return Err(UploadFailure::TooLarge);
        }
        let inner = (!inner.is_end_stream()).then_some(inner);
        let upload = Upload::new(inner.is_none());
        Ok(Self {
            inner,
            kept: None,
            bytes_left: limits.bytes_max,
            trailers: limits.trailers,
            pace: Pace::new(limits.rate),
            copying: None,
            upload,
        })
    }

    /// How far it has come.
    pub(crate) fn upload(&self) -> Rc<Upload> {
        Rc::clone(&self.upload)
    }

    fn finish(&mut self) {
        if let Some(copying) = self.copying.take() {
            copying.finish();
        }
        self.upload.finished.set(true);
        self.upload.moved.set(Instant::now());
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(inner) = this.inner.as_mut() else {
            let frame = this.kept.as_mut().and_then(|kept| kept.take());
            return Poll::Ready(frame.map(Ok));
        };
        this.upload.awaits_client.set(true);
        let polled = Pin::new(inner).poll_frame(cx);
        if polled.is_pending() && this.pace.poll(cx).is_ready() {
            return Poll::Ready(Some(Err(this.upload.fail(UploadFailure::TooSlow))));
        }
        let frame = ready!(polled);
        this.upload.awaits_client.set(false);
        let frame = match frame {
            None => {
                this.finish();
                return Poll::Ready(None);
            }
            Some(Err(_)) => {
                return Poll::Ready(Some(Err(this.upload.fail(UploadFailure::Broken))));
            }
            Some(Ok(frame)) => frame,
        };
        let length = frame.data_ref().map_or(0, Bytes::len);
        this.pace.moved(length);
        if let Some(fields) = frame.trailers_ref()
            && let Err(fault) = trailers::check(fields, this.trailers)
        {
            return Poll::Ready(Some(Err(this.upload.fail(fault.into()))));
        }
        let length = length as u64;
        let Some(bytes_left) = this.bytes_left.checked_sub(length) else {
            return Poll::Ready(Some(Err(this.upload.fail(UploadFailure::TooLarge))));
        };
        this.bytes_left = bytes_left;
        if let Some(copying) = this.copying.take() {
            this.copying = copying.add(&frame);
        }
        this.upload.bytes.set(this.upload.bytes.get() + length);
        this.upload.moved.set(Instant::now());
        if this.is_end_stream() {
            // hyper does not ask again after the last byte of a body of known length.
            this.finish();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.is_end_stream(),
            None => self.kept.as_ref().is_none_or(|kept| kept.is_empty()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(self.kept.as_ref().map_or(0, |kept| kept.len())),
        }
    }
}
