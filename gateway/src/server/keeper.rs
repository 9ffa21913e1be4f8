//! The one task that changes the process while it runs: it reloads, it hands over, one thing after
//! the other. Signals, the control socket and the watch on files give it its commands.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::generation::Generation;
use crate::admin::types::{self, Problem, Reason, Reloaded, Status, Upgraded};
use crate::discovery::Found;
use crate::drain::{Drain, End};
use crate::listen::set::Listeners;
use crate::notify;
use crate::reload::{Refused, Reloader};
use crate::telemetry::metrics::Metrics;
use crate::upgrade::{self, Giving, Kind, Known, Program};
use crate::watch::Watch;

/// Between looks for former generations that nobody uses any more.
const BURY_EVERY: Duration = Duration::from_secs(10);

/// Takes the answer to a command; `None`: nobody waits for it.
type Reply<T> = Option<oneshot::Sender<Result<T, Problem>>>;

/// What the keeper can be asked for.
pub(crate) enum Command {
    /// To load the configuration again.
    Reload(Reply<Reloaded>),
    /// To start the binary anew and hand over to it.
    Upgrade(Reply<Upgraded>),
    /// To hand over to the process at the other end.
    Give(UnixStream),
    /// To use other instances of a service.
    Found(Found),
}

/// What [`Status`] is told from.
pub(crate) struct Overview {
    pub(crate) started: Instant,
    pub(crate) source: PathBuf,
    pub(crate) generations: watch::Receiver<Arc<Generation>>,
    pub(crate) listeners: Rc<RefCell<Listeners>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
    pub(crate) history: RefCell<History>,
    /// The process that has taken over.
    pub(crate) successor: Cell<Option<u32>>,
}

/// What became of reloads.
pub(crate) struct History {
    loaded: Timestamp,
    reloads: u64,
    refused: Option<types::Refused>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            loaded: Timestamp::now(),
            reloads: 0,
            refused: None,
        }
    }
}

impl Overview {
    /// The process at a glance.
    pub(crate) fn status(&self) -> Status {
        let generation = Arc::clone(&self.generations.borrow());
        let history = self.history.borrow();
        let listeners = self.listeners.borrow();
        let listeners = listeners.described().map(|listener| types::Listener {
            name: listener.config.name.clone(),
            address: listener.address,
            tls: listener.config.tls.is_some(),
        });
        let levels = self.metrics.levels();
        let phase = match (self.drain.is_ready(), self.drain.is_closing()) {
            (_, true) => types::Phase::Draining,
            (false, false) => types::Phase::Unready,
            (true, false) => types::Phase::Serving,
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            phase,
            successor: self.successor.get(),
            uptime_seconds: self.started.elapsed().as_secs(),
            workers: self.metrics.shards.len(),
            configuration: types::Configuration {
                file: self.source.clone(),
                loaded: shown(history.loaded),
                reloads: history.reloads,
                routes: generation.config.routes.rules().len(),
                services: generation.config.services.len(),
                refused: history.refused.clone(),
            },
            listeners: listeners.collect(),
            connections_open: levels.connections,
            tunnels_open: levels.tunnels,
            requests_in_flight: levels.requests,
        }
    }

    fn note(&self, outcome: &Result<Reloaded, Refused>) {
        let mut history = self.history.borrow_mut();
        match outcome {
            Ok(_) => {
                history.loaded = Timestamp::now();
                history.reloads += 1;
                history.refused = None;
            }
            Err(refused) => {
                history.refused = Some(types::Refused {
                    at: shown(Timestamp::now()),
                    reason: refused.to_string(),
                });
            }
        }
    }
}

