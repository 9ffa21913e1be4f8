//! One active check, on a connection of its own.

mod grpc;
mod http;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ::http::StatusCode;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Target;
use crate::config::{Check, UpstreamProtocol};
use crate::server::executor::LocalExecutor;
use crate::socket::Socket;
use crate::upstream::transport::{self, Transport};

/// What instances see as `User-Agent` of a check.
const USER_AGENT: &str = concat!("weir-gateway/", env!("CARGO_PKG_VERSION"), " health-check");

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no TLS connection: {}", transport::reason(.0))]
    Tls(std::io::Error),
    #[error("no valid answer: {0}")]
    Http(hyper::Error),
    #[error("no valid answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("no request can be made: {0}")]
    Request(::http::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the expected text is not in the first {0} bytes of the answer")]
    Text(usize),
    #[error("gRPC status {0}")]
    GrpcStatus(String),
    #[error("gRPC health is {0}")]
    GrpcHealth(&'static str),
}

/// Checks the instance once, within the configured time.
pub(super) async fn probe(target: &Target) -> Result<(), Failure> {
    let limit = target.check.timeout;
    tokio::time::timeout(limit, check(target))
        .await
        .map_err(|_elapsed| Failure::Timeout(limit))?
}

async fn check(target: &Target) -> Result<(), Failure> {
    match &target.check.check {
        Check::Tcp => connect(target).await.map(drop),
        Check::Http {
            path,
            host,
            statuses,
            body,
        } => {
            let request = http::request(target, path, host.as_deref());
            let verdict = async |response| http::judge(response, statuses, body.as_deref()).await;
            exchange(target, request, verdict).await
        }
        Check::Grpc { service, host } => {
            let request = grpc::request(target, service, host.as_deref());
            exchange(target, request, grpc::judge).await
        }
    }
}

async fn connect(target: &Target) -> Result<Transport, Failure> {
    let stream = TcpStream::connect(target.address).await;
    let socket = Socket::new(stream.map_err(Failure::Connect)?);
    match &target.tls {
        None => Ok(Transport::Clear(socket)),
        Some(tls) => tls.secure(socket).await.map_err(Failure::Tls),
    }
}

/// Sends a request and lets `judge` read the answer.
async fn exchange(
    target: &Target,
    request: Result<::http::Request<Full<Bytes>>, ::http::Error>,
    judge: impl AsyncFnOnce(::http::Response<Incoming>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let request = request.map_err(Failure::Request)?;
    let io = TokioIo::new(connect(target).await?);
    // The connection ends with the future that drives it: dropped as soon as the verdict stands.
    match target.protocol {
        UpstreamProtocol::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await.map_err(Failure::Http)?;
            tokio::select! {
                verdict = async {
                    judge(sender.send_request(request).await.map_err(Failure::Http)?).await
                } => verdict,
                Err(error) = connection => Err(Failure::Http(error)),
            }
        }
        UpstreamProtocol::Http2 => {
            let handshake = http2::handshake(LocalExecutor, io);
            let (mut sender, connection) = handshake.await.map_err(Failure::Http)?;
            tokio::select! {
                verdict = async {
                    judge(sender.send_request(request).await.map_err(Failure::Http)?).await
                } => verdict,
                Err(error) = connection => Err(Failure::Http(error)),
            }
        }
    }
}
