//! Answers a scrape: the page is written by a thread of its own and goes out in pieces, so that
//! neither health checks nor memory feel the size of it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, channel};

use super::Metrics;
use super::format::Format;

/// Scrapes at a time.
const SCRAPES_MAX: usize = 8;
/// Pieces on their way to the scraper.
const PIECES_MAX: usize = 4;
/// A scraper that takes no piece for so long is given up.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// The body of the answer to a scrape.
#[derive(Debug)]
pub(crate) struct Scrape(Receiver<Bytes>);

impl Scrape {
    /// Begins to write the page; `None`: too many scrapes are under way. Must be called within a
    /// runtime.
    pub(crate) fn begin(metrics: &Arc<Metrics>, format: Format) -> Option<Self> {
        let slot = Arc::clone(&metrics.scrapes).try_acquire_owned().ok()?;
        let (sender, receiver) = channel(PIECES_MAX);
        let (metrics, runtime) = (Arc::clone(metrics), Handle::current());
        tokio::task::spawn_blocking(move || {
            let _slot = slot;
            let send = |piece| {
                let sent = tokio::time::timeout(STALLED_MAX, sender.send(piece));
                // Late, or nobody reads on: either way there is no use in the rest.
                match runtime.block_on(sent) {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) | Err(_) => Err(fmt::Error),
                }
            };
            if metrics.write(format, Instant::now(), send).is_err() {
                tracing::debug!("a scrape was given up half-way");
            }
        });
        Some(Self(receiver))
    }

    /// As many as may be under way.
    pub(super) fn slots() -> Arc<tokio::sync::Semaphore> {
        Arc::new(tokio::sync::Semaphore::new(SCRAPES_MAX))
    }
}

impl http_body::Body for Scrape {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
