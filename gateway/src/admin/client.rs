//! The client of the control socket: one method per request, a new connection for each.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::types::{Draining, Level, Problem, Reloaded, Reopened, Status, Upgraded};
use crate::upgrade::READY_TIMEOUT;

/// Bytes of one answer at most.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// For one request; an upgrade takes the longest.
const TIMEOUT: Duration = READY_TIMEOUT.saturating_add(Duration::from_secs(10));

/// Why a request brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("no gateway listens at {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket may not be opened, or something else is wrong with it.
    #[error("cannot connect to {}: {}", .0.display(), .1)]
    Connect(PathBuf, io::Error),
    /// The gateway took longer than the client waits.
    #[error("the gateway at {} did not answer within {} s", .0.display(), TIMEOUT.as_secs())]
    Timeout(PathBuf),
    /// The connection broke, or carried what is not HTTP.
    #[error("the connection to the gateway broke: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is not one that this version of the client knows.
    #[error("the answer of the gateway makes no sense: {0}")]
    Answer(String),
    /// The gateway refused.
    #[error("{}", .0.detail)]
    Refused(Problem),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRunning(_) => Some(
                "give the gateway `socket = \"…\"` in `[admin]`, and name that path with `--socket`",
            ),
            Self::Connect(_, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Some("the socket belongs to another user: use sudo, or set `socket_mode`")
            }
            Self::Answer(_) => Some("`weir-gateway status --json` shows the version that runs"),
            _ => None,
        }
    }
}

/// A client of the gateway behind one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Connects at each request, not yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// The process at a glance.
    pub async fn status(&self) -> Result<Status, Error> {
        self.ask(Method::GET, "/v1/status").await
    }

    /// Loads the configuration again.
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        self.ask(Method::POST, "/v1/reload").await
    }

    /// Starts the binary anew, and returns once the new process serves.
    pub async fn upgrade(&self) -> Result<Upgraded, Error> {
        self.ask(Method::POST, "/v1/upgrade").await
    }

    /// Begins the end of the process.
    pub async fn drain(&self) -> Result<Draining, Error> {
        self.ask(Method::POST, "/v1/drain").await
    }

    /// Opens the access logs again.
    pub async fn reopen_logs(&self) -> Result<Reopened, Error> {
        self.ask(Method::POST, "/v1/logs/reopen").await
    }

    /// Changes what the error log says. `level` is a level or a list of `module=level`.
    pub async fn log_level(&self, level: &str) -> Result<Level, Error> {
        let path = format!("/v1/logs/level?{level}");
        self.ask(Method::PUT, &path).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Error> {
        let exchange = tokio::time::timeout(TIMEOUT, self.exchange(method, path));
        let exchanged = exchange.await;
        let (success, body) = exchanged.map_err(|_| Error::Timeout(self.socket.clone()))??;
        let nonsense = |error: serde_json::Error| Error::Answer(error.to_string());
        if success {
            serde_json::from_slice(&body).map_err(nonsense)
        } else {
            Err(Error::Refused(
                serde_json::from_slice(&body).map_err(nonsense)?,
            ))
        }
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<(bool, Bytes), Error> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "weir")
            .body(Empty::<Bytes>::new())
            .expect("methods and paths are fixed");
        let exchange = async {
            let response = sender.send_request(request).await?;
            let success = response.status().is_success();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
            let body = body
                .await
                .map_err(|error| Error::Answer(error.to_string()))?;
            Ok((success, body.to_bytes()))
        };
        tokio::pin!(connection);
        tokio::select! {
            // First, so that an answer that ends the connection is still read.
            biased;
            answer = exchange => answer,
            Err(error) = &mut connection => Err(error.into()),
        }
    }

    async fn connect(&self) -> Result<UnixStream, Error> {
        UnixStream::connect(&self.socket)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Error::NotRunning(self.socket.clone())
                }
                _ => Error::Connect(self.socket.clone(), error),
            })
    }
}
