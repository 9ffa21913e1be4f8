//! The control API: HTTP and JSON on the control socket, every path under `/v1/`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`](super::types::Status) |
//! | `POST /v1/reload` | loads the configuration again |
//! | `POST /v1/upgrade` | starts the binary anew and hands over to it |
//! | `POST /v1/drain` | begins the end, as SIGTERM does |
//! | `POST /v1/logs/reopen` | opens the access logs again, as SIGUSR1 does |
//! | `PUT /v1/logs/level?FILTER` | says more or less in the error log, as `RUST_LOG` would |
//! | `POST /v1/handover` | becomes a handover (`Upgrade: weir-handover`) |
//!
//! What the admin listener serves is served here too. A refusal is a
//! [`Problem`](super::types::Problem) with a status of its own.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::types::{Draining, Problem, Reason, Reopened};
use crate::drain::End;
use crate::server::keeper::{Command, Overview};
use crate::telemetry::access_log::Writers;
use crate::telemetry::log;
use crate::upgrade;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What the control API acts on.
pub(crate) struct Api {
    pub(crate) overview: Rc<Overview>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) ends: mpsc::UnboundedSender<End>,
    pub(crate) writers: Arc<Writers>,
}

impl Api {
    /// Answers a request under `/v1/`.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET, "/v1/status") => reply(&Ok(self.overview.status())),
            (&Method::POST, "/v1/reload") => reply(&self.ask(Command::Reload).await),
            (&Method::POST, "/v1/upgrade") => reply(&self.ask(Command::Upgrade).await),
            (&Method::POST, "/v1/drain") => {
                // If nobody listens, the process is ending already.
                let _ = self.ends.send(End::Asked);
                let pid = std::process::id();
                reply(&Ok(Draining { pid }))
            }
            (&Method::POST, "/v1/logs/reopen") => {
                let logs = self.writers.reopen();
                reply(&Ok(Reopened { logs }))
            }
            (&Method::PUT, "/v1/logs/level") => {
                let filter = request.uri().query().unwrap_or_default();
                reply(&log::set_level(filter))
            }
            (&Method::POST, "/v1/handover") => self.handover(request),
            _ => {
                let detail = format!("there is no {} {path}", request.method());
                refuse(&Problem::new(Reason::NotFound, detail))
            }
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(Option<oneshot::Sender<Result<T, Problem>>>) -> Command,
    ) -> Result<T, Problem> {
        let (sender, receiver) = oneshot::channel();
        let ending = || Problem::new(Reason::Draining, "the process is about to end");
        let sent = self.commands.send(command(Some(sender)));
        sent.map_err(|_| ending())?;
        receiver.await.map_err(|_| ending())?
    }

    /// Switches to the protocol of a handover, and leaves the rest to the keeper.
    fn handover(&self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        let protocol = HeaderValue::from_static(upgrade::PROTOCOL);
        if request.headers().get(UPGRADE) != Some(&protocol) {
            let detail = format!("write `Upgrade: {}`", upgrade::PROTOCOL);
            return refuse(&Problem::new(Reason::NotFound, detail));
        }
        let upgraded = hyper::upgrade::on(&mut request);
        let commands = self.commands.clone();
        tokio::task::spawn_local(async move {
            match stream(upgraded).await {
                // If the keeper is gone, the process ends, and the stream with it.
                Ok(stream) => drop(commands.send(Command::Give(stream))),
                Err(error) => tracing::warn!("no handover: {error:#}"),
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
        response
    }
}

/// The bare connection to a process that may have the sockets.
async fn stream(upgraded: hyper::upgrade::OnUpgrade) -> anyhow::Result<UnixStream> {
    let parts = upgraded
        .await?
        .downcast::<TokioIo<UnixStream>>()
        .ok()
        .context("not a connection to the control socket")?;
    anyhow::ensure!(parts.read_buf.is_empty(), "it spoke before it was asked");
    let stream = parts.io.into_inner();
    let peer = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    anyhow::ensure!(
        [0, own].contains(&peer),
        "user {peer} may not take over from user {own}"
    );
    Ok(stream)
}

fn reply<T: Serialize>(answer: &Result<T, Problem>) -> Response<Full<Bytes>> {
    match answer {
        Ok(answer) => with(StatusCode::OK, JSON, answer),
        Err(problem) => refuse(problem),
    }
}

fn refuse(problem: &Problem) -> Response<Full<Bytes>> {
    let status = match problem.reason {
        Reason::RefusedConfiguration => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::UpgradeFailed => StatusCode::BAD_GATEWAY,
        Reason::Draining => StatusCode::CONFLICT,
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::BadRequest => StatusCode::BAD_REQUEST,
    };
    with(status, PROBLEM, problem)
}

fn with(status: StatusCode, kind: HeaderValue, answer: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(answer).expect("answers are plain data");
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