fn shown(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// Changes the process while it runs.
pub(crate) struct Keeper {
    pub(crate) reloader: Reloader,
    pub(crate) program: Program,
    pub(crate) overview: Rc<Overview>,
    pub(crate) ends: mpsc::UnboundedSender<End>,
}

impl Keeper {
    /// Does what it is told, for as long as anyone may tell it something.
    pub(crate) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut watch = match Watch::new() {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "files cannot be watched");
                None
            }
        };
        let mut bury = tokio::time::interval(BURY_EVERY);
        let mut looked = 0;
        loop {
            self.set_watch(watch.as_mut());
            // A file may have changed after it was read and before it was watched.
            let loads = self.overview.history.borrow().reloads + 1;
            let unseen = std::mem::replace(&mut looked, loads) != loads;
            if unseen && self.reloader.watches() && !self.reloader.is_current() {
                let _ = self.reload().await;
                continue;
            }
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                () = changed => {
                    tracing::info!("the configuration has changed");
                    // The log tells what came of it.
                    let _ = self.reload().await;
                }
                _ = bury.tick() => self.reloader.bury(),
            }
        }
    }

    fn set_watch(&self, watch: Option<&mut Watch>) {
        let files = match self.reloader.watches() {
            true => self.reloader.files(),
            false => Vec::new(),
        };
        if let Some(watch) = watch {
            watch.set(files.iter().map(PathBuf::as_path));
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Reload(reply) => answer(reply, self.reload().await),
            Command::Upgrade(reply) => answer(reply, self.upgrade().await),
            // The process at the other end is told what came of it.
            Command::Give(stream) => drop(self.hand_over(stream).await),
            Command::Found(found) => self.reloader.found(found).await,
        }
    }

    /// Refuses to change a process that is about to end.
    fn lives(&self) -> Result<(), Problem> {
        let reason = match self.overview.successor.get() {
            Some(pid) => format!("process {pid} has taken over"),
            None if !self.overview.drain.is_ready() => "the process is about to end".to_owned(),
            None => return Ok(()),
        };
        Err(Problem::new(Reason::Draining, reason))
    }

    async fn reload(&mut self) -> Result<Reloaded, Problem> {
        self.lives()?;
        notify::reloading();
        let outcome = self.reloader.reload().await;
        notify::ready();
        self.overview.note(&outcome);
        let reloads = &self.overview.metrics.reloads;
        match outcome {
            Ok(reloaded) => {
                reloads.applied();
                let Reloaded {
                    routes,
                    load_us,
                    effect_us,
                    ..
                } = reloaded;
                tracing::info!(routes, load_us, effect_us, "configuration reloaded");
                Ok(reloaded)
            }
            Err(refused) => {
                reloads.refused();
                tracing::error!("configuration not reloaded, nothing has changed: {refused}");
                let reason = Reason::RefusedConfiguration;
                Err(Problem::new(reason, refused.to_string()))
            }
        }
    }

    async fn upgrade(&self) -> Result<Upgraded, Problem> {
        self.lives()?;
        let failed = |error: anyhow::Error| {
            tracing::error!("not upgraded, this process goes on: {error:#}");
            Problem::new(Reason::UpgradeFailed, format!("{error:#}"))
        };
        let (spawned, stream) = self.program.spawn().map_err(failed)?;
        match self.hand_over(stream).await {
            Ok(upgraded) => Ok(upgraded),
            Err(problem) => {
                spawned.end().await;
                Err(problem)
            }
        }
    }

    async fn hand_over(&self, stream: UnixStream) -> Result<Upgraded, Problem> {
        self.lives()?;
        match self.try_hand_over(stream).await {
            Ok(upgraded) => {
                let Upgraded { pid, version } = &upgraded;
                tracing::info!(successor = pid, version, "handed over");
                Ok(upgraded)
            }
            Err(error) => {
                tracing::error!("not handed over, this process goes on: {error:#}");
                Err(Problem::new(Reason::UpgradeFailed, format!("{error:#}")))
            }
        }
    }

    async fn try_hand_over(&self, stream: UnixStream) -> anyhow::Result<Upgraded> {
        let mut given = upgrade::give(stream, self.sockets()?, self.known()).await?;
        // An end that was asked for meanwhile is meant for the service, not for one process of it.
        anyhow::ensure!(self.overview.drain.is_ready(), "this process was ended");
        given.confirm(&self.known()).await?;
        let mut sockets = self.reloader.sockets.borrow_mut();
        sockets.handed_over(given.control);
        self.overview.successor.set(Some(given.pid));
        notify::handed_over(given.pid);
        // If nobody listens, the process is ending already.
        let _ = self.ends.send(End::HandedOver);
        Ok(Upgraded {
            pid: given.pid,
            version: given.version,
        })
    }

    /// What is known of instances now.
    fn known(&self) -> Known {
        let generation = self.overview.generations.borrow();
        Known::of(&generation.services, Instant::now())
    }

    /// A hold on every listening socket, with what it is for.
    fn sockets(&self) -> io::Result<Giving> {
        let mut giving = Giving::new();
        for (listener, sockets) in self.reloader.listeners.borrow().sockets() {
            for socket in sockets {
                let kind = Kind::Listener {
                    name: listener.config.name.clone(),
                    bind: listener.config.bind,
                    ipv6_only: listener.config.ipv6_only,
                };
                giving.push((kind, OwnedFd::from(socket.try_clone()?)));
            }
        }
        self.reloader.sockets.borrow().give(&mut giving)?;
        Ok(giving)
    }
}

fn answer<T>(reply: Reply<T>, outcome: Result<T, Problem>) {
    if let Some(reply) = reply {
        // Whoever asked may have left.
        let _ = reply.send(outcome);
    }
}
