//! The admin listener: probes and metrics in plain HTTP, apart from client traffic.
//!
//! `/livez`: 200 while the process runs. `/readyz`: 200, or 503 as soon as draining begins.
//! `/metrics`: Prometheus text.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::config::AdminConfig;
use crate::drain::Drain;
use crate::listen::tcp;
use crate::telemetry::metrics::{Format, Metrics, Scrape};

/// Connections to the admin listener.
const CONNECTIONS_MAX: usize = 64;
/// Until a request head is complete; also how long a connection may wait for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// After an error of `accept`.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A text, or the metrics.
type Body = Either<Full<Bytes>, Scrape>;

struct Admin {
    metrics: Arc<Metrics>,
    drain: Drain,
}

/// Starts the admin listener on the current [`tokio::task::LocalSet`], if there is to be one.
pub(crate) fn start(
    config: Option<&AdminConfig>,
    metrics: Arc<Metrics>,
    drain: Drain,
) -> anyhow::Result<()> {
    let Some(config) = config else { return Ok(()) };
    let bound = tcp::bind(config.bind, 1).and_then(|mut sockets| {
        let socket = sockets.remove(0);
        let address = socket.local_addr()?;
        tracing::info!(listener = "admin", %address, tls = false, "listening");
        TcpListener::from_std(socket)
    });
    let socket = bound.with_context(|| format!("admin cannot bind {}", config.bind))?;
    let admin = Arc::new(Admin { metrics, drain });
    tokio::task::spawn_local(accept(socket, admin));
    Ok(())
}

async fn accept(socket: TcpListener, admin: Arc<Admin>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match socket.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                tokio::task::spawn_local(async move {
                    serve(stream, admin).await;
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

async fn serve(stream: TcpStream, admin: Arc<Admin>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let path = request.uri().path();
        let response = admin.answer(request.method(), path, request.headers());
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}

impl Admin {
    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" if self.drain.is_ready() => text(StatusCode::OK, "ready\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            "/metrics" => {
                let format = Format::accepted(headers.get(ACCEPT));
                let Some(page) = Scrape::begin(&self.metrics, format) else {
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
        let admin = Admin {
            metrics: Arc::new(metrics),
            drain,
        };
        let none = HeaderMap::new();
        let status = |method, path| admin.answer(&method, path, &none).status().as_u16();
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
