//! The process: binds, starts one worker per core, and waits for the end.
//!
//! Workers share nothing on the request path. This thread runs what there is one of: health checks,
//! the admin listener, signals.

pub(crate) mod executor;
pub(crate) mod generation;
pub(crate) mod plane;
pub(crate) mod worker;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use self::generation::Generation;
use self::worker::Seed;
use crate::admin;
use crate::config::Config;
use crate::drain::{self, Drain, Phase};
use crate::listen::sni::Resolver;
use crate::listen::{Listener, tcp, tls};
use crate::overload::descriptors;
use crate::overload::pressure::{Pressure, watch_memory};
use crate::reload::Reloader;
use crate::signals::{End, Signals};
use crate::telemetry::access_log::Writer;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::upstream::health;

/// Serves until SIGTERM or SIGINT, then drains. SIGHUP loads `source` again.
///
/// # Errors
///
/// Fails before anything is served if an address cannot be bound, a certificate cannot be loaded
/// or the access log cannot be opened; later only if a worker ends by itself.
pub fn run(config: Config, source: &Path) -> anyhow::Result<()> {
    log::start();
    let runtime = runtime()?;
    let signals = {
        let _within = runtime.enter();
        Signals::handle().context("cannot handle signals")?
    };
    let count = config.workers.unwrap_or_else(cores).max(1);
    let Bound {
        listeners,
        resolvers,
    } = bind(&config, count)?;
    let generation = Arc::new(Generation::new(config, count, None));
    let config = &generation.config;
    let metrics = Arc::new(Metrics::new(count, Arc::clone(&generation.metrics)));
    let writer = Writer::start(&config.access_log, Arc::clone(&metrics.log_lines_dropped))
        .context("cannot open the access log")?;
    let pressure = Arc::new(Pressure::new(count, descriptors::raise_limit()));
    metrics.watch(Arc::clone(&pressure));
    let (phase, drain) = Drain::new();
    let (generations, _) = watch::channel(Arc::clone(&generation));

    let connections = Arc::new(AtomicUsize::new(0));
    let seed = |(index, listeners)| Seed {
        index,
        generations: generations.subscribe(),
        metrics: Arc::clone(&metrics.shards[index]),
        access_log: writer.as_ref().map(Writer::worker_end),
        drain: drain.clone(),
        connections: Arc::clone(&connections),
        pressure: Arc::clone(&pressure),
        listeners,
    };
    let watched = generations.subscribe();
    let mut workers = Workers::start(listeners.into_iter().enumerate().map(seed))?;

    let outcome = LocalSet::new().block_on(&runtime, async {
        let checks = health::start(&config.services, &generation.services);
        let counted = Arc::clone(&metrics);
        let in_flight = move || counted.requests_in_flight();
        tokio::task::spawn_local(watch_memory(pressure, watched, in_flight));
        admin::start(config.admin.as_ref(), Arc::clone(&metrics), drain.clone())?;
        let source = source.to_owned();
        let reloader = Reloader {
            source,
            resolvers,
            generations,
            metrics,
            checks,
        };
        tokio::task::spawn_local(reloader.run(signals.reload));
        supervise(&phase, config, signals.end, &mut workers).await
    });
    drop(phase);
    let outcome = workers.join().and(outcome);
    if let Some(writer) = writer {
        writer.finish();
    }
    tracing::info!("stopped");
    outcome
}

/// Waits for the drain to end, or for a worker to fail: going on without it would mean silently
/// serving a part of the clients.
async fn supervise(
    phase: &watch::Sender<Phase>,
    config: &Config,
    mut signals: End,
    workers: &mut Workers,
) -> anyhow::Result<()> {
    let Workers {
        ended, failures, ..
    } = workers;
    let all_ended = async { while ended.recv().await.is_some() {} };
    tokio::select! {
        () = drain::run(phase, &config.drain, &mut signals, all_ended) => Ok(()),
        _ = failures.recv() => Ok(()),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A runtime for one thread.
fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// What was bound.
struct Bound {
    /// One list per worker.
    listeners: Vec<Vec<Listener>>,
    /// One per listener; `None`: it has no TLS.
    resolvers: Vec<Option<Arc<Resolver>>>,
}

/// Binds every listener once per worker.
fn bind(config: &Config, workers: usize) -> anyhow::Result<Bound> {
    let mut listeners: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
    let mut resolvers = Vec::new();
    for listener in &config.listeners {
        let (name, address) = (&listener.name, listener.bind);
        let tls = listener.tls.as_ref().map(tls::prepare).transpose();
        let tls = tls.with_context(|| format!("listener {name}"))?;
        let sockets = tcp::bind(address, workers)
            .with_context(|| format!("listener {name} cannot bind {address}"))?;
        let address = sockets[0].local_addr().unwrap_or(address);
        tracing::info!(listener = %name, %address, tls = tls.is_some(), "listening");
        let shared = Arc::new(listener.clone());
        for (listeners, socket) in listeners.iter_mut().zip(sockets) {
            let config = Arc::clone(&shared);
            listeners.push(Listener {
                config,
                socket,
                tls: tls.clone(),
            });
        }
        resolvers.push(tls.map(|tls| tls.resolver));
    }
    Ok(Bound {
        listeners,
        resolvers,
    })
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
                let served = runtime()
                    .and_then(|runtime| LocalSet::new().block_on(&runtime, worker::run(seed)));
                if served.is_err() {
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

    fn join(self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for thread in self.threads {
            let panicked = |_| Err(anyhow::anyhow!("a worker panicked"));
            outcome = outcome.and(thread.join().unwrap_or_else(panicked));
        }
        outcome
    }
}
