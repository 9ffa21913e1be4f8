//! The process: binds, starts one worker per core, and waits for the end.
//!
//! Workers share nothing on the request path. This thread runs what there is one of: health checks,
//! the sockets for operators, signals, and the [`keeper`], which changes the process while it runs.

mod busy_poll;
pub(crate) mod connections;
pub(crate) mod executor;
pub(crate) mod generation;
pub(crate) mod keeper;
pub(crate) mod plane;
pub(crate) mod timers;
mod trim;
pub(crate) mod worker;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, bail};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, watch};

use self::connections::Connections;
use self::generation::Generation;
use self::keeper::{Command, Keeper, Overview};
use self::worker::Seed;
use crate::admin::Admin;
use crate::admin::api::Api;
use crate::admin::set::Sockets;
use crate::config::Config;
use crate::discovery::{self, Discovery};
use crate::drain::{self, Drain, End, Phase};
use crate::listen::Listener;
use crate::listen::set::{self, Listeners};
use crate::notify;
use crate::overload::descriptors;
use crate::overload::pressure::{Pressure, watch_memory};
use crate::reload::Reloader;
use crate::signals::{Signals, Wish};
use crate::telemetry::access_log::Writers;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::upgrade::{Handover, Inherited, Program};
use crate::upstream::health::Checks;

/// Serves until SIGTERM or SIGINT, or until another process takes over, then drains. SIGHUP loads
/// `source` again, SIGUSR1 opens the access logs again, SIGUSR2 hands over to the binary that stands in the place of this one. With
/// `handover`, an old process's sockets are taken over.
///
/// # Errors
///
/// Fails before anything is served if an address cannot be bound, a certificate cannot be loaded
/// or the access log cannot be opened; later only if a worker ends by itself.
pub fn run(config: Config, source: &Path, handover: Option<&Handover>) -> anyhow::Result<()> {
    log::start();
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let mut prepared = Prepared::new(config, source, handover)?;
        prepared.discover().await;
        if let Some(handover) = handover {
            handover.recall(&prepared.generation.services);
        }
        prepared.serve(handover).await
    });
    // A reload that is still reading need not finish.
    runtime.shutdown_background();
    let outcome = outcome.and_then(Served::finish);
    tracing::info!("stopped");
    outcome
}

/// Everything that can fail before anything is served.
struct Prepared {
    source: PathBuf,
    signals: Signals,
    program: Program,
    generation: Arc<Generation>,
    metrics: Arc<Metrics>,
    writers: Arc<Writers>,
    pressure: Arc<Pressure>,
    listeners: Listeners,
    bound: set::Prepared,
    inherited: Inherited,
}

impl Prepared {
    fn new(config: Config, source: &Path, handover: Option<&Handover>) -> anyhow::Result<Self> {
        let signals = Signals::handle().context("cannot handle signals")?;
        let program = Program::running(source).context("cannot find this program")?;
        let count = config.workers.unwrap_or_else(cores).max(1);
        let mut inherited = handover.map(Handover::inherited).unwrap_or_default();
        let listeners = Listeners::new(count);
        let bound = listeners.prepare(&config.listeners, &mut inherited)?;
        let generation = Arc::new(Generation::new(config, count, None));
        let metrics = Arc::new(Metrics::new(count, Arc::clone(&generation.metrics)));
        let writers = Arc::new(Writers::open(&generation.config.access_logs)?);
        metrics.register(Arc::clone(&writers) as _);
        let pressure = Arc::new(Pressure::new(count, descriptors::raise_limit()));
        metrics.watch(Arc::clone(&pressure));
        Ok(Self {
            source: source.to_owned(),
            signals,
            program,
            generation,
            metrics,
            writers,
            pressure,
            listeners,
            bound,
            inherited,
        })
    }

    /// Looks for the first instances of services that do not list them.
    async fn discover(&mut self) {
        let found = discovery::first(&self.generation.services).await;
        if let Some(generation) = self.generation.with_found(found) {
            self.generation = Arc::new(generation);
            let metrics = Arc::clone(&self.generation.metrics);
            self.metrics.configured.store(metrics);
        }
    }

