//! Protocol upgrades, WebSocket above all: both sides change together or not at all.
//!
//! The request to upgrade is passed on; only when the instance answers 101 does the connection to
//! the client stop being HTTP. Until then every byte on it is read as HTTP.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, Version};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Instant;

use super::headers;
use crate::filter::reject::Reject;
use crate::overload::admission::Admission;
use crate::serve::Client;
use crate::server::worker;
use crate::upstream::endpoint::Lease;

const UPGRADE_OPTION: HeaderValue = HeaderValue::from_static("upgrade");

/// A client's wish to upgrade.
pub(super) struct Asked {
    protocol: HeaderValue,
}

impl Asked {
    /// The wish of a request, if it has one (RFC 9110 section 7.8).
    ///
    /// `h2c` is left alone: it would carry requests past everything that was decided about this one.
    pub(super) fn of(head: &Parts) -> Option<Self> {
        let protocol = head.headers.get(UPGRADE)?.clone();
        let several = head.headers.get_all(UPGRADE).iter().count() > 1;
        let h2c = protocol.to_str().ok()?.to_ascii_lowercase().contains("h2c");
        let listed = head.headers.get_all(CONNECTION).iter().any(|value| {
            let options = value.to_str().unwrap_or_default().split(',');
            options
                .map(str::trim)
                .any(|option| option.eq_ignore_ascii_case("upgrade"))
        });
        let wanted = listed && !several && !h2c && head.version == Version::HTTP_11;
        wanted.then_some(Self { protocol })
    }

    /// Writes the wish into the request for the instance.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, UPGRADE_OPTION);
        headers.insert(UPGRADE, self.protocol.clone());
    }
}

/// Answers the client's wish with the instance's 101, and joins the two connections. The lease and
/// the places are given back when both are over.
pub(super) fn switch(
    asked: Option<Asked>,
    response: Response<Incoming>,
    (upstream, places): (Lease, Option<Admission>),
    client: &Rc<Client>,
    idle_max: Duration,
) -> Result<Response<()>, Reject> {
    // A 101 nobody asked for, or to another protocol, is no valid answer.
    let asked = asked.ok_or(Reject::UpstreamProtocol)?;
    let protocol = response
        .headers()
        .get(UPGRADE)
        .cloned()
        .ok_or(Reject::UpgradeRefused)?;
    if !protocol
        .as_bytes()
        .eq_ignore_ascii_case(asked.protocol.as_bytes())
    {
        return Err(Reject::UpgradeRefused);
    }
    client.tunnel(Tunnel {
        upstream,
        idle_max,
        _places: places,
        _open: client.worker.open_tunnel(),
    });

    let (mut head, _) = response.into_parts();
    headers::strip(&mut head.headers);
    head.headers.insert(CONNECTION, UPGRADE_OPTION);
    head.headers.insert(UPGRADE, protocol);
    Ok(Response::from_parts(head, ()))
}

/// The instance's side of an upgraded connection, which the client's side is to join.
pub(crate) struct Tunnel {
    upstream: Lease,
    idle_max: Duration,
    _places: Option<Admission>,
    _open: worker::Tunnel,
}

impl Tunnel {
    /// Passes bytes both ways until both sides have ended, or nothing moves for `idle_max`.
    pub(crate) async fn join<S>(mut self, mut client: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut upstream, ahead) = (self.upstream.switched().await)
            .ok_or_else(|| io::Error::other("the instance closed after its 101"))?;
        client.write_all(&ahead).await?;
        let moved = Rc::new(Cell::new(Instant::now()));
        // All bytes of both directions pass the client's side: watching one is enough.
        let mut client = Watched {
            inner: client,
            moved: Rc::clone(&moved),
        };
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut client, &mut upstream) => copied.map(drop),
            () = stalled(&moved, self.idle_max) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

async fn stalled(moved: &Cell<Instant>, idle_max: Duration) {
    loop {
        let deadline = moved.get() + idle_max;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

/// A stream that notes when something moves.
struct Watched<S> {
    inner: S,
    moved: Rc<Cell<Instant>>,
}

impl<S> Watched<S> {
    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.moved.set(Instant::now());
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.note(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_stalls_after_its_last_byte() {
        let start = Instant::now();
        let moved = Cell::new(start);
        let touch = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            moved.set(Instant::now());
        };
        tokio::join!(stalled(&moved, Duration::from_secs(10)), touch);
        assert_eq!((Instant::now() - start).as_secs(), 17);
    }
}
