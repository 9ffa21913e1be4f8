//! What travels over the control socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Of the process.
    pub pid: u32,
    /// How far its end has come.
    pub phase: Phase,
    /// The process that has taken over, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successor: Option<u32>,
    /// Since the process began.
    pub uptime_seconds: u64,
    /// Worker threads.
    pub workers: usize,
    /// The configuration in force.
    pub configuration: Configuration,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Client connections.
    pub connections_open: u64,
    /// Upgraded connections (WebSocket).
    pub tunnels_open: u64,
    /// Requests under way.
    pub requests_in_flight: u64,
}

/// How far the end of a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It serves.
    Serving,
    /// It serves, but says that it is not ready.
    Unready,
    /// It accepts no connections any more.
    Draining,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its file.
    pub file: PathBuf,
    /// When it was loaded, RFC 3339.
    pub loaded: String,
    /// Configurations that were in force before it in this process.
    pub reloads: u64,
    /// Routes it has.
    pub routes: usize,
    /// Services it has.
    pub services: usize,
    /// The last attempt to replace it, if that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// An attempt to reload that changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// When, RFC 3339.
    pub at: String,
    /// Why, for people; several lines.
    pub reason: String,
}

/// A place where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: String,
    /// Address and port.
    pub address: SocketAddr,
    /// Whether clients speak TLS.
    pub tls: bool,
}

/// `POST /v1/reload`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Routes now in force.
    pub routes: usize,
    /// Services now in force.
    pub services: usize,
    /// To read, check and compile the configuration, beside the traffic.
    pub load_us: u64,
    /// From the compiled configuration until every worker serves by it.
    pub effect_us: u64,
}

/// `POST /v1/upgrade`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The process that serves now.
    pub pid: u32,
    /// Of its program.
    pub version: String,
}

/// `POST /v1/drain`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// The process that ends.
    pub pid: u32,
}

/// `POST /v1/logs/reopen`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reopened {
    /// Access logs that are about to be opened again.
    pub logs: usize,
}

/// `PUT /v1/logs/level`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// What the error log says from now on, as in `RUST_LOG`.
    pub level: String,
}

/// Why a request was refused, after RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of refusal it is.
    pub reason: Reason,
    /// For people; several lines where a configuration has several faults.
    pub detail: String,
}

/// A kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The configuration is not valid, or cannot be put in force by this process.
    RefusedConfiguration,
    /// The new process did not come up; this one goes on.
    UpgradeFailed,
    /// The process is about to end.
    Draining,
    /// There is nothing under this path, or not by this method.
    NotFound,
    /// What was asked for cannot be read.
    BadRequest,
}

impl Problem {
    /// A refusal of this kind.
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}