    /// Starts everything, and returns when nothing is left to be served.
    async fn serve(mut self, handover: Option<&Handover>) -> anyhow::Result<Served> {
        let (commands, received) = mpsc::unbounded_channel();
        let (ending, ends) = mpsc::unbounded_channel();
        let (phase, drain) = Drain::new();
        let (generations, current) = watch::channel(Arc::clone(&self.generation));
        let listeners = Rc::new(RefCell::new(self.listeners));
        let overview = Rc::new(Overview {
            started: Instant::now(),
            source: self.source.clone(),
            generations: current.clone(),
            listeners: Rc::clone(&listeners),
            metrics: Arc::clone(&self.metrics),
            drain: drain.clone(),
            history: RefCell::default(),
            successor: Cell::new(None),
        });
        let api = Api {
            overview: Rc::clone(&overview),
            commands: commands.clone(),
            ends: ending.clone(),
            writers: Arc::clone(&self.writers),
        };
        let admin = Admin::new(Arc::clone(&self.metrics), drain.clone(), api);
        let mut sockets = Sockets::new(Rc::clone(&admin));
        let operators = self.generation.config.admin.as_ref();
        let for_operators = sockets.prepare(operators, &mut self.inherited)?;
        drop(self.inherited);

        let shared = ForWorkers {
            generations: &generations,
            metrics: &self.metrics,
            writers: &self.writers,
            pressure: &self.pressure,
            drain: &drain,
        };
        let (mut workers, senders) = shared.start()?;
        give(&senders, listeners.borrow_mut().commit(self.bound));
        sockets.commit(for_operators);
        workers.started(&self.generation).await?;
        announce(handover, sockets.has_control(), &self.generation)?;

        let (checks, discovery) = looking_after(&self.generation, commands.clone());
        let sockets = Rc::new(RefCell::new(sockets));
        let keeper = Keeper {
            reloader: Reloader {
                source: self.source,
                hoped_for: Vec::new(),
                listeners: Rc::clone(&listeners),
                sockets: Rc::clone(&sockets),
                workers: senders,
                generations,
                metrics: self.metrics,
                checks,
                discovery,
                former: Vec::new(),
            },
            program: self.program,
            overview,
            ends: ending.clone(),
        };
        tokio::task::spawn_local(keeper.run(received));
        tokio::task::spawn_local(trim::run());
        let writers = Arc::clone(&self.writers);
        tokio::task::spawn_local(pass_on(self.signals, commands, ending, writers));
        let outcome = supervise(&phase, &current, ends, &listeners, &mut workers).await;
        admin.idle().await;
        let writers = self.writers;
        Ok(Served::new(outcome, workers, writers))
    }
}

/// Begins to check instances and to look for others.
fn looking_after(
    generation: &Generation,
    commands: mpsc::UnboundedSender<Command>,
) -> (Checks, Discovery) {
    let mut checks = Checks::default();
    checks.follow(&generation.services);
    // Nobody listens only when the process is ending anyway.
    let report = move |found| drop(commands.send(Command::Found(found)));
    let mut discovery = Discovery::new(Rc::new(report));
    discovery.follow(&generation.services);
    (checks, discovery)
}

/// What has to be waited for at the end.
struct Served {
    outcome: anyhow::Result<()>,
    workers: Workers,
    writers: Arc<Writers>,
}

