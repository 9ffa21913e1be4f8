//! The connections of one worker to one instance.
//!
//! HTTP/1.1: a stack of idle connections; the one used last is used next, so that those no longer
//! needed fall idle and are closed. HTTP/2: one connection that all requests share.
//!
//! How many requests and HTTP/1.1 connections there may be, and how many requests may wait, counts
//! over all workers ([`permits`](super::permits)).

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::poll;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::instance::Instance;
use super::permits::NoPlace;
use super::spare::Spare;
use super::stream::AnswerFirst;
use super::transport::{self, Connector, Transport};
use super::wire::Wire;
use crate::config::{ServiceConfig, UpstreamProtocol};
use crate::forward::body::RequestBody;
use crate::overload::descriptors;
use crate::server::executor::LocalExecutor;
use crate::socket::Socket;

/// Bytes of the fields of a response over HTTP/2.
const RESPONSE_FIELDS_BYTES_MAX: u32 = 64 * 1024;
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
    /// There is no TLS with it: its certificate is not the right one, for instance.
    #[error("no TLS connection: {}", transport::reason(.0))]
    Tls(std::io::Error),
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
}

/// The place of one HTTP/1.1 connection among those of all workers.
pub(super) struct Place(Arc<Instance>);

impl Place {
    /// A place that was taken among the connections of the instance; it is given back at the end.
    pub(super) fn taken(instance: &Arc<Instance>) -> Self {
        Self(Arc::clone(instance))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.give_back();
    }
}

/// What a reload may change while connections stand.
#[derive(Clone, Copy)]
struct Settings {
    connect_timeout: Duration,
    idle_timeout: Duration,
    connections_max: u32,
    /// Requests under way.
    requests_max: u32,
    waiting_max: usize,
    waiting_timeout: Duration,
}

impl Settings {
    fn of(service: &ServiceConfig) -> Self {
        let count = |max: usize| u32::try_from(max).unwrap_or(u32::MAX);
        let connections_max = count(service.connections_max);
        let requests_max = count(service.requests_max);
        Self {
            connect_timeout: service.connect_timeout,
            idle_timeout: service.idle_timeout,
            connections_max,
            requests_max: match service.protocol {
                UpstreamProtocol::Http1 => requests_max.min(connections_max),
                UpstreamProtocol::Http2 => requests_max,
            },
            waiting_max: service.waiting_max,
            waiting_timeout: service.waiting_timeout,
        }
    }
}

struct Idle {
    wire: Wire,
    since: Instant,
}

/// The connections of one worker to one instance.
pub(super) struct Pool {
    address: SocketAddr,
    protocol: UpstreamProtocol,
    /// `None`: connected to in the clear.
    tls: Option<Box<Connector>>,
    settings: Cell<Settings>,
    /// Keeps no idle connections any more.
    retired: Cell<bool>,
    idle: RefCell<Vec<Idle>>,
    /// The HTTP/2 connection; the lock makes all who need one wait for a single handshake.
    shared: tokio::sync::Mutex<Option<http2::SendRequest<RequestBody>>>,
    /// The number of the worker, and what it asks the others by.
    worker: (usize, Arc<Spare>),
}

impl Pool {
    pub(super) fn new(
        service: &ServiceConfig,
        address: SocketAddr,
        worker: (usize, Arc<Spare>),
    ) -> Self {
        let instance = (service.name.as_str(), address);
        let tls = service.tls.as_ref();
        let tls = tls.map(|tls| Box::new(Connector::new(tls, instance, service.protocol)));
        Self {
            address,
            protocol: service.protocol,
            tls,
            settings: Cell::new(Settings::of(service)),
            retired: Cell::new(false),
            idle: RefCell::default(),
            shared: tokio::sync::Mutex::default(),
            worker,
        }
    }

    /// Goes on by another configuration, by which instances are connected to in the same way.
    pub(super) fn adjust(&self, service: &ServiceConfig) {
        self.settings.set(Settings::of(service));
    }

    /// Takes a place for a request, if there is one.
    pub(super) fn has_place(&self, instance: &Instance) -> bool {
        instance.requests.take(self.settings.get().requests_max)
    }

    /// Takes a place for a request once there is one.
    pub(super) async fn wait_for_place(&self, instance: &Instance) -> Result<(), ConnectFailure> {
        let settings = self.settings.get();
        let placed = instance.requests.wait(
            settings.requests_max,
            settings.waiting_max,
            settings.waiting_timeout,
        );
        placed.await.map_err(|no_place| match no_place {
            NoPlace::Full => ConnectFailure::Busy,
            NoPlace::TimedOut => ConnectFailure::Waited,
        })
    }

