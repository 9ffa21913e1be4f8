//! The TCP probe: open a connection and close it. Success is that the backend accepts.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{Answer, Failure, Outcome};

/// Connects to `address`. The caller bounds the time.
pub(super) async fn probe(address: SocketAddr) -> Outcome {
    TcpStream::connect(address)
        .await
        .map_err(Failure::Connect)?;
    Ok(Answer::Connected)
}