impl Served {
    fn new(outcome: anyhow::Result<()>, workers: Workers, writers: Arc<Writers>) -> Self {
        Self {
            outcome,
            workers,
            writers,
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        let outcome = self.workers.join().and(self.outcome);
        self.writers.finish();
        outcome
    }
}

/// Tells the service manager, and the process whose sockets were taken over, that this one serves.
fn announce(
    handover: Option<&Handover>,
    control: bool,
    generation: &Generation,
) -> anyhow::Result<()> {
    if let Some(handover) = handover {
        handover.ready(control, &generation.services)?;
        tracing::info!(from = handover.pid(), "taken over");
    }
    notify::ready();
    Ok(())
}

/// Gives each worker its listeners. A worker that has ended takes the process with it, so it does
/// not matter whether it gets them.
pub(crate) fn give(workers: &[mpsc::UnboundedSender<Listener>], fresh: Vec<Vec<Listener>>) {
    for (worker, listeners) in workers.iter().zip(fresh) {
        for listener in listeners {
            let _ = worker.send(listener);
        }
    }
}

/// Turns signals into what they ask for.
async fn pass_on(
    mut signals: Signals,
    commands: mpsc::UnboundedSender<Command>,
    ends: mpsc::UnboundedSender<End>,
    writers: Arc<Writers>,
) {
    loop {
        // Nobody listens only when the process is ending anyway.
        match signals.next().await {
            Wish::End => drop(ends.send(End::Signal)),
            Wish::Reload => drop(commands.send(Command::Reload(None))),
            Wish::Reopen => _ = writers.reopen(),
            Wish::Upgrade => drop(commands.send(Command::Upgrade(None))),
        }
    }
}

/// Waits for the drain to end, or for a worker to fail: going on without it would mean silently
/// serving a part of the clients.
async fn supervise(
    phase: &watch::Sender<Phase>,
    current: &watch::Receiver<Arc<Generation>>,
    mut ends: mpsc::UnboundedReceiver<End>,
    listeners: &RefCell<Listeners>,
    workers: &mut Workers,
) -> anyhow::Result<()> {
    let Workers {
        ended, failures, ..
    } = workers;
    // Else a socket would stay open here after its worker has closed it.
    let release = || listeners.borrow_mut().release();
    let config = || current.borrow().config.drain.clone();
    let all_ended = async { while ended.recv().await.is_some() {} };
    tokio::select! {
        () = drain::run(phase, config, &mut ends, release, all_ended) => {}
        _ = failures.recv() => drop(phase.send_replace(Phase::Cut)),
    }
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A runtime for one thread.
///
/// Nothing on it ever moves to another thread, so nothing of it needs to be `Send`.
fn runtime() -> anyhow::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .on_thread_park(busy_poll::end_turn)
        .build_local(LocalOptions::default())
        .context("cannot start a runtime")
}

/// What every worker is given.
struct ForWorkers<'a> {
    generations: &'a watch::Sender<Arc<Generation>>,
    metrics: &'a Arc<Metrics>,
    writers: &'a Arc<Writers>,
    pressure: &'a Arc<Pressure>,
    drain: &'a Drain,
}

impl ForWorkers<'_> {
    /// Starts the workers, and gives what takes each of them its listeners.
    fn start(&self) -> anyhow::Result<(Workers, Vec<mpsc::UnboundedSender<Listener>>)> {
        let connections = Connections::new();
        let channels = self.metrics.shards.iter();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            channels.map(|_| mpsc::unbounded_channel()).unzip();
        let seed = |(index, listeners)| Seed {
            index,
            generations: self.generations.subscribe(),
            metrics: Arc::clone(&self.metrics.shards[index]),
            writers: Arc::clone(self.writers),
            drain: self.drain.clone(),
            connections: Arc::clone(&connections),
            pressure: Arc::clone(self.pressure),
            listeners,
        };
        let workers = Workers::start(receivers.into_iter().enumerate().map(seed))?;
        let counted = Arc::clone(self.metrics);
        let levels = move || counted.levels();
        let (pressure, current) = (Arc::clone(self.pressure), self.generations.subscribe());
        tokio::task::spawn_local(watch_memory(pressure, current, levels));
        Ok((workers, senders))
    }
}

/// The worker threads.
struct Workers {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    /// Says when a worker has failed.
    failures: mpsc::UnboundedReceiver<()>,
    /// Ends when all workers have.
    ended: mpsc::UnboundedReceiver<Infallible>,
}

impl Workers {
    fn start(seeds: impl Iterator<Item = Seed>) -> anyhow::Result<Self> {
        let (failed, failures) = mpsc::unbounded_channel();
        let (alive, ended) = mpsc::unbounded_channel();
        let threads = seeds.map(|seed| {
            let (failed, alive) = (failed.clone(), alive.clone());
            let name = format!("worker-{}", seed.index);
            let body = move || {
                // Held until the thread is done, whatever ends it.
                let _alive = alive;
                let served = runtime().and_then(|runtime| runtime.block_on(worker::run(seed)));
                if let Err(error) = &served {
                    tracing::error!(%error, "a worker has failed");
                    // Nobody listens only when the process is ending anyway.
                    let _ = failed.send(());
                }
                served
            };
            std::thread::Builder::new().name(name).spawn(body)
        });
        let threads = threads
            .collect::<Result<_, _>>()
            .context("cannot start a worker thread")?;
        Ok(Self {
            threads,
            failures,
            ended,
        })
    }

    /// Completes when every worker serves.
    async fn started(&mut self, generation: &Generation) -> anyhow::Result<()> {
        tokio::select! {
            () = generation.followed_by(self.threads.len()) => Ok(()),
            _ = self.failures.recv() => bail!("a worker cannot start"),
        }
    }

    fn join(self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for thread in self.threads {
            let panicked = |_| Err(anyhow::anyhow!("a worker panicked"));
            outcome = outcome.and(thread.join().unwrap_or_else(panicked));
        }
        outcome
    }
}
