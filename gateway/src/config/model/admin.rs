//! How operators reach the process, and how it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where operators reach the process; at least one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Address and port of `/livez`, `/readyz` and `/metrics`, in plain HTTP.
    pub bind: Option<SocketAddr>,
    /// The control socket.
    pub socket: Option<SocketConfig>,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// Its path in the file system.
    pub path: PathBuf,
    /// Its permissions, at most `0o777`.
    pub mode: u32,
}

/// How the gateway ends after SIGTERM, or after another process has taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// From "not ready" until listeners close: time for the balancer to notice.
    pub delay: Duration,
    /// From closing the listeners until idle HTTP/1.1 connections are closed.
    pub idle_grace: Duration,
    /// From closing the listeners until what is still open is cut.
    pub deadline: Duration,
}
