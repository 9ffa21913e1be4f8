//! The signals that the gateway acts on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT: end. SIGHUP: reload.
///
/// Made before the first listener: a signal that finds no handler kills the process, and whoever
/// sees a port open may send one.
pub(crate) struct Signals {
    /// Asks to end.
    pub(crate) end: End,
    /// Asks to reload the configuration.
    pub(crate) reload: Signal,
}

/// SIGTERM or SIGINT.
pub(crate) struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Handles the signals from now on. Must be called within the runtime that will wait for them.
    pub(crate) fn handle() -> io::Result<Self> {
        let end = End {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let reload = signal(SignalKind::hangup())?;
        Ok(Self { end, reload })
    }
}

impl End {
    /// Completes at the next of the two.
    pub(crate) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
