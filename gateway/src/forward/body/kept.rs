//! A small request body that is kept whole, so that the request can be sent again.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;

use super::{BoxError, Pace, RequestBody, TrailerLimits, Upload};

/// A whole body; cheap to copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl KeptBody {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    /// Bytes that were not taken yet.
    pub(super) fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// Takes the next piece out.
    pub(super) fn take(&mut self) -> Option<Frame<Bytes>> {
        if self.data.is_empty() {
            self.trailers.take().map(Frame::trailers)
        } else {
            Some(Frame::data(std::mem::take(&mut self.data)))
        }
    }
}

impl RequestBody {
    /// Reads the body whole, if it states a length of at most `bytes_max`, and returns a copy. An
    /// empty body is one too. `None`: it is streamed, and there is only one of it.
    ///
    /// A body of no stated length is never kept: its end may depend on the answer.
    pub(crate) async fn keep(&mut self, bytes_max: u64) -> Result<Option<KeptBody>, BoxError> {
        if self.is_end_stream() {
            return Ok(Some(KeptBody::default()));
        }
        match self.size_hint().exact() {
            Some(length) if length <= bytes_max => Box::pin(self.collect_whole()).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn collect_whole(&mut self) -> Result<KeptBody, BoxError> {
        let mut data = BytesMut::new();
        let mut trailers = None;
        while let Some(frame) = self.frame().await {
            match frame?.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        let kept = KeptBody {
            data: data.freeze(),
            trailers,
        };
        *self = Self::kept(kept.clone(), self.upload());
        Ok(kept)
    }

    /// The body of a request that is sent again.
    pub(crate) fn kept(kept: KeptBody, upload: Rc<Upload>) -> Self {
        Self {
            inner: None,
            kept: (!kept.is_empty()).then(|| Box::new(kept)),
            bytes_left: 0,
            // They were looked at when they were read.
            trailers: TrailerLimits::NONE,
            pace: Pace::new(None),
            upload,
        }
    }
}
