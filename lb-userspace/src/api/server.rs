//! The agent's half of the control API, and the metrics endpoint: HTTP in, [`Call`]s out.
//!
//! Whoever may open the socket may do everything, so it belongs to its owner alone (mode 0600). There
//! is nothing of substance in here: each request becomes one [`Call`], the agent answers it in its own
//! time, and the answer goes back as it is.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::stat::{Mode, umask};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time;
use tracing::{debug, warn};

use super::types::{BackendSpec, ExplainQuery, PROBLEM_JSON, Problem, Weight};

/// Bytes of a request's body, at most.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Connections at a time, at most, to each of the two listeners; others wait.
const CONNECTIONS_MAX: usize = 32;

/// Time for a request's head to arrive, and for a connection to sit idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a failed `accept`, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET /v1/status`
    Status,
    /// `GET /v1/vips`
    Vips,
    /// `GET /v1/vips/{vip}`
    Vip(String),
    /// A change to one backend.
    Change {
        /// Name of the VIP.
        vip: String,
        /// Name of the backend.
        backend: String,
        /// What to do with it.
        change: Change,
    },
    /// `GET /v1/stats`
    Stats,
    /// `POST /v1/explain`
    Explain(ExplainQuery),
    /// `GET /v1/doctor`
    Doctor,
    /// `POST /v1/reload`
    Reload,
    /// `POST /v1/detach`
    Detach,
    /// `GET /metrics`, on the metrics listener.
    Metrics,
}

/// What a client wants done to a backend.
pub use crate::control::runtime::Change;

/// The body of a successful answer, or why there is none.
pub type Reply = Result<Vec<u8>, Problem>;

/// A call, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is asked for.
    pub call: Call,
    /// Takes the answer; nobody may be waiting any more.
    pub reply: oneshot::Sender<Reply>,
}