    /// A connection for one request that has its place; with `fresh`, one no request was sent on
    /// before.
    pub(super) async fn take(
        &self,
        instance: &Arc<Instance>,
        fresh: bool,
    ) -> Result<Taken, ConnectFailure> {
        if self.protocol == UpstreamProtocol::Http2 {
            let (sender, reused) = Box::pin(self.share()).await?;
            return Ok(Taken {
                sender: Sender::Http2(sender),
                reused,
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
            None => Box::pin(self.connect_http1(instance)).await?,
        };
        Ok(Taken {
            sender: Sender::Http1(wire),
            reused,
        })
    }

    /// Takes back a connection whose response was read to its end.
    pub(super) fn put(&self, sender: Sender, instance: &Instance, now: Instant) {
        // An HTTP/2 sender is one of many handles: the connection itself stays in `shared`.
        let Sender::Http1(wire) = sender else {
            return;
        };
        if !self.retired.get() && !instance.connections.is_awaited() {
            self.idle.borrow_mut().push(Idle { wire, since: now });
        }
    }

    /// Closes idle connections for as long as others wait for their places.
    pub(super) fn spare(&self, instance: &Instance) {
        while instance.connections.is_awaited() && self.close_one() {}
    }

    /// Closes the connection that was idle for the longest time, if there is one.
    fn close_one(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        drop(idle);
        oldest.is_some()
    }

    /// Closes what was idle for too long or was closed by the instance.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain_mut(|idle| {
            let kept = self.is_fresh(idle, now) && !idle.wire.has_ended();
            if kept {
                idle.wire.rest();
            }
            kept
        });
    }

    /// Keeps no idle connections any more: another configuration is in force.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
    }

    fn is_fresh(&self, idle: &Idle, now: Instant) -> bool {
        now.saturating_duration_since(idle.since) < self.settings.get().idle_timeout
    }

    fn pop(&self, now: Instant) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop() {
            if self.is_fresh(&last, now) && last.wire.is_ready() {
                return Some(last.wire);
            }
        }
        None
    }

    /// The place of one more connection. There is one, since each request has a place and there
    /// are no more of those; but idle connections may stand in it, this worker's or another's.
    async fn connection_place(&self, instance: &Arc<Instance>) -> Result<Place, ConnectFailure> {
        let settings = self.settings.get();
        let max = settings.connections_max;
        let (places, place) = (&instance.connections, || Place::taken(instance));
        if places.take(max) || (self.close_one() && places.take(max)) {
            return Ok(place());
        }
        let mut waiting = pin!(places.wait(max, usize::MAX, settings.waiting_timeout));
        // Polled first, so that it waits when the others look.
        if let Poll::Ready(placed) = poll!(waiting.as_mut()) {
            return placed.map(|()| place()).map_err(|_| ConnectFailure::Waited);
        }
        let (worker, spare) = &self.worker;
        spare.ask_others(*worker);
        let placed = waiting.await;
        placed.map(|()| place()).map_err(|_| ConnectFailure::Waited)
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
            .max_header_list_size(RESPONSE_FIELDS_BYTES_MAX)
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

    async fn connect_http1(&self, instance: &Arc<Instance>) -> Result<Wire, ConnectFailure> {
        let place = self.connection_place(instance).await?;
        let io = AnswerFirst::new(self.connect().await?);
        Ok(Wire::new(io, place))
    }

    async fn connect(&self) -> Result<Transport, ConnectFailure> {
        self.in_time(self.connect_untimed()).await?
    }

    async fn connect_untimed(&self) -> Result<Transport, ConnectFailure> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(|error| match descriptors::are_used_up(&error) {
            true => ConnectFailure::NoDescriptor(error),
            false => ConnectFailure::Refused(error),
        })?;
        // Only a delay is at stake; a socket that cannot have it still works.
        let _ = stream.set_nodelay(true);
        let socket = Socket::new(stream);
        match &self.tls {
            None => Ok(Transport::Clear(socket)),
            Some(tls) => tls.secure(socket).await.map_err(ConnectFailure::Tls),
        }
    }

    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Result<T, ConnectFailure> {
        let timed = tokio::time::timeout(self.settings.get().connect_timeout, future).await;
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
