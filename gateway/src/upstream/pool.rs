//! The connections of one worker to one instance.
//!
//! HTTP/1.1: a stack of idle connections; the one used last is used next, so that those no longer
//! needed fall idle and are closed. HTTP/2: one connection that all requests share. At most
//! `connections_max` requests are under way over HTTP/1.1 at a time; a bounded number wait.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::stream::AnswerFirst;
use super::wire::Wire;
use crate::config::{ServiceConfig, UpstreamProtocol};
use crate::forward::body::RequestBody;
use crate::overload::descriptors;
use crate::server::executor::LocalExecutor;

/// Bytes of a response head, and of the read buffer.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields of a response.
const RESPONSE_HEADERS_MAX: usize = 128;
/// Between pings on an HTTP/2 connection, and until one counts as lost.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Why there is no connection to an instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectFailure {
    /// The instance refused, or cannot be reached.
    #[error("cannot connect: {0}")]
    Refused(std::io::Error),
    /// This process has as many open files as it may.
    #[error("no descriptor for a connection: {0}")]
    NoDescriptor(std::io::Error),
    /// It did not answer in time.
    #[error("no connection within the time allowed")]
    Timeout,
    /// It answered, but does not speak HTTP.
    #[error("no HTTP connection: {0}")]
    Handshake(hyper::Error),
    /// All connections are in use, and too many requests wait for one already.
    #[error("all connections are in use, and none may wait for one")]
    Busy,
    /// All connections were in use, for as long as a request may wait.
    #[error("all connections were in use for too long")]
    Waited,
}

impl ConnectFailure {
    /// Whether other requests should avoid the instance.
    pub(crate) fn is_fault_of_instance(&self) -> bool {
        !matches!(self, Self::Busy | Self::Waited | Self::NoDescriptor(_))
    }
}

/// A connection, or a share of one, to send on.
pub(crate) enum Sender {
    Http1(Wire),
    Http2(http2::SendRequest<RequestBody>),
}

/// A connection taken from the pool.
pub(super) struct Taken {
    pub(super) sender: Sender,
    pub(super) reused: bool,
    pub(super) permit: OwnedSemaphorePermit,
}

struct Idle {
    wire: Wire,
    since: Instant,
}

/// The connections of one worker to one instance.
pub(super) struct Pool {
    address: SocketAddr,
    protocol: UpstreamProtocol,
    connect_timeout: Duration,
    waiting_max: usize,
    waiting_timeout: Duration,
    idle_timeout: Duration,
    /// None once the pool is retired.
    idle_max: Cell<usize>,
    idle: RefCell<Vec<Idle>>,
    /// The HTTP/2 connection; the lock makes all who need one wait for a single handshake.
    shared: tokio::sync::Mutex<Option<http2::SendRequest<RequestBody>>>,
    permits: Arc<Semaphore>,
    waiting: Cell<usize>,
}

impl Pool {
    pub(super) fn new(service: &ServiceConfig, address: SocketAddr) -> Self {
        let permits = match service.protocol {
            UpstreamProtocol::Http1 => service.requests_max.min(service.connections_max),
            UpstreamProtocol::Http2 => service.requests_max,
        };
        Self {
            address,
            protocol: service.protocol,
            connect_timeout: service.connect_timeout,
            waiting_max: service.waiting_max,
            waiting_timeout: service.waiting_timeout,
            idle_timeout: service.idle_timeout,
            idle_max: Cell::new(service.connections_max),
            idle: RefCell::default(),
            shared: tokio::sync::Mutex::default(),
            permits: Arc::new(Semaphore::new(permits)),
            waiting: Cell::new(0),
        }
    }

    /// A connection for one request; with `fresh`, one no request was sent on before.
    pub(super) async fn take(&self, fresh: bool) -> Result<Taken, ConnectFailure> {
        let permit = self.permit().await?;
        if self.protocol == UpstreamProtocol::Http2 {
            let (sender, reused) = Box::pin(self.share()).await?;
            return Ok(Taken {
                sender: Sender::Http2(sender),
                reused,
                permit,
            });
        }
        let idle = if fresh {
            None
        } else {
            self.pop(Instant::now())
        };
        let reused = idle.is_some();
        let wire = match idle {
            Some(wire) => wire,
            // Boxed: connecting is the exception, and takes much room in every request's future.
            None => Box::pin(self.connect_http1()).await?,
        };
        Ok(Taken {
            sender: Sender::Http1(wire),
            reused,
            permit,
        })
    }

