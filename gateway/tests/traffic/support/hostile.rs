//! Instances that do everything wrong: small servers over raw sockets, each with one bad habit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A running instance. Stopped when dropped.
pub(crate) struct Hostile {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    task: AbortHandle,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
}

impl Hostile {
    /// Serves every connection by `habit`.
    pub(crate) async fn start<F>(habit: impl Fn(Connection) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(habit(Connection {
                    stream,
                    number,
                    unread: Vec::new(),
                    counts: Arc::clone(&shared),
                }));
            }
        });
        Self {
            address,
            counts,
            task: task.abort_handle(),
        }
    }

    /// Answers every request on a connection with these bytes, and keeps it open.
    pub(crate) async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::start(move |mut connection| {
            let bytes = Arc::clone(&bytes);
            async move {
                while connection.request().await.is_some() {
                    if !connection.write(&bytes).await {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Answers the first request on a connection with these bytes, and then ends as it should.
    pub(crate) async fn ending(bytes: impl Into<Vec<u8>>, end: End) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::start(move |mut connection| {
            let bytes = Arc::clone(&bytes);
            async move {
                if connection.request().await.is_some() && connection.write(&bytes).await {
                    connection.end(end).await;
                }
            }
        })
        .await
    }

    /// Connections that were accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Requests whose head has arrived.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// As it should.
    Close,
    /// With RST, which throws away what the other side has not read yet.
    Reset,
    /// Not at all.
    Hang,
}

/// One connection of the gateway's.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// Counted from 0 over all connections of the instance.
    pub(crate) number: u64,
    unread: Vec<u8>,
    counts: Arc<Counts>,
}

impl Connection {
    /// The head of the next request; `None`: there is none any more. Bodies of stated length are
    /// read and thrown away.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().unwrap())
        });
        let length = length.unwrap_or(0);
        while self.unread.len() < length {
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
        self.unread.drain(..length);
        Some(head)
    }

    /// The head of the next request, its body left unread.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            let end = self.unread.windows(4).position(|end| end == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.unread.drain(..end + 4).collect();
                self.counts.requests.fetch_add(1, Ordering::Relaxed);
                return Some(String::from_utf8(head).unwrap());
            }
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Writes; says whether that was possible.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Answers with 200 and this body.
    pub(crate) async fn answer(&mut self, body: &str) -> bool {
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        self.write(answer.as_bytes()).await
    }

    /// Ends the connection.
    pub(crate) async fn end(mut self, end: End) {
        match end {
            End::Close => {
                let _ = self.stream.shutdown().await;
            }
            End::Reset => {
                let socket = SockRef::from(&self.stream);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            End::Hang => std::future::pending().await,
        }
    }
}

/// The path in a request head.
pub(crate) fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}
