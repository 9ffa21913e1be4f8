//! One client connection: HTTP/1.1 or HTTP/2 within limits, and the life of each request on it.

mod answer;
mod connection;
mod guard;
mod request;
pub(crate) mod stream;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub(crate) use self::connection::run;
pub(crate) use self::guard::Verdict;
use crate::config::{BodyRate, ListenerConfig};
use crate::forward::forwarded::Hop;
use crate::forward::upgrade::Tunnel;
use crate::listen::sni::Resolver;
use crate::server::worker::Worker;

/// A connection without a request gives up its buffers after this: most clients that will send
/// another request have done so by then.
const REST_AFTER: Duration = Duration::from_millis(200);

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

/// What the worker wants of a connection's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    /// Go on.
    None,
    /// Give up buffers until the next request.
    Rest,
    /// End, after the requests under way.
    Close,
    /// End now.
    Cut,
}

/// A client connection, shared by the requests on it.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) transport: Transport,
    sni: Option<Sni>,
    pub(crate) listener: Arc<ListenerConfig>,
    pub(crate) verdict: Rc<Verdict>,
    /// Whether it is known to speak HTTP/2.
    http2: Cell<bool>,
    pub(crate) hop: Hop,
    idle_timeout: Duration,
    /// Requests after which it is closed in good order.
    requests_max: u64,
    requests: Cell<u64>,
    in_flight: Cell<u32>,
    idle_since: Cell<Instant>,
    wish: Cell<Wish>,
    task: RefCell<Option<Waker>>,
    /// What the connection becomes when its last response, a 101, was sent.
    tunnel: Cell<Option<Tunnel>>,
    /// When something moved last in the tunnel it has become.
    tunnel_moved: OnceCell<Rc<Cell<tokio::time::Instant>>>,
}

impl Client {
    /// The number of the next request, counted from 1.
    fn next_request(&self) -> u64 {
        let number = self.requests.get() + 1;
        self.requests.set(number);
        if number >= self.requests_max {
            self.close();
        }
        number
    }

    /// The client must take the next response at this rate. Responses of HTTP/2 share the
    /// connection, which keeps to that of the server; each stream is watched by itself.
    fn demand(&self, rate: Option<BodyRate>) {
        if !self.http2.get() {
            self.verdict.demand(rate);
        }
    }

    /// Whether a request for `host` has no business on this connection.
    fn is_misdirected(&self, host: &str) -> bool {
        let differs = |sni: &Sni| sni.name != host && sni.resolver.differ(&sni.name, host);
        self.sni.as_ref().is_some_and(differs)
    }

    /// A request begins.
    pub(crate) fn exchange_begins(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.awake();
    }

    /// There is something to do again.
    fn awake(&self) {
        if self.wish.get() == Wish::Rest {
            self.wish.set(Wish::None);
        }
    }

    /// Whether nothing is under way, neither a request nor the last bytes of a response.
    fn may_rest(&self) -> bool {
        self.is_idle() && self.verdict.is_flushed()
    }

    /// The first request was answered: until there is a second, nobody knows whether the client will
    /// send one soon, and ten thousand that do not must not have buffers all at once.
    fn first_rest(&self) -> Wish {
        match self.requests.get() {
            1 if self.may_rest() => Wish::Rest,
            _ => Wish::None,
        }
    }

    /// A response was sent, or will never be.
    pub(crate) fn exchange_ends(&self, now: Instant) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.idle_since.set(now);
    }

    /// The connection becomes a tunnel once the response under way, a 101, was sent.
    pub(crate) fn tunnel(&self, tunnel: Tunnel) {
        self.tunnel.set(Some(tunnel));
    }

    /// The connection is a tunnel now.
    fn becomes(&self, tunnel: &Tunnel) {
        // It becomes one once.
        let _ = self.tunnel_moved.set(tunnel.moved());
    }

    /// When something moved last, if the connection is a tunnel.
    pub(crate) fn tunnel_moved(&self) -> Option<tokio::time::Instant> {
        self.tunnel_moved.get().map(|moved| moved.get())
    }

    /// Completes when the connection is to end at once. To be polled by its task.
    fn told_to_cut(&self) -> impl Future<Output = ()> {
        std::future::poll_fn(|_| match self.is_cut() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }

    /// Whether the connection was told to end at once.
    pub(crate) fn is_cut(&self) -> bool {
        self.wish.get() == Wish::Cut
    }

    /// Looks at how long the connection has been idle, and tells its task what to do about it.
    /// Called by the worker now and then, so that no connection needs a timer of its own.
    pub(crate) fn look(&self, now: Instant) {
        // A tunnel has no requests, and looks itself whether something moves.
        if !self.is_idle() || self.tunnel_moved.get().is_some() {
            return;
        }
        let idle = now.saturating_duration_since(self.idle_since.get());
        if idle >= self.idle_timeout * 2 {
            // It was told to close then, but does not take the last bytes of its responses.
            self.wish(Wish::Cut);
        } else if idle >= self.idle_timeout {
            self.wish(Wish::Close);
        } else if idle >= REST_AFTER {
            self.wish(Wish::Rest);
        }
    }

    /// The connection is to end after the requests under way.
    pub(crate) fn close(&self) {
        self.wish(Wish::Close);
    }

    /// The same, if it speaks HTTP/2.
    pub(crate) fn close_http2(&self) {
        if self.http2.get() {
            self.close();
        }
    }

    /// The connection is found to speak HTTP/2.
    fn speaks_http2(&self) {
        self.http2.set(true);
        if self.worker.drain.is_closing() {
            self.close();
        }
    }

    /// The connection is to end at once, whatever is under way.
    pub(crate) fn cut(&self) {
        self.wish(Wish::Cut);
    }

    /// Whether the connection was told to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.wish.get() >= Wish::Close
    }

    /// Whether no request is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    fn wish(&self, wish: Wish) {
        if self.wish.get() >= wish {
            return;
        }
        self.wish.set(wish);
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Remembers the task to wake for a wish.
    fn attend(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if task.as_ref().is_none_or(|task| !task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }
}