    /// Takes back a connection whose response was read to its end.
    pub(super) fn put(&self, sender: Sender, now: Instant) {
        // An HTTP/2 sender is one of many handles: the connection itself stays in `shared`.
        let Sender::Http1(wire) = sender else {
            return;
        };
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_max.get() {
            idle.push(Idle { wire, since: now });
        }
    }

    /// Closes what was idle for too long or was closed by the instance.
    pub(super) fn sweep(&self, now: Instant) {
        let keep = |idle: &mut Idle| self.is_fresh(idle, now) && !idle.wire.has_ended();
        self.idle.borrow_mut().retain_mut(keep);
    }

    /// Keeps no idle connections any more: another configuration is in force.
    pub(super) fn retire(&self) {
        self.idle_max.set(0);
        self.idle.borrow_mut().clear();
    }

    fn is_fresh(&self, idle: &Idle, now: Instant) -> bool {
        now.saturating_duration_since(idle.since) < self.idle_timeout
    }

    fn pop(&self, now: Instant) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut last) = idle.pop() {
            if self.is_fresh(&last, now) && last.wire.is_ready() {
                return Some(last.wire);
            }
        }
        None
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, ConnectFailure> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        Box::pin(self.wait_for_permit()).await
    }

    async fn wait_for_permit(&self) -> Result<OwnedSemaphorePermit, ConnectFailure> {
        if self.waiting.get() >= self.waiting_max {
            return Err(ConnectFailure::Busy);
        }
        let _waiting = Waiting::new(&self.waiting);
        let acquired = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(self.waiting_timeout, acquired).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed, so the inner error cannot happen.
            Ok(Err(_)) | Err(_) => Err(ConnectFailure::Waited),
        }
    }

    async fn share(&self) -> Result<(http2::SendRequest<RequestBody>, bool), ConnectFailure> {
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok((sender.clone(), true));
        }
        let io = TokioIo::new(self.connect().await?);
        let mut builder = http2::Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(RESPONSE_HEAD_BYTES_MAX as u32)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL);
        let (sender, connection) = self
            .in_time(builder.handshake(io))
            .await?
            .map_err(ConnectFailure::Handshake)?;
        drive(connection);
        *shared = Some(sender.clone());
        Ok((sender, false))
    }

    async fn connect_http1(&self) -> Result<Wire, ConnectFailure> {
        let io = TokioIo::new(AnswerFirst::new(self.connect().await?));
        let mut builder = http1::Builder::new();
        builder
            .max_headers(RESPONSE_HEADERS_MAX)
            .max_buf_size(RESPONSE_HEAD_BYTES_MAX);
        let (sender, connection) = self
            .in_time(builder.handshake(io))
            .await?
            .map_err(ConnectFailure::Handshake)?;
        Ok(Wire::new(sender, connection))
    }

    async fn connect(&self) -> Result<TcpStream, ConnectFailure> {
        let stream = self.in_time(TcpStream::connect(self.address)).await?;
        let stream = stream.map_err(|error| match descriptors::are_used_up(&error) {
            true => ConnectFailure::NoDescriptor(error),
            false => ConnectFailure::Refused(error),
        })?;
        // Only a delay is at stake; a socket that cannot have it still works.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Result<T, ConnectFailure> {
        let timed = tokio::time::timeout(self.connect_timeout, future).await;
        timed.map_err(|_elapsed| ConnectFailure::Timeout)
    }
}

/// Runs a connection until it ends. Its errors reach the requests that are on it.
fn drive(connection: impl Future<Output = hyper::Result<()>> + 'static) {
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
}

/// Counts one waiting request while it lives.
struct Waiting<'p>(&'p Cell<usize>);

impl<'p> Waiting<'p> {
    fn new(count: &'p Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
