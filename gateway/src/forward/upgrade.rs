//! Protocol upgrades, WebSocket above all: both sides change together or not at all.
//!
//! The request to upgrade is passed on; only when the instance answers 101 does the connection to
//! the client stop being HTTP. Until then every byte on it is read as HTTP.
//!
//! A tunnel ends with either side, when nothing moves for too long, or when memory is short: then
//! a WebSocket's client is told why, unless a frame is under way.

mod frames;

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, Version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Instant;

use self::frames::Frames;
use super::headers;
use crate::filter::reject::Reject;
use crate::overload::admission::Admission;
use crate::serve::Client;
use crate::server::worker;
use crate::upstream::endpoint::{AnswerBody, Lease};

const UPGRADE_OPTION: HeaderValue = HeaderValue::from_static("upgrade");
/// A frame that closes a WebSocket with 1013, "try again later" (RFC 6455 section 5.5.1, and the
/// registry of its section 11.7).
const TRY_AGAIN_LATER: [u8; 4] = [0x88, 2, 0x03, 0xf5];
/// How long that may take.
const FAREWELL: Duration = Duration::from_secs(1);

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
    response: Response<AnswerBody>,
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
    let is_websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    client.tunnel(Tunnel {
        upstream,
        idle_max,
        moved: Rc::new(Cell::new(Instant::now())),
        frames: is_websocket.then(Frames::default),
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
    /// When something moved last.
    moved: Rc<Cell<Instant>>,
    /// Of a WebSocket: what its client gets.
    frames: Option<Frames>,
    _places: Option<Admission>,
    _open: worker::Tunnel,
}

impl Tunnel {
    /// When something moved last.
    pub(crate) fn moved(&self) -> Rc<Cell<Instant>> {
        Rc::clone(&self.moved)
    }

    /// Passes bytes both ways until both sides have ended, nothing moves for `idle_max`, or it is
    /// `cut`.
    pub(crate) async fn join<S>(
        mut self,
        client: S,
        cut: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut upstream = (self.upstream.switched())
            .ok_or_else(|| io::Error::other("the instance's answer was no switch"))?;
        self.moved.set(Instant::now());
        // All bytes of both directions pass the client's side: watching one is enough.
        let mut client = Watched {
            inner: client,
            moved: Rc::clone(&self.moved),
            frames: self.frames,
        };
        client.write_all(&upstream.ahead).await?;
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut client, &mut upstream.stream) => {
                return copied.map(drop);
            }
            () = stalled(&self.moved, self.idle_max) => return Err(io::ErrorKind::TimedOut.into()),
            () = cut => {}
        }
        client.take_leave().await
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
    frames: Option<Frames>,
}

impl<S> Watched<S> {
    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.moved.set(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Ends the connection, and says why where that is possible.
    async fn take_leave(mut self) -> io::Result<()> {
        if self.frames.as_ref().is_some_and(Frames::may_insert) {
            let said = async {
                self.inner.write_all(&TRY_AGAIN_LATER).await?;
                self.inner.shutdown().await
            };
            // Whether it was heard makes no difference.
            let _ = tokio::time::timeout(FAREWELL, said).await;
        }
        Err(io::Error::other("cut: memory is short"))
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
        if let (Poll::Ready(Ok(written)), Some(frames)) = (&polled, &mut self.frames) {
            frames.observe(&buf[..*written]);
        }
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

    /// What a client gets of a tunnel that is cut after these bytes.
    async fn farewell(frames: Option<Frames>, bytes: &[u8]) -> Vec<u8> {
        use tokio::io::AsyncReadExt as _;

        let (near, mut far) = tokio::io::duplex(64);
        let mut client = Watched {
            inner: near,
            moved: Rc::new(Cell::new(Instant::now())),
            frames,
        };
        client.write_all(bytes).await.unwrap();
        assert!(client.take_leave().await.is_err());
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        rest.split_off(bytes.len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_websocket_is_told_why_unless_a_frame_is_under_way() {
        // What was sent, whether in frames, and whether it is told.
        let table: [(&str, &[u8], bool, bool); 4] = [
            ("between frames", &[0x82, 1, 7], true, true),
            ("nothing sent", &[], true, true),
            ("within a frame", &[0x82, 2, 7], true, false),
            ("another protocol", &[0x82, 1, 7], false, false),
        ];
        for (what, bytes, framed, told) in table {
            let expected: &[u8] = if told { &TRY_AGAIN_LATER } else { &[] };
            let frames = framed.then(Frames::default);
            assert_eq!(farewell(frames, bytes).await, expected, "{what}");
        }
        // One that does not read is not waited for: the pipe holds 64 bytes.
        let start = Instant::now();
        farewell(
            Some(Frames::default()),
            &[&[0x82, 61][..], &[0; 61]].concat(),
        )
        .await;
        assert_eq!(Instant::now() - start, FAREWELL);
    }
}
