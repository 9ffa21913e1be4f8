//! The admin listener: probes and metrics in plain HTTP, apart from client traffic; and the
//! control socket, on which operators command the process ([`api`], [`client`]).
//!
//! `/livez`: 200 while the process runs. `/readyz`: 200, or 503 as soon as draining begins.
//! `/metrics`: Prometheus text.

pub(crate) mod api;
pub mod client;
pub(crate) mod set;
pub mod types;

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use self::api::Api;
use crate::drain::Drain;
use crate::telemetry::metrics::{Format, Metrics, Scrape};

/// Connections to the admin listener.
const CONNECTIONS_MAX: usize = 64;
/// Until a request head is complete; also how long a connection may wait for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// For the last answers on the control socket when the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// After an error of `accept`.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A text, or the metrics.
type Body = Either<Full<Bytes>, Scrape>;

/// Answers operators.
pub(crate) struct Admin {
    metrics: Arc<Metrics>,
    drain: Drain,
    api: Api,
    /// Set when another process answers in the place of this one.
    retired: watch::Sender<bool>,
    /// Connections to the control socket.
    open: watch::Sender<usize>,
}

async fn accept_tcp(socket: TcpListener, admin: Rc<Admin>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match socket.accept().await {
            Ok((stream, _)) => {
                let admin = Rc::clone(&admin);
                tokio::task::spawn_local(async move {
                    serve(stream, &admin, Trust::Anyone).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(listener = "admin", %error, "cannot accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn accept_unix(socket: UnixListener, admin: Rc<Admin>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match socket.accept().await {
            Ok((stream, _)) => {
                let admin = Rc::clone(&admin);
                admin.open.send_modify(|open| *open += 1);
                tokio::task::spawn_local(async move {
                    serve(stream, &admin, Trust::Operator).await;
                    admin.open.send_modify(|open| *open -= 1);
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(listener = "control", %error, "cannot accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// What whoever connects may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Look.
    Anyone,
    /// Everything.
    Operator,
}

async fn serve<S>(stream: S, admin: &Rc<Admin>, trust: Trust)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Cell::new(false);
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        asked.set(true);
        let admin = Rc::clone(admin);
        async move {
            let path = request.uri().path();
            let mut response = if trust == Trust::Operator && path.starts_with("/v1/") {
                admin.api.answer(request).await.map(Body::Left)
            } else {
                admin.answer(request.method(), path, request.headers())
            };
            if *admin.retired.borrow() {
                let connection = response.headers_mut().entry(CONNECTION);
                connection.or_insert(HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut retired = admin.retired.subscribe();
    // What it waited for is let go of at once: whoever writes it again, on this same thread, would
    // wait for this connection forever.
    let retirement = async { drop(retired.wait_for(|retired| *retired).await) };
    let served = tokio::select! {
        served = connection.as_mut() => served,
        // Whoever asks again should reach the process that answers now. Where nothing was asked
        // yet, the first request may be on its way.
        () = retirement => {
            if asked.get() {
                connection.as_mut().graceful_shutdown();
            }
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}

impl Admin {
    pub(crate) fn new(metrics: Arc<Metrics>, drain: Drain, api: Api) -> Rc<Self> {
        Rc::new(Self {
            metrics,
            drain,
            api,
            retired: watch::Sender::new(false),
            open: watch::Sender::new(0),
        })
    }

    /// Ends connections with their next answer: another process answers now.
    fn retire(&self) {
        self.retired.send_replace(true);
    }

    /// Completes when nobody waits for an answer on the control socket, or will have to wait no
    /// longer.
    pub(crate) async fn idle(&self) {
        self.retire();
        let mut open = self.open.subscribe();
        let idle = open.wait_for(|open| *open == 0);
        let _ = tokio::time::timeout(LAST_ANSWERS, idle).await;
    }

    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
        answer(&self.metrics, &self.drain, method, path, headers)
    }
}

fn answer(
    metrics: &Arc<Metrics>,
    drain: &Drain,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => text(StatusCode::OK, "alive\n"),
        "/readyz" if drain.is_ready() => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/metrics" => {
            let format = Format::accepted(headers.get(ACCEPT));
            let Some(page) = Scrape::begin(metrics, format) else {
                return text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many scrapes at once\n",
                );
            };
            let mut response = text(StatusCode::OK, "").map(|_| Body::Right(page));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, format.content_type());
            response
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "here are /livez, /readyz and /metrics\n",
        ),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Phase;
    use crate::telemetry::metrics::Configured;

    #[tokio::test]
    async fn probes_follow_the_drain() {
        let (phase, drain) = Drain::new();
        let metrics = Metrics::new(0, Arc::new(Configured::default()));
        let (metrics, none) = (Arc::new(metrics), HeaderMap::new());
        let answer = |method, path| answer(&metrics, &drain, &method, path, &none);
        let status = |method, path| answer(method, path).status().as_u16();
        assert_eq!(status(Method::GET, "/livez"), 200);
        assert_eq!(status(Method::GET, "/readyz"), 200);
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::GET, "/"), 404);
        assert_eq!(status(Method::POST, "/readyz"), 405);
        phase.send_replace(Phase::Unready);
        assert_eq!(status(Method::GET, "/readyz"), 503);
        assert_eq!(status(Method::GET, "/livez"), 200);
    }
}
