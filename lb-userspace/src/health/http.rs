//! The HTTP probe: `GET path` over HTTP/1.1. Success is a complete response with an expected status.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Answer, Failure, Outcome};

/// Status line and headers of a response, at most.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Body that is read before the connection is closed. A longer one is cut off; that is no failure.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How probes introduce themselves, so that they are easy to leave out of an access log.
const AGENT: &str = concat!("weir-health/", env!("CARGO_PKG_VERSION"));

/// Requests `path` from `address`; the Host header is `host`, or else the address. The caller bounds
/// the time.
///
/// `path` and `host` come from a checked configuration: both fit into a request.
pub(super) async fn probe(
    address: SocketAddr,
    path: &str,
    host: Option<&str>,
    expected: &RangeInclusive<u16>,
) -> Outcome {
    let stream = TcpStream::connect(address)
        .await
        .map_err(Failure::Connect)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    let request = Request::get(path)
        .header(
            HOST,
            host.map_or_else(|| address.to_string(), str::to_owned),
        )
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("path and host were checked when the configuration was read");

    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        read_bounded(response.into_body()).await?;
        if expected.contains(&status) {
            Ok(Answer::Status(status))
        } else {
            Err(Failure::Status {
                status,
                expected: expected.clone(),
            })
        }
    };
    // The connection only moves while it is polled. It may end before the exchange does, with the
    // last bytes already handed over, so its own end decides nothing.
    let driver = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        outcome = exchange => outcome,
        outcome = driver => outcome,
    }
}

/// Reads a body to its end or to the limit, so that the backend is not cut off in the middle of an
/// ordinary answer.
async fn read_bounded(mut body: Incoming) -> Result<(), Failure> {
    let mut left = BODY_BYTES_MAX;
    while let Some(frame) = body.frame().await {
        let bytes = frame?.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(bytes);
        if left == 0 {
            break;
        }
    }
    Ok(())
}
