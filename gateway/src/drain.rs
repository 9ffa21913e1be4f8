//! How the gateway ends without losing a request.
//!
//! SIGTERM or SIGINT: readiness goes off, and for `drain.delay` everything else stays as it is, so
//! that balancers notice. Then listeners close, HTTP/1.1 connections end after the response under
//! way, HTTP/2 connections announce their end (GOAWAY). What is still open at `drain.deadline` is
//! cut. A second signal cuts at once.

use std::time::Duration;

use tokio::sync::watch;

use crate::config::DrainConfig;
use crate::signals::End;

/// How long the last bytes of cut connections may take to leave the process.
pub(crate) const CUT_GRACE: Duration = Duration::from_millis(100);

/// How far the end has come. The order of the variants is the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Ready for requests.
    Serving,
    /// Still serving, but asking not to be sent more.
    Unready,
    /// No new connections; those open end as soon as they can.
    Closing,
    /// The deadline has passed.
    Cut,
}

/// Tells the phase to those who serve.
#[derive(Debug, Clone)]
pub(crate) struct Drain(watch::Receiver<Phase>);

impl Drain {
    /// A drain that has not begun, and what moves it on.
    pub(crate) fn new() -> (watch::Sender<Phase>, Self) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        (sender, Self(receiver))
    }

    /// Whether new requests are welcome.
    pub(crate) fn is_ready(&self) -> bool {
        *self.0.borrow() == Phase::Serving
    }

    /// Whether connections are to be closed.
    pub(crate) fn is_closing(&self) -> bool {
        *self.0.borrow() >= Phase::Closing
    }

    /// Completes when connections are to be closed.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.reaches(Phase::Closing)
    }

    /// Completes when what is still open is to be cut.
    pub(crate) fn cut(&self) -> impl Future<Output = ()> + use<> {
        self.reaches(Phase::Cut)
    }

    fn reaches(&self, phase: Phase) -> impl Future<Output = ()> + use<> {
        let mut receiver = self.0.clone();
        async move {
            // An error means that the sender is gone, which is an end too.
            let _ = receiver.wait_for(|now| *now >= phase).await;
        }
    }
}

/// Waits for SIGTERM or SIGINT, then moves through the phases. Returns at the deadline, or when
/// `idle` completes after listeners have closed.
pub(crate) async fn run(
    phase: &watch::Sender<Phase>,
    config: &DrainConfig,
    signals: &mut End,
    idle: impl Future<Output = ()>,
) {
    signals.recv().await;
    tracing::info!(delay = ?config.delay, "draining: not ready any more");
    phase.send_replace(Phase::Unready);
    tokio::select! {
        () = phases(phase, config, idle) => {}
        () = signals.recv() => tracing::warn!("second signal: closing at once"),
    }
    phase.send_replace(Phase::Cut);
}

async fn phases(
    phase: &watch::Sender<Phase>,
    DrainConfig { delay, deadline }: &DrainConfig,
    idle: impl Future<Output = ()>,
) {
    tokio::time::sleep(*delay).await;
    tracing::info!(?deadline, "draining: closing connections");
    phase.send_replace(Phase::Closing);
    if tokio::time::timeout(*deadline, idle).await.is_err() {
        tracing::warn!("draining: deadline reached, cutting what is still open");
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    const CONFIG: DrainConfig = DrainConfig {
        delay: Duration::from_secs(5),
        deadline: Duration::from_secs(30),
    };

    #[tokio::test(start_paused = true)]
    async fn phases_come_at_their_times() {
        let (sender, drain) = Drain::new();
        let start = Instant::now();
        assert!(drain.is_ready());
        assert!(!drain.is_closing());
        let closed_at = async {
            drain.closing().await;
            assert!(drain.is_closing());
            start.elapsed()
        };
        let ended_at = async {
            phases(&sender, &CONFIG, pending()).await;
            start.elapsed()
        };
        let (closed_at, ended_at) = tokio::join!(closed_at, ended_at);
        assert_eq!((closed_at.as_secs(), ended_at.as_secs()), (5, 35));
        assert!(!drain.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_gateway_ends_early() {
        let (sender, _drain) = Drain::new();
        let start = Instant::now();
        phases(&sender, &CONFIG, async {}).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
