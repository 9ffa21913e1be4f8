//! The signals that the gateway acts on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT: end. SIGHUP: reload. SIGUSR1: open the access logs again. SIGUSR2: upgrade
/// to the binary that now stands in the place of this one.
///
/// Made before the first listener: a signal that finds no handler kills the process, and whoever
/// sees a port open may send one.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    reopen: Signal,
    upgrade: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To end.
    End,
    /// To reload the configuration.
    Reload,
    /// To open the access logs again.
    Reopen,
    /// To hand over to a new process.
    Upgrade,
}

impl Signals {
    /// Handles the signals from now on. Must be called within the runtime that will wait for them.
    pub(crate) fn handle() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Completes at the next signal.
    pub(crate) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.reload.recv() => Wish::Reload,
            _ = self.reopen.recv() => Wish::Reopen,
            _ = self.upgrade.recv() => Wish::Upgrade,
        }
    }
}
