//! The agent: one task that owns the data plane, and the order in which everything happens.
//!
//! Start, shown once (`start`): control socket → runtime changes → routes and neighbours → maps and
//! program (made or adopted) → plan and apply → attach → health checks → serve. Packets are taken in
//! last, when there is somebody to give them to.
//!
//! Then the loop in `Agent::serve`: whatever happens (a probe's verdict, a new MAC address, a request,
//! SIGHUP, a deadline) changes what is wanted, and what is wanted is published (`publish`).
//!
//! SIGTERM ends the agent and nothing else: the program stays attached and the maps stay pinned, so
//! packets flow on with the last good state, and the next agent takes over. `weir detach` removes them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time;
use tracing::{error, info};

use crate::api::server::{self, Asked, BindError, Call, ControlSocket, Reply};
use crate::api::types::Detached;
use crate::config::{Config, SecretError};
use crate::control::plan;
use crate::control::published::Published;
use crate::control::runtime::{Effective, Runtime};
use crate::control::state::{self, Healths};
use crate::dataplane::{self, Attached, Dataplane};
use crate::metrics::Meters;
use crate::shutdown::{Signal, Signals};
use crate::{health, net};

mod answer;
mod publish;
mod start;
mod view;

/// Health events that may wait while the agent is busy; probes pause then.
const EVENTS_WAITING_MAX: usize = 1024;

/// Requests that may wait while the agent is busy.
const CALLS_WAITING_MAX: usize = 64;

/// After a failed publish, the next try comes after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why the agent could not start or go on.
#[derive(Debug, Error)]
pub enum Error {
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// The data plane.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
    /// The kernel's network state.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// What is configured does not fit.
    #[error(transparent)]
    Refused(#[from] plan::Refused),
    /// The hash secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The file of runtime changes.
    #[error("cannot {verb} the runtime changes in {path}")]
    Runtime {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The metrics endpoint.
    #[error("cannot serve metrics at {address}")]
    Metrics {
        /// As configured.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals, descriptors: the system refused something basic.
    #[error("the system refused")]
    System(#[from] io::Error),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Dataplane(error) => return error.hint(),
            Self::Socket(BindError::InUse(_)) => {
                "stop the other agent, or give this one its own agent.socket"
            }
            Self::Socket(BindError::NotSocket(_)) => "remove that file, or set agent.socket",
            Self::Socket(BindError::Io { .. }) => "agent.socket must lie in a writable directory",
            Self::Net(_) => "the agent reads routes and neighbours by netlink, as `ip route` does",
            Self::Refused(_) => {
                "raise agent.limits (with `weir detach` before the next start), or configure less"
            }
            Self::Runtime { .. } => {
                "the file keeps what `weir backend` changed; remove it to go back to the configuration"
            }
            Self::Metrics { .. } => "set agent.metrics to a free address of this host",
            Self::Secret(_) | Self::System(_) => return None,
        })
    }
}

/// Runs the agent for the configuration `config`, which came from `file`, until SIGTERM, SIGINT or
/// `weir detach`. `socket` goes before what any version of the file says. Needs a Tokio runtime, and is
/// content with a single thread.
///
/// # Errors
///
/// When it cannot start. What was attached and pinned before is as it was, then.
pub async fn run(file: &Path, mut config: Config, socket: Option<PathBuf>) -> Result<(), Error> {
    if let Some(socket) = &socket {
        config.agent.socket.clone_from(socket);
    }
    let signals = Signals::new()?;
    let control = ControlSocket::bind(&config.agent.socket)?;
    let metrics = match config.agent.metrics {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .map_err(|source| Error::Metrics { address, source })?,
        ),
        None => None,
    };
    let (mut agent, events) = start::start(file, config).await?;
    agent.socket = socket;
    let (calls, asked) = mpsc::channel(CALLS_WAITING_MAX);
    let mut tasks = vec![Task(tokio::spawn(control.serve(calls.clone())))];
    if let Some(listener) = metrics {
        tasks.push(Task(tokio::spawn(server::serve_metrics(listener, calls))));
    }
    match agent.serve(signals, events, asked).await {
        (_, End::Stopped) => info!("stopped; packets flow on"),
        (agent, End::Detach(reply)) => {
            let reply = reply.send(detach(agent.dataplane));
            // Gives the server the moment it takes to pass the answer on.
            time::sleep(Duration::from_millis(50)).await;
            if reply.is_err() {
                info!("detached; nobody waits for the answer");
            }
        }
    }
    drop(tasks);
    Ok(())
}

