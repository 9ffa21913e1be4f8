//! One client connection: HTTP/1.1 or HTTP/2 within limits, and the life of each request on it.

mod guard;
mod request;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Version;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};

use self::guard::Guard;
pub(crate) use self::guard::Verdict;
use crate::config::{ListenerConfig, ServerLimits};
use crate::filter::reject::Reject;
use crate::listen::sni::Resolver;
use crate::normalise::framing::{HeadLimits, Scanner};
use crate::server::executor::LocalExecutor;
use crate::server::worker::Worker;

/// Bytes hyper buffers for one HTTP/1.1 connection; heads are limited by the guard before.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams a client may open and reset before they were accepted (Rapid Reset, CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Streams we may have to reset for a client's errors (MadeYouReset, CVE-2025-8671).
const LOCAL_RESETS_MAX: usize = 1024;
/// Bytes queued for one HTTP/2 stream that the client does not take.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Bytes a client may send ahead on one HTTP/2 stream, and on all of a connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// What is known of a connection before anything was read from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transport {
    /// The address at the other end, which may be a proxy's.
    pub(crate) peer: SocketAddr,
    /// The TLS version; `None`: plain TCP.
    pub(crate) tls: Option<&'static str>,
    /// The client chose HTTP/2 by ALPN.
    http2: bool,
}

impl Transport {
    pub(crate) fn plain(peer: SocketAddr) -> Self {
        Self {
            peer: canonical(peer),
            tls: None,
            http2: false,
        }
    }

    pub(crate) fn tls(peer: SocketAddr, session: &rustls::ServerConnection) -> Self {
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let http2 = session.alpn_protocol() == Some(b"h2");
        Self {
            peer: canonical(peer),
            tls: Some(version),
            http2,
        }
    }

    /// The scheme clients use.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// `::ffff:192.0.2.1` and `192.0.2.1` are one client.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// The name a TLS connection was opened for.
pub(crate) struct Sni {
    pub(crate) name: String,
    /// What chose the certificate by it.
    pub(crate) resolver: Arc<Resolver>,
}

/// A client connection, shared by the requests on it.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) transport: Transport,
    sni: Option<Sni>,
    pub(crate) listener: Arc<ListenerConfig>,
    pub(crate) verdict: Arc<Verdict>,
    /// Whether it is known to speak HTTP/2.
    http2: Cell<bool>,
    requests: Cell<u64>,
    in_flight: Cell<u32>,
    idle_since: Cell<Instant>,
}

impl Client {
    /// The number of the next request, counted from 1.
    fn next_request(&self, version: Version) -> u64 {
        self.http2.set(version == Version::HTTP_2);
        let number = self.requests.get() + 1;
        self.requests.set(number);
        number
    }

    /// Whether a request for `host` has no business on this connection.
    fn is_misdirected(&self, host: &str) -> bool {
        let differs = |sni: &Sni| sni.name != host && sni.resolver.differ(&sni.name, host);
        self.sni.as_ref().is_some_and(differs)
    }

    /// A request begins.
    pub(crate) fn exchange_begins(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A response was sent, or will never be.
    pub(crate) fn exchange_ends(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.idle_since.set(Instant::now());
    }

    /// Completes when the gateway ends the connection. HTTP/2 can say so at any time; a request
    /// may be on its way already to an HTTP/1.1 connection that is idle, so those are closed later.
    async fn closing(&self) {
        self.worker.drain.closing().await;
        if !self.http2.get() {
            self.worker.drain.closing_idle().await;
        }
    }

    /// Completes when no request was under way for `limit`.
    async fn idle(&self, limit: Duration) {
        loop {
            // The timer is looked at when it fires, not moved with every request.
            let busy = self.in_flight.get() > 0;
            let since = if busy {
                Instant::now()
            } else {
                self.idle_since.get()
            };
            let deadline = since + limit;
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline.into()).await;
        }
    }
}

/// Serves a connection to its end.
///
/// Everything of size is boxed, so that the task of an idle connection stays small.
pub(crate) fn run<S>(
    stream: S,
    transport: Transport,
    sni: Option<Sni>,
    listener: Arc<ListenerConfig>,
    worker: Rc<Worker>,
) -> impl Future<Output = ()> + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let verdict = Arc::new(Verdict::default());
    // Only numbers are kept of the plane: a connection may outlive many of them.
    let limits = worker.plane().limits().clone();
    let guard = guard(stream, transport, &limits, Arc::clone(&verdict));
    let client = Rc::new(Client {
        worker,
        transport,
        sni,
        listener,
        verdict,
        http2: Cell::new(transport.http2),
        requests: Cell::new(0),
        in_flight: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
    });
    let of_requests = Rc::clone(&client);
    // Boxed, because hyper keeps the room of a request's future for as long as the connection.
    let handle = move |request| Box::pin(request::handle(Rc::clone(&of_requests), request));
    let connection = builder(&limits)
        .serve_connection_with_upgrades(TokioIo::new(guard), service_fn(handle))
        .into_owned();
    let mut connection = Box::pin(connection);
    async move {
        let until_close = async {
            let is_idle = || client.in_flight.get() == 0;
            tokio::select! {
                () = client.closing() => false,
                () = client.idle(limits.idle_timeout) => false,
                cut = client.worker.strain.ends(is_idle) => cut,
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            cut = until_close => {
                if cut {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %transport.peer, %error, "client connection ended");
            // Hyper has answered this one itself: a target or method that is no HTTP.
            if error.downcast_ref().is_some_and(hyper::Error::is_parse) {
                client.worker.metrics.reason(Reject::BadRequest.name());
            }
        }
    }
}

fn guard<S>(
    stream: S,
    transport: Transport,
    limits: &ServerLimits,
    verdict: Arc<Verdict>,
) -> Guard<S> {
    let head = HeadLimits {
        header_bytes_max: limits.header_bytes_max,
        headers_max: limits.headers_max,
        target_bytes_max: limits.uri_bytes_max,
    };
    let scanner = if transport.http2 {
        Scanner::opaque(head)
    } else {
        Scanner::new(head)
    };
    Guard::new(stream, scanner, verdict, limits.header_timeout)
}

/// hyper with every limit set, in one place.
fn builder(limits: &ServerLimits) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder
        .http1()
        .timer(TokioTimer::new())
        // The guard times heads out; hyper's timer would also count the wait between requests.
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_buf_size(BUFFER_BYTES_MAX.max(limits.header_bytes_max));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams_max)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits.body_idle_timeout)
        .keep_alive_timeout(limits.body_idle_timeout);
    builder
}
