//! The process: binds, starts one worker per core, and waits for the end.
//!
//! Workers share nothing on the request path. This thread runs what there is one of: health checks,
//! the admin listener, signals.

pub(crate) mod executor;
pub(crate) mod worker;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use self::worker::Seed;
use crate::admin;
use crate::config::Config;
use crate::drain::{self, Drain};
use crate::listen::{Listener, tcp, tls};
use crate::telemetry::access_log::Writer;
use crate::telemetry::log;
use crate::telemetry::metrics::{Metrics, RouteLabels, ServiceLabels, Shard};
use crate::upstream::cluster::SharedService;
use crate::upstream::health;

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
///
/// Fails before anything is served if an address cannot be bound, a certificate cannot be loaded
/// or the access log cannot be opened; later only if a worker ends by itself.
pub fn run(config: Config) -> anyhow::Result<()> {
    log::start();
    let config = Arc::new(config);
    let count = config.workers.unwrap_or_else(cores).max(1);
    let services = Arc::new(shared_services(&config));
    let metrics = Arc::new(metrics(&config, &services, count));
    let listeners = bind(&config, count)?;
    let writer = Writer::start(&config.access_log, Arc::clone(&metrics.log_lines_dropped))
        .context("cannot open the access log")?;
    let (phase, drain) = Drain::new();

    let connections = Arc::new(AtomicUsize::new(0));
    let seed = |(index, listeners)| Seed {
        index,
        config: Arc::clone(&config),
        services: Arc::clone(&services),
        metrics: Arc::clone(&metrics.shards[index]),
        access_log: writer.as_ref().map(Writer::worker_end),
        drain: drain.clone(),
        connections: Arc::clone(&connections),
        listeners,
    };
    let mut workers = Workers::start(listeners.into_iter().enumerate().map(seed))?;

    let outcome = LocalSet::new().block_on(&runtime()?, async {
        health::start(&config.services, &services);
        admin::start(config.admin.as_ref(), Arc::clone(&metrics), drain.clone())?;
        let Workers { ended, failures, .. } = &mut workers;
        tokio::select! {
            drained = drain::run(&phase, &config.drain, async { while ended.recv().await.is_some() {} }) => {
                drained.context("cannot wait for signals")
            }
            // One worker less would mean silently serving a part of the clients.
            _ = failures.recv() => Ok(()),
        }
    });
    drop(phase);
    let outcome = workers.join().and(outcome);
    if let Some(writer) = writer {
        writer.finish();
    }
    tracing::info!("stopped");
    outcome
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

fn shared_services(config: &Config) -> Vec<SharedService> {
    let epoch = Instant::now();
    config
        .services
        .iter()
        .map(|service| SharedService::new(service, epoch))
        .collect()
}

fn metrics(config: &Config, services: &[SharedService], workers: usize) -> Metrics {
    let addresses = |service: usize| -> Vec<String> {
        config.services[service]
            .endpoints
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let routes: Vec<RouteLabels> = worker::routes(&config.routes)
        .into_iter()
        .map(|route| RouteLabels {
            route: route.name.to_string(),
            service: config.services[route.service].name.clone(),
            instances: addresses(route.service),
        })
        .collect();
    let services = services
        .iter()
        .enumerate()
        .map(|(index, service)| ServiceLabels {
            service: config.services[index].name.clone(),
            instances: addresses(index)
                .into_iter()
                .zip(service.health.iter().cloned())
                .collect(),
        });
    let services = services.collect();
    let shards = (0..workers)
        .map(|_| Arc::new(Shard::new(&routes)))
        .collect();
    Metrics {
        routes,
        services,
        tokens: config.tokens.clone(),
        rate_limits: config.rate_limits.clone(),
        shards,
        log_lines_dropped: Arc::default(),
    }
}

/// Binds every listener once per worker; the result has one list per worker.
fn bind(config: &Config, workers: usize) -> anyhow::Result<Vec<Vec<Listener>>> {
    let mut by_worker: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
    for listener in &config.listeners {
        let (name, address) = (&listener.name, listener.bind);
        let tls = listener.tls.as_ref().map(tls::acceptor).transpose();
        let tls = tls.with_context(|| format!("listener {name}"))?;
        let sockets = tcp::bind(address, workers)
            .with_context(|| format!("listener {name} cannot bind {address}"))?;
        let address = sockets[0].local_addr().unwrap_or(address);
        tracing::info!(listener = %name, %address, tls = tls.is_some(), "listening");
        let shared = Arc::new(listener.clone());
        for (listeners, socket) in by_worker.iter_mut().zip(sockets) {
            let config = Arc::clone(&shared);
            listeners.push(Listener {
                config,
                socket,
                tls: tls.clone(),
            });
        }
    }
    Ok(by_worker)
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
