//! The process: binds, starts one worker per core, and waits for the end.
//!
//! Workers share nothing on the request path. This thread runs what there is one of: health checks,
//! the admin listener, signals.

pub(crate) mod executor;
pub(crate) mod worker;

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
    let services = shared_services(&config);
    let metrics = Arc::new(metrics(&config, &services, count));
    let listeners = bind(&config, count)?;
    let writer = Writer::start(&config.access_log, Arc::clone(&metrics.log_lines_dropped))
        .context("cannot open the access log")?;
    let (phase, drain) = Drain::new();
    let (ended, mut endings) = mpsc::unbounded_channel();

    let services = Arc::new(services);
    let connections = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    for (index, listeners) in listeners.into_iter().enumerate() {
        let seed = Seed {
            index,
            config: Arc::clone(&config),
            services: Arc::clone(&services),
            metrics: Arc::clone(&metrics.shards[index]),
            access_log: writer.as_ref().map(Writer::worker_end),
            drain: drain.clone(),
            connections: Arc::clone(&connections),
            listeners,
        };
        threads.push(start_worker(seed, ended.clone())?);
    }
    drop(ended);

    let runtime = runtime()?;
    let outcome = LocalSet::new().block_on(&runtime, async {
        let checked: Vec<_> = services
            .iter()
            .map(|service| service.health.clone())
            .collect();
        health::start(&config.services, &checked);
        admin::start(config.admin.as_ref(), metrics, drain)?;
        let all_ended = async { while endings.recv().await.is_some() {} };
        drain::run(&phase, &config.drain, all_ended)
            .await
            .context("cannot wait for signals")
    });
    drop(phase);
    let outcome = join(threads).and(outcome);
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

type Thread = JoinHandle<anyhow::Result<()>>;

fn start_worker(seed: Seed, ended: mpsc::UnboundedSender<()>) -> anyhow::Result<Thread> {
    let name = format!("worker-{}", seed.index);
    let body = move || {
        // Held until the thread is done, whatever ends it.
        let _ended = ended;
        let runtime = runtime()?;
        LocalSet::new().block_on(&runtime, worker::run(seed))
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(body)
        .context("cannot start a worker thread")
}

fn join(threads: Vec<Thread>) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    for thread in threads {
        let ended = thread
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")));
        outcome = outcome.and(ended);
    }
    outcome
}
