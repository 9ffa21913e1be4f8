//! A TCP socket whose small writes wait for the end of the event loop's turn.
//!
//! A proxy that writes each message as soon as it is ready wakes its peer for each: the peer reads,
//! answers, and sleeps again before the next message comes. Waking a thread on another CPU costs the
//! one who wakes it more than the message itself. So small writes are held until every task that is
//! ready has run, and are then made one after the other, each as one piece: peers find several
//! messages at once, and are woken once. Nothing waits longer than the turn: [`flush`] runs before
//! the loop goes to sleep, when [`HELD_WRITES_MAX`] sockets hold something, and after
//! [`TURN_READS_MAX`] reads, since tasks that are always ready let no turn end.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes a socket holds until the end of the turn. What is longer is written at once: it keeps its
/// peer busy for long enough, and copying it would cost more than it saves.
pub(crate) const HELD_BYTES_MAX: usize = 4 * 1024;
/// Sockets that hold something at a time: a bound on how long the first of them waits.
pub(crate) const HELD_WRITES_MAX: usize = 32;
/// Reads while something is held.
pub(crate) const TURN_READS_MAX: u32 = 128;
/// Pieces written by one call: one that was held, and what is written after it.
const PIECES_MAX: usize = 16;
/// Buffers a thread keeps for the next turn.
const SPARE_BUFFERS_MAX: usize = HELD_WRITES_MAX;

thread_local! {
    /// What this thread has to write before it sleeps.
    static TURN: RefCell<Turn> = const {
        RefCell::new(Turn { due: Vec::new(), was_read: false, reads: 0, spare: Vec::new() })
    };
}

/// The writes of one turn of a thread's event loop.
struct Turn {
    /// Sockets that hold something.
    due: Vec<Rc<Inner>>,
    /// Whether a socket was read.
    was_read: bool,
    /// Reads since the first of those that hold something did.
    reads: u32,
    /// Empty buffers with room.
    spare: Vec<Vec<u8>>,
}

/// A TCP connection of this thread.
#[derive(Debug)]
pub(crate) struct Socket(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Reading asks for it exclusively.
    tcp: RefCell<TcpStream>,
    held: RefCell<Held>,
}

/// What a socket has taken and not written yet.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    /// The kernel had no room for it at the end of its turn.
    stuck: bool,
    /// Why it could not be written.
    failure: Option<io::Error>,
    /// Whom to tell when it is stuck or has failed.
    writer: Option<Waker>,
}

/// Whether a socket of this thread was read since this was last asked.
pub(crate) fn was_read() -> bool {
    TURN.with_borrow_mut(|turn| mem::take(&mut turn.was_read))
}

/// Writes what the sockets of this thread hold. To be called before its event loop sleeps.
pub(crate) fn flush() {
    let mut due = TURN.with_borrow_mut(|turn| mem::take(&mut turn.due));
    if due.is_empty() {
        return;
    }
    for inner in &due {
        inner.end_turn();
    }
    due.clear();
    // Waking a task adds nothing: tasks run later. So the list is still empty, and keeps its room.
    TURN.with_borrow_mut(|turn| {
        turn.due = due;
        turn.reads = 0;
    });
}

/// Notes that a socket is read, and ends the turn if that has gone on for long.
pub(crate) fn note_read() {
    let over = TURN.with_borrow_mut(|turn| {
        turn.was_read = true;
        turn.reads += u32::from(!turn.due.is_empty());
        turn.reads > TURN_READS_MAX
    });
    if over {
        flush();
    }
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self(Rc::new(Inner {
            tcp: RefCell::new(tcp),
            held: RefCell::default(),
        }))
    }

    fn write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.holds(cx, bufs, length) {
            return Poll::Ready(Ok(length));
        }
        self.0.poll_write(cx, bufs)
    }

    /// Holds `bufs`, of `length` bytes in all, until the end of the turn, if that is short and
    /// nothing is in its way.
    fn holds(&self, cx: &Context<'_>, bufs: &[IoSlice<'_>], length: usize) -> bool {
        let mut held = self.0.held.borrow_mut();
        if held.bytes.len() + length > HELD_BYTES_MAX || held.stuck || held.failure.is_some() {
            return false;
        }
        let full = TURN.with_borrow_mut(|turn| {
            if held.bytes.is_empty() {
                held.bytes = turn.spare.pop().unwrap_or_default();
                turn.due.push(Rc::clone(&self.0));
            }
            turn.due.len() >= HELD_WRITES_MAX
        });
        for buf in bufs {
            held.bytes.extend_from_slice(buf);
        }
        let writer = held.writer.as_ref();
        if writer.is_none_or(|writer| !writer.will_wake(cx.waker())) {
            held.writer = Some(cx.waker().clone());
        }
        drop(held);
        if full {
            flush();
        }
        true
    }
}

