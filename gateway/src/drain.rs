//! How the gateway ends without losing a request.
//!
//! SIGTERM, SIGINT or `weir-gateway drain`: readiness goes off, and for `drain.delay` everything
//! else stays as it is, so that balancers notice. Then listeners close, and HTTP/2 connections
//! announce their end (GOAWAY). An HTTP/1.1 connection ends with its next response, which says so
//! (`Connection: close`): to close an idle one could cross a request that is already on its way,
//! so this waits for `drain.idle_grace`. What is still open at `drain.deadline` is cut, WebSockets
//! above all. A second signal cuts at once.
//!
//! After a binary upgrade the old process ends the same way, but without the delay: the listeners
//! are in other hands, and the service is as ready as ever.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::config::DrainConfig;
use crate::notify;

/// How long the last bytes of cut connections may take to leave the process.
pub(crate) const CUT_GRACE: Duration = Duration::from_millis(100);

/// How far the end has come. The order of the variants is the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Ready for requests.
    Serving,
    /// Still serving, but asking not to be sent more.
    Unready,
    /// No new connections; those open end with their next response, HTTP/2 with a GOAWAY.
    Closing,
    /// Idle HTTP/1.1 connections are closed too.
    ClosingIdle,
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

    /// Completes when idle HTTP/1.1 connections are to be closed.
    pub(crate) fn closing_idle(&self) -> impl Future<Output = ()> + use<> {
        self.reaches(Phase::ClosingIdle)
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

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGTERM or SIGINT.
    Signal,
    /// An operator asked for it over the control socket.
    Asked,
    /// Another process has the listeners now.
    HandedOver,
}

/// Waits for a reason to end, then moves through the phases. Returns at the deadline, or when
/// `idle` completes after listeners have closed. `release` lets go of what would keep a listening
/// socket open; `config` is asked for once the end has begun.
pub(crate) async fn run(
    phase: &watch::Sender<Phase>,
    config: impl FnOnce() -> DrainConfig,
    ends: &mut mpsc::UnboundedReceiver<End>,
    release: impl FnOnce(),
    idle: impl Future<Output = ()>,
) {
    let end = ends.recv().await.unwrap_or(End::Asked);
    let config = config();
    tokio::select! {
        () = phases(phase, &config, end, release, idle) => {}
        () = impatience(end, ends) => tracing::warn!("second signal: closing at once"),
    }
    phase.send_replace(Phase::Cut);
}

/// Completes at the signal that cuts the drain short: the second one, or the first if an operator
/// began it. After a handover the first is meant for the service as a whole (systemd sends it to
/// every process of a unit): what is under way here still finishes.
async fn impatience(end: End, ends: &mut mpsc::UnboundedReceiver<End>) {
    let mut patience = usize::from(end == End::HandedOver);
    while let Some(next) = ends.recv().await {
        match (next, patience) {
            (End::Signal, 0) => return,
            (End::Signal, _) => patience -= 1,
            (End::Asked | End::HandedOver, _) => {}
        }
    }
    std::future::pending().await
}

async fn phases(
    phase: &watch::Sender<Phase>,
    config: &DrainConfig,
    end: End,
    release: impl FnOnce(),
    idle: impl Future<Output = ()>,
) {
    let DrainConfig {
        delay,
        idle_grace,
        deadline,
    } = config;
    if end != End::HandedOver {
        tracing::info!(?delay, "draining: not ready any more");
        notify::stopping();
        phase.send_replace(Phase::Unready);
        tokio::time::sleep(*delay).await;
    }
    tracing::info!(?deadline, "draining: closing connections");
    release();
    phase.send_replace(Phase::Closing);
    let grace = async {
        tokio::time::sleep(*idle_grace).await;
        phase.send_replace(Phase::ClosingIdle);
        std::future::pending().await
    };
    tokio::select! {
        ended = tokio::time::timeout(*deadline, idle) => if ended.is_err() {
            tracing::warn!("draining: deadline reached, cutting what is still open");
        },
        () = grace => {}
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    const CONFIG: DrainConfig = DrainConfig {
        delay: Duration::from_secs(5),
        idle_grace: Duration::from_secs(10),
        deadline: Duration::from_secs(30),
    };

    /// Seconds from the end's beginning until each phase that comes, and until the end.
    async fn times(end: End, idle_after: Option<u64>) -> (Vec<(Phase, u64)>, u64) {
        let (sender, drain) = Drain::new();
        let start = Instant::now();
        let seconds = || start.elapsed().as_secs();
        let phases = async {
            let idle = async {
                drain.closing().await;
                match idle_after {
                    Some(after) => tokio::time::sleep(Duration::from_secs(after)).await,
                    None => pending().await,
                }
            };
            phases(&sender, &CONFIG, end, || (), idle).await;
            seconds()
        };
        let mut seen = Vec::new();
        let mut receiver = drain.0.clone();
        let watched = async {
            while receiver.changed().await.is_ok() {
                seen.push((*receiver.borrow_and_update(), seconds()));
            }
        };
        let ended = tokio::select! {
            ended = phases => ended,
            () = watched => unreachable!("the sender lives"),
        };
        (seen, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn phases_come_at_their_times() {
        use Phase::{Closing, ClosingIdle, Unready};
        let table = [
            (
                (End::Signal, None),
                (vec![(Unready, 0), (Closing, 5), (ClosingIdle, 15)], 35),
            ),
            ((End::Asked, Some(0)), (vec![(Unready, 0)], 5)),
            (
                (End::Signal, Some(3)),
                (vec![(Unready, 0), (Closing, 5)], 8),
            ),
            (
                (End::HandedOver, Some(12)),
                (vec![(Closing, 0), (ClosingIdle, 10)], 12),
            ),
        ];
        for ((end, idle_after), expected) in table {
            let (mut seen, ended) = times(end, idle_after).await;
            // A gateway that is idle at once may end before anyone has seen it close.
            if idle_after == Some(0) {
                seen.truncate(1);
            }
            assert_eq!((seen, ended), expected, "{end:?} {idle_after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_signal_that_cuts_depends_on_what_began_the_end() {
        let table = [
            (End::Signal, vec![End::Signal], true),
            (End::Signal, vec![End::Asked], false),
            (End::Asked, vec![End::Signal], true),
            (End::HandedOver, vec![End::Signal], false),
            (End::HandedOver, vec![End::Signal, End::Signal], true),
        ];
        for (first, then, cut) in table {
            let (sender, mut ends) = mpsc::unbounded_channel();
            for end in &then {
                sender.send(*end).unwrap();
            }
            let wait = Duration::from_secs(3600);
            let ended = tokio::time::timeout(wait, impatience(first, &mut ends)).await;
            assert_eq!(ended.is_ok(), cut, "{first:?}, {then:?}");
        }
    }
}
