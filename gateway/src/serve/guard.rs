//! The byte stream below hyper: HTTP/1.1 passes only after its framing was checked.
//!
//! A connection begins, and rests between requests, with nothing but this: hyper and its buffers
//! come in when a head is complete ([`Guard::poll_opening`]) and go when the client falls silent.
//!
//! A head that breaks the grammar never reaches hyper. In its place hyper gets a harmless stand-in
//! request, and the service, which learns from [`Verdict`] that this is the one, answers it with
//! the refusal. So malformed requests get a proper answer, are counted and logged like any other,
//! and nothing after them is ever read as a request.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::config::BodyRate;
use crate::forward::body::Pace;
use crate::normalise::framing::{Progress, Scanner, Violation};

/// What hyper reads in place of a head that was refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";
/// After a close with unread data: the time a client has to read our last answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READ_BYTES: usize = 8 * 1024;
/// Read at once while a connection opens: most heads are smaller.
const OPENING_READ_BYTES: usize = 4 * 1024;

/// How a connection goes on after its first bytes, or after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// The client left, or sent nothing in time.
    Closed,
    /// A head of HTTP/1.1, or the stand-in for one that was refused, is there to be read.
    Http1,
    /// The client speaks HTTP/2.
    Http2,
}

/// What the guard tells the service of its connection, and the other way round.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The violation, and the number of the head it is in, counted from 1.
    violation: Cell<Option<(u64, Violation)>>,
    /// Bytes were written and not flushed: hyper may hold more.
    unflushed: Cell<bool>,
    /// How fast the client must take what is written now.
    rate: Cell<Option<BodyRate>>,
    /// The client was cut because it took what was written too slowly.
    slow: Cell<bool>,
}

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until a head is complete.
    pub(super) head: Duration,
    /// How fast it must take what is written.
    pub(super) rate: Option<BodyRate>,
}

impl Verdict {
    /// What is wrong with the connection's request number `head`, if that is where it went wrong.
    pub(crate) fn of_head(&self, head: u64) -> Option<Violation> {
        let (number, violation) = self.violation.get()?;
        (number == head).then_some(violation)
    }

    /// What went wrong on the connection, in whichever request.
    pub(crate) fn last(&self) -> Option<Violation> {
        self.violation.get().map(|(_, violation)| violation)
    }

    /// Whether everything hyper had to write has been handed to the kernel.
    pub(super) fn is_flushed(&self) -> bool {
        !self.unflushed.get()
    }

    /// Whether the client was cut because it took what was written too slowly.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.get()
    }

    /// The response that is written next must be taken at this rate.
    pub(super) fn demand(&self, rate: Option<BodyRate>) {
        self.rate.set(rate);
    }

    fn refuse(&self, head: u64, violation: Violation) {
        self.violation.set(Some((head, violation)));
    }
}

