//! A new configuration without losing a request or a connection.
//!
//! The file is loaded again at SIGHUP, at `weir-gateway reload`, or when it changes
//! (`server.watch`). It is applied whole or not at all: a file with any problem, an address that
//! cannot be bound or a certificate that cannot be loaded leaves everything as it is.
//!
//! Requests, streams and upgraded connections under way finish by the configuration they began
//! with. A listener whose address stays keeps its sockets; others are bound before anything
//! changes, and removed ones take the clients that wait in their queues. Rate limits that have
//! not changed keep their counts. What threads were made from needs a new process, and a file that
//! changes it is refused: `weir-gateway upgrade` applies it without losing a request either.
//!
//! Where neither the file nor one it refers to has changed, what was compiled is used again, but
//! put into force all the same; where only routes and services have, the other routes are taken
//! over as they are. Reading, checking and compiling happen beside the traffic, on a thread of
//! their own; workers are only given the result.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use crate::admin::set::Sockets;
use crate::admin::types::Reloaded;
use crate::config::{self, Config};
use crate::discovery::{self, Discovery, Found};
use crate::listen::Listener;
use crate::listen::set::Listeners;
use crate::server;
use crate::server::generation::Generation;
use crate::telemetry::metrics::Metrics;
use crate::upgrade::Inherited;
use crate::upstream::health::Checks;

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Configuration(#[from] config::Error),
    #[error("{0:#}")]
    Socket(anyhow::Error),
    #[error("{0} cannot be changed by a reload\n\nhint: `weir-gateway upgrade` applies it")]
    NeedsUpgrade(&'static str),
    #[error("the configuration could not be compiled: there is a fault in the gateway")]
    Internal,
}

impl Refused {
    /// Files the refused configuration refers to.
    fn sources(&self) -> &[PathBuf] {
        match self {
            Self::Configuration(error) => error.sources(),
            _ => &[],
        }
    }
}

/// Puts new generations into force.
pub(crate) struct Reloader {
    /// The configuration file.
    pub(crate) source: PathBuf,
    /// Files that a refused configuration refers to: one of them may make it valid.
    pub(crate) hoped_for: Vec<PathBuf>,
    pub(crate) listeners: Rc<RefCell<Listeners>>,
    pub(crate) sockets: Rc<RefCell<Sockets>>,
    /// Takes each worker its new listeners.
    pub(crate) workers: Vec<mpsc::UnboundedSender<Listener>>,
    pub(crate) generations: watch::Sender<Arc<Generation>>,
    pub(crate) metrics: Arc<Metrics>,
    /// The health checks of the generation in force.
    pub(crate) checks: Checks,
    /// What looks for instances of the generation in force.
    pub(crate) discovery: Discovery,
    /// Generations that connections may still use.
    pub(crate) former: Vec<Arc<Generation>>,
}

impl Reloader {
    /// Loads the file and puts it into force.
    pub(crate) async fn reload(&mut self) -> Result<Reloaded, Refused> {
        let outcome = self.load_and_apply().await;
        self.hoped_for = match &outcome {
            Ok(_) => Vec::new(),
            Err(refused) => refused.sources().to_owned(),
        };
        self.bury();
        outcome
    }

    async fn load_and_apply(&mut self) -> Result<Reloaded, Refused> {
        let started = Instant::now();
        let current = Arc::clone(&self.generations.borrow());
        let next = self.load(&current).await?;
        let found = discovery::first(&next.services).await;
        let next = next.with_found(found).map_or(next, Arc::new);
        let compiled = Instant::now();

        let config = &next.config;
        let none = &mut Inherited::default();
        let listeners = self.listeners.borrow().prepare(&config.listeners, none);
        let listeners = listeners.map_err(Refused::Socket)?;
        let sockets = self.sockets.borrow().prepare(config.admin.as_ref(), none);
        let sockets = sockets.map_err(Refused::Socket)?;

        // From here on nothing can fail.
        self.checks.follow(&next.services);
        self.discovery.follow(&next.services);
        self.metrics.configured.store(Arc::clone(&next.metrics));
        self.generations.send_replace(Arc::clone(&next));
        next.followed_by(self.workers.len()).await;
        let effect = compiled.elapsed();
        // Only now: a new listener must find the routes that were made for it.
        server::give(&self.workers, self.listeners.borrow_mut().commit(listeners));
        self.sockets.borrow_mut().commit(sockets);
        self.former.push(current);
        Ok(Reloaded {
            routes: config.routes.rules().len(),
            services: config.services.len(),
            load_us: (compiled - started).as_micros() as u64,
            effect_us: effect.as_micros() as u64,
        })
    }

    /// Puts other instances of a service into force, if they are news.
    pub(crate) async fn found(&mut self, found: Found) {
        let current = Arc::clone(&self.generations.borrow());
        let Some(next) = current.with_found(vec![found]).map(Arc::new) else {
            return;
        };
        self.checks.follow(&next.services);
        self.metrics.configured.store(Arc::clone(&next.metrics));
        self.generations.send_replace(Arc::clone(&next));
        self.former.push(current);
    }

    /// Reads, checks and compiles the file on a thread of its own.
    async fn load(&self, current: &Arc<Generation>) -> Result<Arc<Generation>, Refused> {
        let (source, current) = (self.source.clone(), Arc::clone(current));
        let workers = self.workers.len();
        let load = move || {
            let next = match config::reload(&source, &current.config)? {
                Some(config) => {
                    upgrade_free(&current.config, &config)?;
                    Generation::new(config, workers, Some(&current))
                }
                None => current.again(),
            };
            Ok(Arc::new(next))
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        loaded.unwrap_or(Err(Refused::Internal))
    }

    /// Takes apart former generations that nobody uses any more. A worker that let go of the last
    /// hold on thousands of routes would keep its clients waiting meanwhile.
    pub(crate) fn bury(&mut self) {
        let former = std::mem::take(&mut self.former);
        let (unused, used) = former
            .into_iter()
            .partition(|former| Arc::strong_count(former) == 1);
        self.former = used;
        let unused: Vec<Arc<Generation>> = unused;
        if !unused.is_empty() {
            tokio::task::spawn_blocking(|| drop(unused));
        }
    }

    /// Every file that may change what is in force, or make valid what was refused.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let generation = self.generations.borrow();
        let sources = generation.config.fingerprint.sources();
        let others = self.hoped_for.iter().chain([&self.source]);
        let files = sources.map(Path::to_owned).chain(others.cloned());
        files.collect()
    }

    /// Whether what is in force is still what the files say.
    pub(crate) fn is_current(&self) -> bool {
        config::is_current(&self.source, &self.generations.borrow().config)
    }

    /// Whether files are to be watched.
    pub(crate) fn watches(&self) -> bool {
        self.generations.borrow().config.watch
    }
}

/// Refuses what a running process cannot take on.
fn upgrade_free(old: &Config, new: &Config) -> Result<(), Refused> {
    let fixed = [("`server.workers`", old.workers == new.workers)];
    match fixed.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(Refused::NeedsUpgrade(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "[listeners.public]\nbind = \"127.0.0.1:8080\"\n\
        [services.app]\nendpoints = [\"127.0.0.1:9000\"]\n\
        [routes.all]\nmatch = {}\nservice = \"app\"\n";

    fn refused(text: &str) -> Option<String> {
        let parse = |text: &str| Config::parse(text, Path::new("")).unwrap();
        upgrade_free(&parse(BASE), &parse(text))
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn what_needs_another_process_is_refused_by_name() {
        let table = [("`server.workers`", format!("[server]\nworkers = 3\n{BASE}"))];
        for (what, text) in table {
            let reason = refused(&text).expect(what);
            assert!(reason.starts_with(what), "{reason}");
        }
    }

    #[test]
    fn everything_else_needs_none() {
        let table = [
            BASE.replace(":9000", ":9001"),
            BASE.replace("[routes.all]", "[routes.every]"),
            BASE.replace(":8080", ":8081"),
            BASE.replace("public", "other"),
            format!("[server]\nheaders_max = 50\n{BASE}"),
            format!("[admin]\nbind = \"127.0.0.1:1\"\n{BASE}"),
            format!("[drain]\ndelay = \"1s\"\n{BASE}"),
            format!("[access_log]\nto = \"off\"\n{BASE}"),
        ];
        for text in table {
            assert_eq!(refused(&text), None, "{text}");
        }
    }
}
