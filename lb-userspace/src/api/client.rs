//! The client of the control socket: one method per request, a new connection for each.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time;

use super::types::{
    Backend, BackendSpec, Detached, Doctor, ExplainQuery, Explanation, Problem, Reloaded, Stats,
    Status, Vip, Weight,
};

/// Bytes of one answer, at most: thousands of backends need one or two megabytes.
const RESPONSE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Time for one request, at most. A reload of hundreds of VIPs takes the longest.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request brought no answer.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("no agent is running at {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket may not be opened, or something else is wrong with it.
    #[error("cannot connect to {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// The agent took longer than the client waits.
    #[error("the agent at {} did not answer within {} s", .0.display(), TIMEOUT.as_secs())]
    Timeout(PathBuf),
    /// The connection broke or carried something that is not HTTP.
    #[error("the connection to the agent broke")]
    Http(#[from] hyper::Error),
    /// The answer is not what this version of the client understands.
    #[error("the agent's answer makes no sense: {0}")]
    Answer(String),
    /// The agent refused, and says why.
    #[error("{}", if .0.detail.is_empty() { &.0.title } else { &.0.detail })]
    Refused(Problem),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning(_) => Some(
                "start it with `weir run --config weir.toml`, or name its socket with `--socket`"
                    .to_owned(),
            ),
            Self::Connect(_, source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("the socket belongs to root: use sudo".to_owned())
            }
            Self::Answer(_) => {
                Some("`weir status` shows the agent's version: is it this program's?".to_owned())
            }
            Self::Refused(problem) => problem.hint.clone(),
            Self::Connect(..) | Self::Timeout(_) | Self::Http(_) => None,
        }
    }
}

/// A client of the agent at one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Connects at each request, not yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket that requests go to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The agent at a glance.
    pub async fn status(&self) -> Result<Status, Error> {
        self.ask(Method::GET, "/v1/status").await
    }

    /// All VIPs.
    pub async fn vips(&self) -> Result<Vec<Vip>, Error> {
        self.ask(Method::GET, "/v1/vips").await
    }

    /// One VIP.
    pub async fn vip(&self, vip: &str) -> Result<Vip, Error> {
        self.ask(Method::GET, &format!("/v1/vips/{}", segment(vip)))
            .await
    }

    /// Adds a backend.
    pub async fn add_backend(
        &self,
        vip: &str,
        backend: &str,
        spec: &BackendSpec,
    ) -> Result<Backend, Error> {
        self.send(Method::POST, &backend_path(vip, backend), spec)
            .await
    }

    /// Removes a backend at once, live flows included.
    pub async fn remove_backend(&self, vip: &str, backend: &str) -> Result<Vip, Error> {
        self.ask(Method::DELETE, &backend_path(vip, backend)).await
    }

    /// Changes a backend's weight.
    pub async fn set_weight(
        &self,
        vip: &str,
        backend: &str,
        weight: u16,
    ) -> Result<Backend, Error> {
        let path = format!("{}/weight", backend_path(vip, backend));
        self.send(Method::PUT, &path, &Weight { weight }).await
    }

    /// Sends a backend no new flows, or sends them again.
    pub async fn set_drain(&self, vip: &str, backend: &str, drain: bool) -> Result<Backend, Error> {
        let method = if drain { Method::PUT } else { Method::DELETE };
        self.ask(method, &format!("{}/drain", backend_path(vip, backend)))
            .await
    }

    /// Every counter.
    pub async fn stats(&self) -> Result<Stats, Error> {
        self.ask(Method::GET, "/v1/stats").await
    }

    /// What becomes of a packet.
    pub async fn explain(&self, query: &ExplainQuery) -> Result<Explanation, Error> {
        self.send(Method::POST, "/v1/explain", query).await
    }

    /// What the agent finds when it examines itself and its host.
    pub async fn doctor(&self) -> Result<Doctor, Error> {
        self.ask(Method::GET, "/v1/doctor").await
    }

    /// Reads the configuration file again.
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        self.ask(Method::POST, "/v1/reload").await
    }

    /// Takes the program from all interfaces and ends the agent.
    pub async fn detach(&self) -> Result<Detached, Error> {
        self.ask(Method::POST, "/v1/detach").await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Error> {
        self.request(method, path, Bytes::new()).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).expect("requests are plain data");
        self.request(method, path, body.into()).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Error> {
        let (status, body) = time::timeout(TIMEOUT, self.exchange(method, path, body))
            .await
            .map_err(|_| Error::Timeout(self.socket.clone()))??;
        if status.is_success() {
            serde_json::from_slice(&body).map_err(|error| Error::Answer(error.to_string()))
        } else {
            Err(refusal(status, &body))
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Error> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        Error::NotRunning(self.socket.clone())
                    }
                    _ => Error::Connect(self.socket.clone(), error),
                })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "weir")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("paths are built from escaped segments");
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, RESPONSE_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| Error::Answer(error.to_string()))?;
            Ok((head.status, body.to_bytes()))
        };
        // The connection only moves while it is polled; the exchange alone decides when it is over.
        let driver = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            answer = exchange => answer,
            answer = driver => answer,
        }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Error {
    match serde_json::from_slice(body) {
        Ok(problem) => Error::Refused(problem),
        Err(_) => Error::Answer(format!("status {status} without a reason")),
    }
}

fn backend_path(vip: &str, backend: &str) -> String {
    format!("/v1/vips/{}/backends/{}", segment(vip), segment(backend))
}

/// One path segment: whatever is not unreserved (RFC 3986, section 2.3) is percent-encoded, so that
/// a strange name is an unknown name and not another path.
fn segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_escaped() {
        let table = [
            ("web", "web"),
            ("a.b-c_d~", "a.b-c_d~"),
            ("a/b", "a%2Fb"),
            ("ü", "%C3%BC"),
        ];
        for (name, expected) in table {
            assert_eq!(segment(name), expected);
        }
        assert_eq!(backend_path("w b", "?"), "/v1/vips/w%20b/backends/%3F");
    }

    #[test]
    fn a_refusal_speaks_the_agents_words() {
        let body = br#"{"reason":"unknown-vip","title":"Unknown VIP","status":404,
            "detail":"there is no VIP `x`","hint":"look"}"#;
        let error = refusal(StatusCode::NOT_FOUND, body);
        assert_eq!(error.to_string(), "there is no VIP `x`");
        assert_eq!(error.hint().as_deref(), Some("look"));
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(
            error.to_string(),
            "the agent's answer makes no sense: status 502 Bad Gateway without a reason"
        );
    }

    #[tokio::test]
    async fn no_socket_means_no_agent() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("weir.sock");
        let error = Client::new(&missing).status().await.unwrap_err();
        assert!(matches!(error, Error::NotRunning(path) if path == missing));
        // A socket that an agent left behind when it was killed.
        drop(std::os::unix::net::UnixListener::bind(&missing).unwrap());
        let error = Client::new(&missing).status().await.unwrap_err();
        assert!(matches!(error, Error::NotRunning(_)));
    }

    #[tokio::test]
    async fn what_is_not_http_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = async {
            use tokio::io::AsyncWriteExt;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-nope\r\n").await.unwrap();
        };
        let client = Client::new(&path);
        let (answer, ()) = tokio::join!(client.status(), server);
        assert!(matches!(answer, Err(Error::Http(_))), "{answer:?}");
    }
}