fn detach(dataplane: Dataplane) -> Reply {
    let interfaces = dataplane
        .remove()
        .map_err(|error| answer::dataplane_problem(&error))?;
    info!(?interfaces, "detached");
    answer::body(&Detached { interfaces })
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Everything the agent knows.
struct Agent {
    /// Where the configuration came from.
    file: PathBuf,
    /// The control socket, if the command line named one.
    socket: Option<PathBuf>,
    desired: Arc<Desired>,
    published: Published,
    dataplane: Dataplane,
    attached: Vec<Attached>,
    net: net::Watch,
    probes: health::Handle,
    meters: Meters,
    /// When to look whether slots that move may settle; `None` while all are settled.
    settle_at: Option<Instant>,
    /// Names of VIPs whose backends are all down, so that all are used.
    panics: BTreeSet<String>,
    /// A grace period under way, and what it will have followed.
    grace: Option<(publish::Flips, JoinHandle<()>)>,
    /// When to publish again although nothing has happened.
    retry_at: Option<Instant>,
    started: Instant,
    _kernel_log: Option<Task>,
}

/// What should be.
#[derive(Clone, Debug)]
struct Desired {
    /// The file.
    config: Config,
    /// What was changed since.
    runtime: Runtime,
    /// The two together.
    effective: Effective,
    /// What is known of the backends.
    healths: Healths,
}

impl Desired {
    /// Another configuration and other changes, with health as far as it still applies.
    fn with(&self, config: Config, runtime: &Runtime, published: &Published) -> Self {
        let (effective, runtime) = runtime.over(&config);
        let mut healths = self.healths.clone();
        healths.follow(&effective.config, published);
        Self {
            config,
            runtime,
            effective,
            healths,
        }
    }
}

/// How the loop ended.
enum End {
    Stopped,
    Detach(oneshot::Sender<Reply>),
}

impl Agent {
    /// The loop. Everything that changes the data plane passes through here, one at a time.
    async fn serve(
        mut self,
        mut signals: Signals,
        mut events: mpsc::Receiver<health::Event>,
        mut asked: mpsc::Receiver<Asked>,
    ) -> (Self, End) {
        loop {
            let deadline = self.deadline();
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => return (self, End::Stopped),
                    Signal::Reload => self.reload_by_signal(),
                },
                Some(event) = events.recv() => {
                    self.observe(event, &mut events);
                    self.publish_or_retry("health");
                }
                changed = self.net.ways.changed() => match changed {
                    Ok(()) => {
                        self.attach_again();
                        self.publish_or_retry("next hops");
                    }
                    Err(_) => self.watch_again().await,
                },
                Some(Asked { call, reply }) = asked.recv() => {
                    if call == Call::Detach {
                        return (self, End::Detach(reply));
                    }
                    let answer = self.answer(call).await;
                    // Whoever asked may have gone.
                    let _ = reply.send(answer);
                }
                flips = Self::grace_passed(&mut self.grace) => {
                    self.published.grace_passed(flips.published);
                    self.dataplane.maps_mut().grace_passed(flips.vip_changes);
                    self.publish_or_retry("cleaning up");
                }
                () = until(deadline) => self.publish_or_retry("time"),
            }
        }
    }

    /// Takes in an event and those that wait behind it: backends often fall together.
    fn observe(&mut self, first: health::Event, events: &mut mpsc::Receiver<health::Event>) {
        let mut next = Some(first);
        while let Some(event) = next {
            let health::Event {
                vip,
                backend,
                healthy,
                confirmed,
                reason,
                ..
            } = event;
            let name = (vip, backend);
            let healths = &mut Arc::make_mut(&mut self.desired).healths;
            if healths.observe(&name, healthy, confirmed, reason.clone()) {
                let (vip, backend) = name;
                info!(vip, backend, healthy, confirmed, reason, "health");
                self.meters.health_transitions.inc();
            }
            next = events.try_recv().ok();
        }
    }

    /// Netlink has gone away under us. Packets flow by what was known; without news it grows old.
    async fn watch_again(&mut self) {
        error!("the connection to the kernel's network state broke; making another");
        time::sleep(RETRY_AFTER).await;
        match net::start(state::addresses(&self.desired.effective)).await {
            Ok(net) => {
                self.net = net;
                self.publish_or_retry("next hops");
            }
            Err(error) => error!(%error, "cannot watch the kernel's network state"),
        }
    }

    fn reload_by_signal(&mut self) {
        match self.reload() {
            Ok(changes) => info!(changes = changes.len(), "configuration reloaded"),
            Err(problem) => error!("reload refused, nothing has changed: {}", problem.detail),
        }
    }

    /// When something has to be published although nothing happens.
    fn deadline(&self) -> Option<Instant> {
        self.settle_at.into_iter().chain(self.retry_at).min()
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