impl Inner {
    /// Writes what is held as far as the kernel takes it, and tells the writer of what is left.
    fn end_turn(&self) {
        let mut held = self.held.borrow_mut();
        if held.bytes.is_empty() || held.stuck {
            return;
        }
        match self.tcp.borrow().try_write(&held.bytes) {
            Ok(written) if held.wrote(written) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => held.failure = Some(error),
        }
        held.stuck = true;
        if let Some(writer) = held.writer.take() {
            writer.wake();
        }
    }

    /// Writes what is held, and as much as possible of `bufs` after it.
    fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let tcp = self.tcp.borrow();
        let mut held = self.held.borrow_mut();
        loop {
            if let Some(failure) = held.failure.take() {
                held.release();
                return Poll::Ready(Err(failure));
            }
            if held.bytes.is_empty() && bufs.is_empty() {
                return Poll::Ready(Ok(0));
            }
            ready!(tcp.poll_write_ready(cx))?;
            match held.write(&tcp, bufs) {
                Ok(Some(written)) => return Poll::Ready(Ok(written)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => held.failure = Some(error),
            }
        }
    }
}

impl Held {
    /// Writes once. Returns how much of `bufs` was written; `None`: nothing, and something is held
    /// still.
    fn write(&mut self, tcp: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        if self.bytes.is_empty() {
            return tcp.try_write_vectored(bufs).map(Some);
        }
        if bufs.is_empty() {
            let written = tcp.try_write(&self.bytes)?;
            return Ok(self.wrote(written).then_some(0));
        }
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        pieces[0] = IoSlice::new(&self.bytes);
        for (piece, buf) in pieces[1..].iter_mut().zip(bufs) {
            *piece = *buf;
        }
        let count = PIECES_MAX.min(1 + bufs.len());
        let written = tcp.try_write_vectored(&pieces[..count])?;
        let of_bufs = written.saturating_sub(self.bytes.len());
        Ok((self.wrote(written) && of_bufs > 0).then_some(of_bufs))
    }

    /// So many bytes were written, of those held first; returns whether nothing is held any more.
    fn wrote(&mut self, written: usize) -> bool {
        if written < self.bytes.len() {
            drop(self.bytes.drain(..written));
            return false;
        }
        self.release();
        true
    }

    /// Nothing is held any more; the buffer serves others.
    fn release(&mut self) {
        let mut buffer = mem::take(&mut self.bytes);
        (self.stuck, self.writer) = (false, None);
        buffer.clear();
        TURN.with_borrow_mut(|turn| {
            if turn.spare.len() < SPARE_BUFFERS_MAX {
                turn.spare.push(buffer);
            }
        });
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        note_read();
        Pin::new(&mut *self.0.tcp.borrow_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Done when the rest of the turn is enough to write everything: who waits for the flush may
    /// go to sleep.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let held = self.0.held.borrow();
        if !held.stuck {
            return Poll::Ready(Ok(()));
        }
        drop(held);
        self.0.poll_write(cx, &[]).map_ok(drop)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_write(cx, &[]))?;
        Pin::new(&mut *self.0.tcp.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream as Peer};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Both ends of a connection. The far one is not part of the event loop: what it finds is what
    /// the kernel has.
    async fn pair() -> (Socket, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = Peer::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let near = TcpStream::from_std(near).unwrap();
        near.writable().await.unwrap();
        (Socket::new(near), far)
    }

    /// What has arrived and was not read yet; whether that was all there will ever be.
    fn arrived(far: &mut Peer) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let ended = far.read_to_end(&mut bytes).is_ok();
        (bytes, ended)
    }

    fn count(far: &mut Peer) -> usize {
        arrived(far).0.len()
    }

