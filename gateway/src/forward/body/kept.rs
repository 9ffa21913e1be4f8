//! A small request body that is kept whole, so that the request can be sent again.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

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
    pub(crate) fn len(&self) -> u64 {
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

/// A body being copied on its way.
#[derive(Debug)]
pub(super) struct Copying {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    bytes_max: usize,
    whole: oneshot::Sender<Result<KeptBody, &'static str>>,
}

impl Copying {
    /// Adds a piece; gives the copy up when that is too much.
    pub(super) fn add(mut self: Box<Self>, frame: &Frame<Bytes>) -> Option<Box<Self>> {
        if let Some(piece) = frame.data_ref() {
            if self.data.len() + piece.len() > self.bytes_max {
                // Whoever waits for it may have gone.
                let _ = self.whole.send(Err("too-large"));
                return None;
            }
            self.data.extend_from_slice(piece);
        }
        self.trailers = frame.trailers_ref().cloned().or(self.trailers);
        Some(self)
    }

    /// The body is complete.
    pub(super) fn finish(self) {
        let kept = KeptBody {
            data: self.data.into(),
            trailers: self.trailers,
        };
        let _ = self.whole.send(Ok(kept));
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

    /// The body of a copy of a request, of which nobody asks how far it has come.
    pub(crate) fn copied(kept: &KeptBody) -> Self {
        Self::kept(kept.clone(), Upload::new(true))
    }

    /// Copies what passes from now on. The copy comes when the body is complete, or the reason
    /// why there is none; nothing at all if the body breaks off.
    pub(crate) fn copy(
        &mut self,
        bytes_max: usize,
    ) -> oneshot::Receiver<Result<KeptBody, &'static str>> {
        let (sender, receiver) = oneshot::channel();
        self.copying = Some(Box::new(Copying {
            data: Vec::new(),
            trailers: None,
            bytes_max,
            whole: sender,
        }));
        receiver
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
            copying: None,
            upload,
        }
    }
}
