//! The life of a client connection: it opens, speaks HTTP/1.1 or HTTP/2, rests between requests,
//! perhaps becomes a tunnel, and ends.
//!
//! A connection at rest is a socket, a [`Guard`] and a [`Client`], and nothing else: hyper with its
//! buffers lives only while requests come.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::guard::{Guard, Opening, Patience, Verdict};
use super::stream::StreamExecutor;
use super::{Client, Sni, Transport, Wish, request};
use crate::config::{ListenerConfig, ServerLimits, UnderscoreNames};
use crate::filter::reject::Reject;
use crate::forward::body::ResponseBody;
use crate::forward::forwarded::Hop;
use crate::normalise::framing::{HeadLimits, Scanner};
use crate::server::worker::Worker;

/// Fields of a head that hyper takes unless it is told how many. Told, it clears room for so many
/// with each head; what it has by itself, it does not clear.
const HYPER_HEADERS_MAX: usize = 100;
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

/// Serves a connection to its end. Over TLS, the client may have asked for a name, and shown a
/// certificate, of which instances are told what is given.
///
/// Everything of size is boxed, so that the task of a connection at rest stays small.
pub(crate) async fn run<S>(
    stream: S,
    transport: Transport,
    (sni, certificate): (Option<Sni>, Option<HeaderValue>),
    listener: Arc<ListenerConfig>,
    worker: Rc<Worker>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let verdict = Rc::new(Verdict::default());
    let plane = worker.plane();
    let guard = guard(stream, transport, plane.limits(), Rc::clone(&verdict));
    let client = Rc::new(Client {
        hop: Hop::new(
            transport,
            &listener.trusted_proxies,
            listener.added_headers,
            certificate,
        ),
        transport,
        sni,
        listener,
        verdict,
        http2: transport.http2.into(),
        idle_timeout: plane.limits().idle_timeout,
        requests_max: (plane.limits().requests_per_connection_max).unwrap_or(u64::MAX),
        requests: Default::default(),
        in_flight: Default::default(),
        idle_since: Instant::now().into(),
        wish: Wish::None.into(),
        task: Default::default(),
        tunnel: Default::default(),
        tunnel_moved: Default::default(),
        worker: Rc::clone(&worker),
    });
    // A connection may outlive many configurations.
    drop(plane);
    let _attended = worker.attend(&client);
    let mut served = pin!(serve(guard, &client));
    let served = poll_fn(|cx| {
        // A tunnel takes its leave.
        if client.is_cut() && client.tunnel_moved.get().is_none() {
            return Poll::Ready(Err(anyhow::anyhow!(
                "cut: memory is short, or the client takes no end"
            )));
        }
        client.attend(cx);
        served.as_mut().poll(cx)
    });
    if let Err(error) = served.await {
        tracing::debug!(peer = %transport.peer, %error, "client connection ended");
    }
}

fn guard<S>(
    stream: S,
    transport: Transport,
    limits: &ServerLimits,
    verdict: Rc<Verdict>,
) -> Guard<S> {
    let head = HeadLimits {
        header_bytes_max: limits.header_bytes_max,
        headers_max: limits.headers_max,
        target_bytes_max: limits.uri_bytes_max,
        trailer_bytes_max: limits.trailer_bytes_max,
        trailers_max: limits.trailers_max,
        underscores_refused: limits.underscore_names == UnderscoreNames::Refuse,
    };
    let scanner = if transport.http2 {
        Scanner::opaque(head)
    } else {
        Scanner::new(head)
    };
    let patience = Patience {
        head: limits.header_timeout,
        rate: limits.body_rate,
    };
    let guard = Guard::new(stream, scanner, verdict, patience);
    match transport.tls {
        None => guard.drop_ends(),
        Some(_) => guard,
    }
}

async fn serve<S>(mut guard: Guard<S>, client: &Rc<Client>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    loop {
        match open(&mut guard, client).await? {
            Opening::Closed => return Ok(guard.shutdown().await?),
            Opening::Http2 => {
                client.speaks_http2();
                return Box::pin(serve_http2(guard, client)).await;
            }
            Opening::Http1 => {}
        }
        // Boxed: what it needs, a connection at rest does not.
        guard = match Box::pin(serve_http1(guard, client)).await? {
            Some(guard) => guard,
            None => return Ok(()),
        };
    }
}

