//! A new configuration without losing a request or a connection.
//!
//! SIGHUP loads the file again. It is applied whole or not at all: a file with any problem leaves
//! everything as it is. Requests under way finish by the configuration they began with. Rate
//! limits that have not changed keep their counts. What sockets and threads were made from needs a
//! restart, and a file that changes it is refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{self, Config};
use crate::listen::sni::{Certificates, Resolver};
use crate::listen::tls;
use crate::server::generation::Generation;
use crate::telemetry::metrics::Metrics;
use crate::upstream::health;

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Configuration(#[from] config::Error),
    #[error("a certificate cannot be loaded: {0:#}")]
    Certificate(anyhow::Error),
    #[error("{0} cannot be changed by a reload; restart to apply it")]
    NeedsRestart(&'static str),
}

/// Puts new generations into force.
pub(crate) struct Reloader {
    /// The configuration file.
    pub(crate) source: PathBuf,
    /// One per listener.
    pub(crate) resolvers: Vec<Option<Arc<Resolver>>>,
    pub(crate) generations: watch::Sender<Arc<Generation>>,
    pub(crate) metrics: Arc<Metrics>,
    /// The health checks of the generation in force.
    pub(crate) checks: JoinSet<()>,
}

impl Reloader {
    /// Reloads at every SIGHUP, forever.
    pub(crate) async fn run(mut self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            let outcome = self.reload();
            let reloads = &self.metrics.reloads;
            match outcome {
                Ok(next) => {
                    next.followed_by(self.metrics.shards.len()).await;
                    reloads.applied.fetch_add(1, Ordering::Relaxed);
                    tracing::info!("configuration reloaded");
                }
                Err(refused) => {
                    reloads.refused.fetch_add(1, Ordering::Relaxed);
                    tracing::error!("configuration not reloaded, nothing has changed: {refused}");
                }
            }
        }
    }

    fn reload(&mut self) -> Result<Arc<Generation>, Refused> {
        let current = Arc::clone(&self.generations.borrow());
        let config = config::reload(&self.source, &current.config)?;
        restart_free(&current.config, &config)?;
        let certificates = certificates(&config)?;

        // From here on nothing can fail.
        for (resolver, certificates) in self.resolvers.iter().zip(certificates) {
            if let (Some(resolver), Some(certificates)) = (resolver, certificates) {
                resolver.replace(certificates);
            }
        }
        let workers = self.metrics.shards.len();
        let next = Arc::new(Generation::new(config, workers, Some(&current)));
        self.checks = health::start(&next.config.services, &next.services);
        self.metrics.configured.store(Arc::clone(&next.metrics));
        self.generations.send_replace(Arc::clone(&next));
        Ok(next)
    }
}

fn certificates(config: &Config) -> Result<Vec<Option<Certificates>>, Refused> {
    let load = |tls| tls::certificates(tls).map_err(Refused::Certificate);
    config
        .listeners
        .iter()
        .map(|listener| listener.tls.as_ref().map(load).transpose())
        .collect()
}

/// Refuses what a running process cannot take on.
fn restart_free(old: &Config, new: &Config) -> Result<(), Refused> {
    let listeners = |config: &Config| -> Vec<_> {
        let shape = |listener: &config::ListenerConfig| {
            let proxies = listener.trusted_proxies.clone();
            (
                listener.name.clone(),
                listener.bind,
                listener.tls.is_some(),
                proxies,
            )
        };
        config.listeners.iter().map(shape).collect()
    };
    let admin = |config: &Config| config.admin.as_ref().map(|admin| admin.bind);
    let fixed = [
        (
            "`listeners` (other than certificates)",
            listeners(old) == listeners(new),
        ),
        ("`admin`", admin(old) == admin(new)),
        ("`access_log`", old.access_log == new.access_log),
        ("`drain`", old.drain == new.drain),
        ("`server.workers`", old.workers == new.workers),
    ];
    match fixed.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(Refused::NeedsRestart(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BASE: &str = "[listeners.public]\nbind = \"127.0.0.1:8080\"\n\
        [services.app]\nendpoints = [\"127.0.0.1:9000\"]\n\
        [routes.all]\nmatch = {}\nservice = \"app\"\n";

    fn refused(change: impl Fn(&str) -> String) -> Option<String> {
        let parse = |text: &str| Config::parse(text, Path::new("")).unwrap();
        restart_free(&parse(BASE), &parse(&change(BASE)))
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn what_needs_a_restart_is_refused_by_name() {
        let table = [
            ("`listeners`", BASE.replace(":8080", ":8081")),
            ("`listeners`", BASE.replace("public", "other")),
            (
                "`admin`",
                format!("[admin]\nbind = \"127.0.0.1:1\"\n{BASE}"),
            ),
            (
                "`access_log`",
                format!("[access_log]\nto = \"off\"\n{BASE}"),
            ),
            ("`drain`", format!("[drain]\ndelay = \"1s\"\n{BASE}")),
            ("`server.workers`", format!("[server]\nworkers = 3\n{BASE}")),
        ];
        for (what, text) in table {
            let reason = refused(|_| text.clone()).expect(what);
            assert!(reason.starts_with(what), "{reason}");
        }
    }

    #[test]
    fn routes_services_and_limits_need_none() {
        assert_eq!(refused(|base| base.replace(":9000", ":9001")), None);
        assert_eq!(
            refused(|base| base.replace("[routes.all]", "[routes.every]")),
            None
        );
        assert_eq!(
            refused(|base| format!("[server]\nheaders_max = 50\n{base}")),
            None
        );
    }
}