    #[tokio::test]
    async fn small_writes_wait_for_the_end_of_the_turn() {
        // Sizes of writes, bytes that arrive at once, bytes at the end of the turn.
        let table: [(&[usize], usize, usize); 6] = [
            (&[1], 0, 1),
            (&[1, 2, 3], 0, 6),
            (&[HELD_BYTES_MAX], 0, 4096),
            (&[HELD_BYTES_MAX + 1], 4097, 0),
            (&[HELD_BYTES_MAX, 1], 4097, 0),
            (&[5, HELD_BYTES_MAX, 7], 4101, 7),
        ];
        for (sizes, at_once, at_the_end) in table {
            let (mut near, mut far) = pair().await;
            for size in sizes {
                near.write_all(&vec![b'x'; *size]).await.unwrap();
                near.flush().await.unwrap();
            }
            assert_eq!(count(&mut far), at_once, "{sizes:?}");
            flush();
            assert_eq!(count(&mut far), at_the_end, "{sizes:?}");
        }
    }

    #[tokio::test]
    async fn order_is_kept_whatever_the_size() {
        let (mut near, mut far) = pair().await;
        let mut expected = Vec::new();
        for (byte, size) in [(b'a', 10), (b'b', HELD_BYTES_MAX), (b'c', 3), (b'd', 9000)] {
            let bytes = vec![byte; size];
            let halves = bytes.split_at(size / 2);
            let pieces = [IoSlice::new(halves.0), IoSlice::new(halves.1)];
            assert_eq!(near.write_vectored(&pieces).await.unwrap(), size);
            expected.extend(bytes);
        }
        flush();
        assert_eq!(arrived(&mut far).0, expected);
    }

    #[tokio::test]
    async fn a_turn_ends_when_many_sockets_hold_something() {
        let mut pairs = Vec::new();
        for _ in 0..HELD_WRITES_MAX {
            pairs.push(pair().await);
        }
        let counts = |pairs: &mut Vec<(Socket, Peer)>| {
            let counts = pairs.iter_mut().map(|(_, far)| count(far));
            counts.collect::<Vec<_>>()
        };
        for (near, _) in &mut pairs[1..] {
            near.write_all(b"x").await.unwrap();
        }
        assert_eq!(counts(&mut pairs), [0; HELD_WRITES_MAX]);
        pairs[0].0.write_all(b"x").await.unwrap();
        assert_eq!(counts(&mut pairs), [1; HELD_WRITES_MAX]);
    }

    #[tokio::test]
    async fn a_turn_ends_after_many_reads() {
        let (mut near, mut far) = pair().await;
        let (mut other, _other_far) = pair().await;
        near.write_all(b"x").await.unwrap();
        let mut read = async |times: u32| {
            for _ in 0..times {
                let mut byte = [0];
                let mut read = std::pin::pin!(other.read(&mut byte));
                let read = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending()));
                assert!(read.await);
            }
        };
        read(TURN_READS_MAX).await;
        assert_eq!(count(&mut far), 0);
        read(1).await;
        assert_eq!(count(&mut far), 1);
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_take_waits_for_it() {
        let (mut near, mut far) = pair().await;
        let piece = vec![b'x'; 64 * 1024];
        let mut taken = 0;
        // Until both ends' buffers are full.
        while let Poll::Ready(written) =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut near).poll_write(cx, &piece))).await
        {
            taken += written.unwrap();
        }
        near.write_all(b"the end").await.unwrap();
        flush();
        let waits = poll_fn(|cx| Poll::Ready(Pin::new(&mut near).poll_flush(cx).is_pending()));
        assert!(waits.await, "the kernel had room");
        let mut bytes = Vec::new();
        while bytes.len() < taken + "the end".len() {
            bytes.extend(arrived(&mut far).0);
            // Lets the event loop see that there is room.
            tokio::task::yield_now().await;
            let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut near).poll_flush(cx))).await;
        }
        assert!(bytes.ends_with(b"xthe end"));
        near.flush().await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_is_told_by_the_next_write_or_flush() {
        for flushes in [true, false] {
            let (mut near, far) = pair().await;
            socket2::SockRef::from(&far)
                .set_linger(Some(std::time::Duration::ZERO))
                .unwrap();
            drop(far);
            near.write_all(b"x").await.unwrap();
            flush();
            let told = match flushes {
                true => near.flush().await,
                false => near.write_all(b"y").await,
            };
            let kind = told.unwrap_err().kind();
            assert!(
                matches!(
                    kind,
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ),
                "{kind:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_end_comes_after_what_is_held() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"shut down").await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(arrived(&mut far), (b"shut down".to_vec(), true));

        let (mut near, mut far) = pair().await;
        near.write_all(b"dropped").await.unwrap();
        drop(near);
        assert_eq!(arrived(&mut far), (Vec::new(), false));
        flush();
        assert_eq!(arrived(&mut far), (b"dropped".to_vec(), true));
    }
}