/// Why the control socket could not be made.
#[derive(Debug, Error)]
pub enum BindError {
    /// An agent answers there.
    #[error("another agent answers at {0}")]
    InUse(PathBuf),
    /// There is a file of another kind.
    #[error("{0} exists and is not a socket")]
    NotSocket(PathBuf),
    /// Anything else.
    #[error("cannot listen at {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The control socket. Its file goes when this value does.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Makes the socket at `path`, in place of one that a dead agent left.
    ///
    /// # Errors
    ///
    /// When another agent answers there, or no socket can be made.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let fail = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(fail)?;
        }
        match fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                return Err(BindError::NotSocket(path.to_owned()));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(BindError::InUse(path.to_owned()));
            }
            Ok(_) => fs::remove_file(path).map_err(fail)?,
            Err(_) => {}
        }
        // The mode has to be right from the first moment on.
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.map_err(fail)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers requests until the agent stops taking calls.
    pub async fn serve(self, calls: mpsc::Sender<Asked>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let serve = converse(stream, calls.clone(), control_call);
                    tokio::spawn(async move {
                        serve.await;
                        drop(slot);
                    });
                }
                Err(error) => pause(&error).await,
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers requests for metrics until the agent stops taking calls.
pub async fn serve_metrics(listener: TcpListener, calls: mpsc::Sender<Asked>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serve = converse(stream, calls.clone(), metrics_call);
                tokio::spawn(async move {
                    serve.await;
                    drop(slot);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn pause(error: &io::Error) {
    warn!(%error, "cannot accept a connection");
    time::sleep(ACCEPT_PAUSE).await;
}

/// Reads a request's meaning from its head and body.
type Reader = fn(&Method, &str, &[u8]) -> Result<Call, Problem>;

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    calls: mpsc::Sender<Asked>,
    read: Reader,
) {
    let service = service_fn(|request| async {
        Ok::<_, std::convert::Infallible>(respond(request, &calls, read).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection ended early");
    }
}

async fn respond(
    request: Request<Incoming>,
    calls: &mpsc::Sender<Asked>,
    read: Reader,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let reply = match body_of(body).await {
        Ok(body) => match read(&head.method, head.uri.path(), &body) {
            Ok(call) => ask(calls, call).await,
            Err(problem) => Err(problem),
        },
        Err(problem) => Err(problem),
    };
    let (status, content_type, body) = match reply {
        Ok(body) if head.uri.path() == "/metrics" => {
            (StatusCode::OK, crate::metrics::CONTENT_TYPE, body)
        }
        Ok(body) => (StatusCode::OK, "application/json", body),
        Err(problem) => {
            let status = StatusCode::from_u16(problem.status);
            let body = serde_json::to_vec(&problem).unwrap_or_default();
            (
                status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                PROBLEM_JSON,
                body,
            )
        }
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

async fn body_of(body: Incoming) -> Result<Bytes, Problem> {
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    match time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("more than {BODY_BYTES_MAX} bytes");
            Err(Problem::new(
                413,
                "body-too-large",
                "The body is too large",
                detail,
            ))
        }
        Ok(Err(error)) => Err(Problem::new(
            400,
            "body-broken",
            "The body did not arrive",
            error.to_string(),
        )),
        Err(_) => Err(Problem::new(
            408,
            "body-late",
            "The body did not arrive in time",
            "",
        )),
    }
}

async fn ask(calls: &mpsc::Sender<Asked>, call: Call) -> Reply {
    let stopping = || Problem::new(503, "stopping", "The agent is stopping", "");
    let (reply, answer) = oneshot::channel();
    calls
        .send(Asked { call, reply })
        .await
        .map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}

fn metrics_call(method: &Method, path: &str, _: &[u8]) -> Result<Call, Problem> {
    match (method, path) {
        (&Method::GET, "/metrics") => Ok(Call::Metrics),
        (_, "/metrics") => Err(wrong_method(method)),
        _ => Err(no_path(path)),
    }
}

fn control_call(method: &Method, path: &str, body: &[u8]) -> Result<Call, Problem> {
    let segments: Vec<String> = path.split('/').skip(1).map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let [version, rest @ ..] = segments.as_slice() else {
        return Err(no_path(path));
    };
    if *version != "v1" {
        return Err(no_path(path));
    }
    let change = |vip: &str, backend: &str, change| {
        Ok(Call::Change {
            vip: vip.to_owned(),
            backend: backend.to_owned(),
            change,
        })
    };
    match (method.as_str(), rest) {
        ("GET", ["status"]) => Ok(Call::Status),
        ("GET", ["vips"]) => Ok(Call::Vips),
        ("GET", ["vips", vip]) => Ok(Call::Vip((*vip).to_owned())),
        ("POST", ["vips", vip, "backends", backend]) => {
            let BackendSpec { address, weight } = json(body)?;
            change(vip, backend, Change::Add { address, weight })
        }
        ("DELETE", ["vips", vip, "backends", backend]) => change(vip, backend, Change::Remove),
        ("PUT", ["vips", vip, "backends", backend, "weight"]) => {
            let Weight { weight } = json(body)?;
            change(vip, backend, Change::Weight(weight))
        }
        ("PUT", ["vips", vip, "backends", backend, "drain"]) => {
            change(vip, backend, Change::Drain(true))
        }
        ("DELETE", ["vips", vip, "backends", backend, "drain"]) => {
            change(vip, backend, Change::Drain(false))
        }
        ("GET", ["stats"]) => Ok(Call::Stats),
        ("POST", ["explain"]) => Ok(Call::Explain(json(body)?)),
        ("GET", ["doctor"]) => Ok(Call::Doctor),
        ("POST", ["reload"]) => Ok(Call::Reload),
        ("POST", ["detach"]) => Ok(Call::Detach),
        (
            _,
            ["status" | "vips" | "stats" | "explain" | "doctor" | "reload" | "detach"]
            | ["vips", _]
            | ["vips", _, "backends", _]
            | ["vips", _, "backends", _, "weight" | "drain"],
        ) => Err(wrong_method(method)),
        _ => Err(no_path(path)),
    }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(
            400,
            "body-invalid",
            "The body is not what this request takes",
            error.to_string(),
        )
    })
}

fn wrong_method(method: &Method) -> Problem {
    let detail = format!("{method} is not for this path");
    Problem::new(405, "wrong-method", "The path takes another method", detail)
}

fn no_path(path: &str) -> Problem {
    Problem::new(404, "unknown-path", "There is nothing at this path", path)
}

/// Undoes percent-encoding (RFC 3986, 2.1); what is not validly encoded stays as it is.
fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail
            .first_chunk::<2>()
            .and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| segment.to_owned())
}

impl Problem {
    /// A refusal without a hint.
    pub fn new(status: u16, reason: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            hint: None,
        }
    }

    /// The same, with what to do about it.
    pub fn with_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hint = hint.map(Into::into);
        self
    }
}

#[cfg(test)]
mod tests;
