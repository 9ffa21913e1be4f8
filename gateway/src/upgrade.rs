//! A new process in the place of this one, without losing a request.
//!
//! The old process gives the new one its listening sockets themselves (SCM_RIGHTS, unix(7)): the
//! kernel's queue of waiting clients goes with them, so at no moment is a client refused. In turn:
//!
//! 1. The new process is started: by the old one (SIGUSR2, `weir-gateway upgrade`), which runs
//!    the binary that now stands where its own was; or by anyone, with `run --take-over SOCKET`.
//! 2. The old one offers its sockets ([`give`]). The new one reads its configuration and takes
//!    those it has a use for ([`take`]); it binds what is missing and starts its workers.
//! 3. The new one says that it is ready, and both accept for a moment.
//! 4. The old one confirms, stops accepting and drains: requests under way finish, WebSockets
//!    live until `drain.deadline`.
//!
//! Until the confirmation nothing has changed for the old process. If the new one fails, or says
//! nothing for [`READY_TIMEOUT`], the old one goes on alone.
//!
//! The admin listener and the control socket go over in the same way. With the sockets the new
//! process is told what is known of instances ([`Known`]). What else only memory holds starts
//! anew: counters, the counts of rate limits, sessions of TLS.

mod give;
mod known;
mod spawn;
mod take;
mod wire;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::give::{Giving, give};
pub(crate) use self::known::Known;
pub(crate) use self::spawn::Program;
pub use self::take::Handover;
use crate::config::ListenerConfig;

/// Until the new process must be ready. It may have to read a large configuration.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// What an HTTP connection to the control socket is upgraded to, for a handover.
pub(crate) const PROTOCOL: &str = "weir-handover";

/// The form of the messages below. Another number: the two processes cannot hand over.
const VERSION: u32 = 1;

/// Sockets handed over at most.
const SOCKETS_MAX: usize = 16 * 1024;

/// The old process's first message; the sockets follow in the same order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    version: u32,
    /// Of the old process.
    pub(crate) pid: u32,
    sockets: Vec<Kind>,
    /// A [`Known`], by whoever tells it.
    #[serde(default)]
    known: serde_json::Value,
}

/// What a socket is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A listener for clients; one socket per worker.
    Listener {
        /// Its name in the configuration.
        name: String,
        /// As configured.
        bind: std::net::SocketAddr,
        /// As configured.
        ipv6_only: bool,
    },
    /// The admin listener.
    Admin {
        /// As configured.
        bind: std::net::SocketAddr,
    },
    /// The control socket.
    Control {
        /// Where it stands.
        path: PathBuf,
    },
}

/// The new process's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// It serves.
    Ready {
        /// Of the new process.
        pid: u32,
        /// Of the new process.
        version: String,
        /// Whether the control socket's file is its own now.
        control: bool,
    },
    /// It cannot serve.
    Failed {
        /// As its log says it.
        reason: String,
    },
}

/// The old process's last message: from now on the new one is the service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    /// A [`Known`], by whoever tells it.
    #[serde(default)]
    known: serde_json::Value,
}

/// Sockets that came from another process and have found no use yet. Those left are closed,
/// which does nothing to the other process's hold on them.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<(Kind, OwnedFd)>);

impl Inherited {
    /// The sockets of a listener; none: they are to be bound.
    pub(crate) fn listener(&mut self, config: &ListenerConfig) -> Vec<TcpListener> {
        let fits = |kind: &Kind| match kind {
            Kind::Listener {
                name,
                bind,
                ipv6_only,
            } => {
                let place = (*bind, *ipv6_only) == (config.bind, config.ipv6_only);
                // Each port 0 is a port of its own: there the name says which is which.
                place && (bind.port() != 0 || *name == config.name)
            }
            _ => false,
        };
        self.take(fits).map(TcpListener::from).collect()
    }

    /// The admin listener.
    pub(crate) fn admin(&mut self, wanted: std::net::SocketAddr) -> Option<TcpListener> {
        let fits = |kind: &Kind| matches!(kind, Kind::Admin { bind } if *bind == wanted);
        self.take(fits).next().map(TcpListener::from)
    }

    /// The control socket.
    pub(crate) fn control(&mut self, wanted: &Path) -> Option<UnixListener> {
        let fits = |kind: &Kind| matches!(kind, Kind::Control { path } if path == wanted);
        self.take(fits).next().map(UnixListener::from)
    }

    fn take(&mut self, fits: impl Fn(&Kind) -> bool) -> impl Iterator<Item = OwnedFd> {
        let all = std::mem::take(&mut self.0);
        let (wanted, left) = all.into_iter().partition(|(kind, _)| fits(kind));
        self.0 = left;
        let wanted: Vec<(Kind, OwnedFd)> = wanted;
        wanted.into_iter().map(|(_, socket)| socket)
    }
}
