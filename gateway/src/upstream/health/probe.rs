//! One active check: a `GET` on a connection of its own, passed by any status from 200 to 399.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Target;
use crate::config::UpstreamProtocol;
use crate::server::executor::LocalExecutor;

/// What instances see as `User-Agent` of a check.
const USER_AGENT: &str = concat!("weir-gateway/", env!("CARGO_PKG_VERSION"), " health-check");

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no valid answer: {0}")]
    Http(hyper::Error),
    #[error("path is no request target: {0}")]
    Path(http::Error),
    #[error("answered {0}")]
    Status(StatusCode),
}

/// Checks the instance once, within the configured time.
pub(super) async fn probe(target: &Target) -> Result<(), Failure> {
    let limit = target.check.timeout;
    let status = tokio::time::timeout(limit, status(target.address, target.protocol, target))
        .await
        .map_err(|_elapsed| Failure::Timeout(limit))??;
    match status.as_u16() {
        200..=399 => Ok(()),
        _ => Err(Failure::Status(status)),
    }
}

async fn status(
    address: SocketAddr,
    protocol: UpstreamProtocol,
    target: &Target,
) -> Result<StatusCode, Failure> {
    let request = request(address, protocol, &target.check.path).map_err(Failure::Path)?;
    let stream = TcpStream::connect(address)
        .await
        .map_err(Failure::Connect)?;
    let io = TokioIo::new(stream);
    // The connection ends with the future that drives it: dropped as soon as the head is read.
    let response = match protocol {
        UpstreamProtocol::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await.map_err(Failure::Http)?;
            tokio::select! {
                response = sender.send_request(request) => response,
                Err(error) = connection => Err(error),
            }
        }
        UpstreamProtocol::Http2 => {
            let handshake = http2::handshake(LocalExecutor, io);
            let (mut sender, connection) = handshake.await.map_err(Failure::Http)?;
            tokio::select! {
                response = sender.send_request(request) => response,
                Err(error) = connection => Err(error),
            }
        }
    };
    Ok(response.map_err(Failure::Http)?.status())
}

fn request(
    address: SocketAddr,
    protocol: UpstreamProtocol,
    path: &str,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let request = Request::get(match protocol {
        UpstreamProtocol::Http1 => path.to_owned(),
        UpstreamProtocol::Http2 => format!("http://{address}{path}"),
    });
    let request = match protocol {
        UpstreamProtocol::Http1 => request
            .header(header::HOST, address.to_string())
            .header(header::CONNECTION, "close"),
        UpstreamProtocol::Http2 => request,
    };
    request
        .header(header::USER_AGENT, USER_AGENT)
        .body(Empty::new())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Instant;

    use http::Response;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::server::conn::auto;
    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::config::HealthConfig;
    use crate::upstream::instance::Instance;

    /// A server that answers `/N` with status N, and `/hang` never.
    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(async move {
                    let service = service_fn(answer);
                    let builder = auto::Builder::new(LocalExecutor);
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        address
    }

    async fn answer(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let Ok(status) = request.uri().path()[1..].parse::<u16>() else {
            return std::future::pending().await;
        };
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }

    async fn outcome(address: SocketAddr, protocol: UpstreamProtocol, path: &str) -> String {
        let limit = if path == "/hang" { 50 } else { 10_000 };
        let target = Target {
            service: "app".into(),
            address,
            protocol,
            check: HealthConfig {
                path: path.into(),
                every: Duration::from_secs(60),
                timeout: Duration::from_millis(limit),
                rise: 1,
                fall: 1,
            },
            instance: Arc::new(Instance::new(address, Instant::now(), Arc::default())),
        };
        probe(&target)
            .await
            .err()
            .map_or("passed".into(), |failure| failure.to_string())
    }

    #[tokio::test]
    async fn the_status_decides_over_either_protocol() {
        let table = [
            ("/200", "passed"),
            ("/204", "passed"),
            ("/302", "passed"),
            ("/400", "answered 400 Bad Request"),
            ("/503", "answered 503 Service Unavailable"),
            ("/hang", "no answer within 50ms"),
        ];
        let check = async {
            let address = server().await;
            for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
                for (path, expected) in table {
                    assert_eq!(
                        outcome(address, protocol, path).await,
                        expected,
                        "{protocol:?}"
                    );
                }
            }
        };
        LocalSet::new().run_until(check).await;
    }

    #[tokio::test]
    async fn an_address_nobody_listens_on_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let outcome = outcome(address, UpstreamProtocol::Http1, "/200").await;
        assert!(outcome.starts_with("cannot connect: "), "{outcome}");
    }
}
