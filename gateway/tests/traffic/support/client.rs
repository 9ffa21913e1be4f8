//! Clients: plain requests over HTTP/1.1 or HTTP/2, and bytes over a raw socket.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::PATIENCE;

/// A response read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// A response header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The status and the reason of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String) {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        (
            self.status.as_u16(),
            problem["reason"].as_str().unwrap().to_owned(),
        )
    }
}

/// A `GET` request for host `test`.
pub(crate) fn request(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "test")
}

/// Sends `GET path` on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, request(path).body(Empty::new()).unwrap()).await
}

/// Sends a request on a connection of its own.
pub(crate) async fn send<B>(address: SocketAddr, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    try_send(address, request).await.unwrap()
}

/// The same, where the request may fail.
pub(crate) async fn try_send<B>(
    address: SocketAddr,
    request: Request<B>,
) -> Result<Answer, Box<dyn std::error::Error>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let exchange = async {
        let mut sender = connect(address).await?;
        Ok(Answer::read(sender.send_request(request).await?).await?)
    };
    tokio::time::timeout(PATIENCE, exchange).await?
}

/// An HTTP/1.1 connection.
pub(crate) async fn connect<B>(address: SocketAddr) -> std::io::Result<http1::SendRequest<B>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    handshake(TcpStream::connect(address).await?).await
}

/// An HTTP/1.1 connection over a stream.
pub(crate) async fn handshake<B, S>(stream: S) -> std::io::Result<http1::SendRequest<B>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(std::io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// An HTTP/2 connection over a stream.
pub(crate) async fn handshake_http2<S>(stream: S) -> http2::SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Writes `bytes` and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

/// Reads until the other side closes; panics if it does not.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.unwrap_or_else(|_| panic!("not closed after {:?}", String::from_utf8_lossy(&answer)))
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `end` has arrived.
pub(crate) async fn read_until<S: AsyncRead + Unpin>(stream: &mut S, end: &str) -> String {
    let mut seen = Vec::new();
    let read = async {
        while !seen.ends_with(end.as_bytes()) {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "closed early");
        }
    };
    let ended = tokio::time::timeout(PATIENCE, read).await;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    ended.unwrap_or_else(|_| panic!("no {end:?} in {seen:?}"));
    seen
}

/// Asserts that nothing arrives on the stream for a moment.
pub(crate) async fn is_silent(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte))
        .await
        .is_err()
}