/// A stream whose read side is checked.
#[derive(Debug)]
pub(crate) struct Guard<S> {
    inner: S,
    scanner: Scanner,
    verdict: Rc<Verdict>,
    /// Bytes read from `inner` and not yet handed on: an incomplete head, or a stand-in.
    held: Vec<u8>,
    /// How many of them may be handed on.
    cleared: usize,
    heads: u64,
    refused: Option<Violation>,
    head_timeout: Duration,
    head_timer: Option<Pin<Box<Sleep>>>,
    /// Of what is written.
    pace: Pace,
    /// Dropping `inner` tells the other side that this was all.
    drop_ends: bool,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Guard<S> {
    pub(crate) fn new(
        inner: S,
        scanner: Scanner,
        verdict: Rc<Verdict>,
        patience: Patience,
    ) -> Self {
        verdict.demand(patience.rate);
        Self {
            inner,
            scanner,
            verdict,
            held: Vec::new(),
            cleared: 0,
            heads: 0,
            refused: None,
            head_timeout: patience.head,
            head_timer: None,
            pace: Pace::new(patience.rate),
            drop_ends: false,
            linger: None,
        }
    }

    /// Dropping the stream tells the other side that this was all, as it does in TCP without TLS.
    pub(super) fn drop_ends(mut self) -> Self {
        self.drop_ends = true;
        self
    }

    /// The connection no longer speaks HTTP: everything passes, `ahead` first.
    pub(super) fn become_opaque(&mut self, ahead: &[u8]) {
        self.scanner.set_opaque();
        self.held.splice(..0, ahead.iter().copied());
        self.cleared = self.held.len();
    }

    /// Takes back what hyper was given and has not looked at: requests sent without waiting for the
    /// answer.
    pub(super) fn take_back(&mut self, ahead: &[u8]) {
        self.held.splice(..0, ahead.iter().copied());
        self.cleared += ahead.len();
    }

    /// Whether the connection may rest: a head may have begun, but nothing is due to hyper.
    pub(super) fn is_clear(&self) -> bool {
        self.cleared == 0 && self.refused.is_none() && !self.scanner.in_body()
    }

    /// Takes in what the scanner made of the bytes.
    fn note(&mut self, progress: Progress) {
        self.heads += progress.heads;
        if progress.heads > 0 || progress.cleared > 0 {
            self.head_timer = None;
        }
    }

    /// Looks how fast the client takes what is written, once it has to be waited for.
    fn pace(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Ready(Ok(bytes)) => self.pace.moved(*bytes),
            Poll::Pending => {
                self.pace.demand(self.verdict.rate.get());
                if self.pace.poll(cx).is_ready() {
                    self.verdict.slow.set(true);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        polled
    }

    /// Hands on nothing more of the client's: a stand-in for a head, an error for a body.
    fn refuse(&mut self, violation: Violation) {
        self.refused = Some(violation);
        self.head_timer = None;
        self.held.truncate(self.cleared);
        if violation.is_in_body() {
            self.verdict.refuse(self.heads, violation);
        } else {
            self.heads += 1;
            self.verdict.refuse(self.heads, violation);
            self.held.extend_from_slice(STAND_IN);
            self.cleared = self.held.len();
        }
    }

    /// Moves cleared bytes into `buf`.
    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.cleared.min(buf.remaining());
        buf.put_slice(&self.held[..count]);
        self.cleared -= count;
        if count == self.held.len() {
            // Freed rather than kept: most connections never hold anything again.
            self.held = Vec::new();
        } else {
            self.held.drain(..count);
        }
    }

    /// Scans what `inner` has just put into `buf` after `before`; returns whether any of it, or
    /// anything held, may now be handed on.
    fn scan(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> bool {
        let fresh = &buf.filled()[before..];
        let progress = if self.held.is_empty() {
            let progress = self.scanner.scan(fresh);
            self.held.extend_from_slice(&fresh[progress.cleared..]);
            buf.set_filled(before + progress.cleared);
            progress
        } else {
            self.held.extend_from_slice(fresh);
            buf.set_filled(before);
            return self.scan_held();
        };
        self.note(progress);
        if let Some(violation) = progress.violation {
            self.refuse(violation);
        }
        progress.cleared > 0
    }

    /// Scans what is held, of which nothing is cleared yet. Nothing of it is in hyper's buffer, so
    /// the answer to "was anything handed on" is no.
    fn scan_held(&mut self) -> bool {
        let progress = self.scanner.scan(&self.held);
        self.cleared = progress.cleared;
        self.note(progress);
        if let Some(violation) = progress.violation {
            self.refuse(violation);
        }
        false
    }

    /// While a head is due: has it taken too long?
    fn poll_head_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let first = self.heads == 0 && !self.scanner.is_opaque();
        if self.held.is_empty() && !first {
            return Poll::Pending;
        }
        let timeout = self.head_timeout;
        let timer = self
            .head_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Reads until it is clear how the connection goes on, and holds what was read.
    pub(super) fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Opening>> {
        loop {
            if self.scanner.is_opaque() {
                return Poll::Ready(Ok(Opening::Http2));
            }
            if self.cleared > 0 || self.refused.is_some() {
                return Poll::Ready(Ok(Opening::Http1));
            }
            let mut bytes = [const { MaybeUninit::uninit() }; OPENING_READ_BYTES];
            let mut buf = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    return Poll::Ready(Ok(Opening::Closed));
                }
                Poll::Ready(Ok(())) => {
                    self.held.extend_from_slice(buf.filled());
                    self.scan_held();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(self.poll_head_timer(cx));
                    if self.held.is_empty() {
                        return Poll::Ready(Ok(Opening::Closed));
                    }
                    self.refuse(Violation::HeadTimeout);
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.cleared > 0 {
                this.hand_on(buf);
                return Poll::Ready(Ok(()));
            }
            match this.refused {
                Some(violation) if violation.is_in_body() => {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                // The answer to the stand-in closes the connection; there is nothing to wait for.
                Some(_) => return Poll::Pending,
                None => {}
            }
            let before = buf.filled().len();
            match Pin::new(&mut this.inner).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() == before => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {
                    if this.scan(buf, before) {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(this.poll_head_timer(cx));
                    if this.held.is_empty() {
                        // Nothing at all was sent: that deserves a close, not an answer.
                        return Poll::Ready(Ok(()));
                    }
                    this.refuse(Violation::HeadTimeout);
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Reads and forgets for a moment: closing with unread data makes the kernel send a reset,
    /// which would take our last answer away from the client (RFC 9112 section 9.6).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut scratch = [0; LINGER_READ_BYTES];
        // However much comes: a quick client needs no less time to see the answer.
        while timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.verdict.unflushed.set(true);
        let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.pace(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.verdict.unflushed.set(true);
        let polled = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.pace(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper flushes only when its own buffer is empty.
        let polled = Pin::new(&mut this.inner).poll_flush(cx).map_ok(|()| 0);
        this.verdict.unflushed.set(polled.is_pending());
        this.pace(cx, polled).map_ok(drop)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let lingers = this.refused.is_some() || this.scanner.in_body();
        if this.drop_ends && !lingers && !this.scanner.is_opaque() {
            // The end is sent when the socket is closed, which is next.
            return Pin::new(&mut this.inner).poll_flush(cx);
        }
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        }
        if lingers {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::normalise::framing::HeadLimits;

    const TIMEOUT: Duration = Duration::from_secs(5);
    const GOOD: &[u8] = b"GET /good HTTP/1.1\r\nhost: a\r\n\r\n";
    const BAD: &[u8] = b"GET /bad HTTP/1.1\r\nhost : a\r\n\r\n";

    const PATIENCE: Patience = Patience {
        head: TIMEOUT,
        rate: Some(BodyRate {
            window: Duration::from_secs(10),
            bytes: 100,
        }),
    };

    fn guarded() -> (DuplexStream, Guard<DuplexStream>, Rc<Verdict>) {
        let limits = HeadLimits {
            header_bytes_max: 64,
            headers_max: 4,
            target_bytes_max: 32,
            trailer_bytes_max: 64,
            trailers_max: 4,
            underscores_refused: true,
        };
        let (client, server) = duplex(4096);
        let verdict = Rc::new(Verdict::default());
        let guard = Guard::new(server, Scanner::new(limits), Rc::clone(&verdict), PATIENCE);
        (client, guard, verdict)
    }

    async fn read(guard: &mut Guard<DuplexStream>) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let count = guard.read(&mut bytes).await.unwrap();
        bytes.truncate(count);
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_in_pieces_arrives_whole() {
        let (mut client, mut guard, _) = guarded();
        let (one, two) = GOOD.split_at(10);
        client.write_all(one).await.unwrap();
        let reader = async { read(&mut guard).await };
        let writer = async {
            tokio::task::yield_now().await;
            client.write_all(two).await.unwrap();
        };
        let (bytes, ()) = tokio::join!(reader, writer);
        assert_eq!(bytes, GOOD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_head_is_replaced_and_nothing_follows() {
        let (mut client, mut guard, verdict) = guarded();
        client.write_all(&[GOOD, BAD, GOOD].concat()).await.unwrap();
        assert_eq!(read(&mut guard).await, GOOD);
        assert_eq!(read(&mut guard).await, STAND_IN);
        let further = tokio::time::timeout(TIMEOUT * 9, read(&mut guard)).await;
        assert!(further.is_err(), "nothing is read after a bad head");
        assert_eq!(verdict.of_head(1), None);
        assert_eq!(verdict.of_head(2), Some(Violation::SpaceBeforeColon));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_refused_and_a_silent_client_left() {
        let (mut client, mut guard, verdict) = guarded();
        client.write_all(&GOOD[..10]).await.unwrap();
        assert_eq!(read(&mut guard).await, STAND_IN);
        assert_eq!(verdict.of_head(1), Some(Violation::HeadTimeout));

        let (_client, mut guard, verdict) = guarded();
        assert_eq!(read(&mut guard).await, b"", "end of stream");
        assert_eq!(verdict.of_head(1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_chunk_breaks_the_body() {
        let (mut client, mut guard, verdict) = guarded();
        let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        client.write_all(head).await.unwrap();
        assert_eq!(read(&mut guard).await, head);
        client.write_all(b"zz\r\n").await.unwrap();
        let error = guard.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(verdict.of_head(1), Some(Violation::Chunk));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_cut() {
        for (step, slow) in [(9, true), (11, false)] {
            let (mut client, mut guard, verdict) = guarded();
            let reader = async {
                for _ in 0..60 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if client.read_exact(&mut vec![0; step]).await.is_err() {
                        break;
                    }
                }
                client
            };
            // More than the pipe holds: the client must read.
            let writer = guard.write_all(&[0; 4096 + 600]);
            let (written, _client) = tokio::join!(writer, reader);
            let kind = written.err().map(|error| error.kind());
            assert_eq!(
                kind,
                slow.then_some(io::ErrorKind::TimedOut),
                "{step} bytes/s"
            );
            assert_eq!(verdict.is_slow(), slow);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn upgraded_bytes_pass_as_they_are() {
        let (mut client, mut guard, _) = guarded();
        client.write_all(GOOD).await.unwrap();
        assert_eq!(read(&mut guard).await, GOOD);
        guard.become_opaque(b"read ahead");
        assert_eq!(read(&mut guard).await, b"read ahead");
        client.write_all(b"\0\n\xff any bytes").await.unwrap();
        assert_eq!(read(&mut guard).await, b"\0\n\xff any bytes");
    }
}