/// Waits for the next message, or the first.
async fn open<S>(guard: &mut Guard<S>, client: &Client) -> io::Result<Opening>
where
    S: AsyncRead + Unpin,
{
    poll_fn(|cx| match guard.poll_opening(cx) {
        Poll::Pending if client.wish.get() >= Wish::Close => Poll::Ready(Ok(Opening::Closed)),
        opening => opening,
    })
    .await
}

/// Hyper's idea of the gateway: requests in, responses out.
struct Gateway(Rc<Client>);

type Handling = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>>>>;

impl Service<Request<Incoming>> for Gateway {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Handling;

    fn call(&self, request: Request<Incoming>) -> Handling {
        Box::pin(request::handle(Rc::clone(&self.0), request))
    }
}

/// Serves requests until the connection is idle, and returns it, or has ended.
async fn serve_http1<S>(guard: Guard<S>, client: &Rc<Client>) -> anyhow::Result<Option<Guard<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    client.awake();
    let io = TokioIo::new(guard);
    let mut connection = http1_builder(client).serve_connection(io, Gateway(Rc::clone(client)));
    let mut ending = Wish::None;
    let ended = poll_fn(|cx| {
        let polled = match ending {
            // Its bytes are flushed already: there is nothing to wait for but hyper's consent.
            Wish::Rest => connection.poll_without_shutdown(cx),
            _ => Pin::new(&mut connection).poll(cx),
        };
        let wish = client.wish.get().max(client.first_rest());
        if polled.is_ready() || ending >= wish || (wish == Wish::Rest && !client.may_rest()) {
            return polled;
        }
        ending = wish;
        Pin::new(&mut connection).graceful_shutdown();
        match wish {
            Wish::Rest => connection.poll_without_shutdown(cx),
            _ => Pin::new(&mut connection).poll(cx),
        }
    });
    if let Err(error) = ended.await {
        // Hyper has answered this one itself: a target or method that is no HTTP.
        if error.is_parse() {
            client.worker.metrics.reason(Reject::BadRequest.name());
        }
        return Err(error.into());
    }
    let parts = connection.into_parts();
    let mut guard = parts.io.into_inner();
    if let Some(tunnel) = client.tunnel.take() {
        anyhow::ensure!(client.verdict.is_flushed(), "the client does not read");
        guard.become_opaque(&parts.read_buf);
        client.becomes(&tunnel);
        tunnel.join(guard, client.told_to_cut()).await?;
        return Ok(None);
    }
    match ending {
        Wish::Rest if guard.is_clear() => {
            guard.take_back(&parts.read_buf);
            return Ok(Some(guard));
        }
        Wish::Rest => guard.shutdown().await?,
        _ => {}
    }
    Ok(None)
}

async fn serve_http2<S>(guard: Guard<S>, client: &Rc<Client>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connection =
        http2_builder(client).serve_connection(TokioIo::new(guard), Gateway(Rc::clone(client)));
    let mut connection = pin!(connection);
    let mut closing = false;
    poll_fn(|cx| {
        if client.wish.get() == Wish::Close && !std::mem::replace(&mut closing, true) {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await?;
    Ok(())
}

/// hyper for HTTP/1.1 with every limit set.
fn http1_builder(client: &Client) -> http1::Builder {
    let plane = client.worker.plane();
    let limits = plane.limits();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The guard times heads out; hyper's timer would also count the wait between requests.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX.max(limits.header_bytes_max));
    // The guard has counted them already, and refuses those that are too many.
    if limits.headers_max > HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
    builder
}

/// hyper for HTTP/2 with every limit set.
fn http2_builder(client: &Client) -> http2::Builder<StreamExecutor> {
    let plane = client.worker.plane();
    let limits = plane.limits();
    let mut builder = http2::Builder::new(StreamExecutor);
    builder
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
