//! The listening sockets of the process: which there are, and how a reload changes them.
//!
//! Everything that can fail happens in [`Listeners::prepare`]; what it gives is put in force by
//! [`Listeners::commit`], which cannot. A listener whose address stays keeps its sockets, and with
//! them the clients that wait in their queues.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::sni::Certificates;
use super::tls::{self, Tls};
use super::{Listener, tcp};
use crate::config::ListenerConfig;
use crate::upgrade::Inherited;

/// What a listener does with the connections it accepts.
pub(crate) struct Settings {
    pub(crate) config: Arc<ListenerConfig>,
    pub(crate) tls: Option<Tls>,
}

/// One listener, as all workers share it.
pub(crate) struct Shared {
    /// Changed by a reload.
    pub(crate) settings: ArcSwap<Settings>,
    /// Set when a reload has removed it.
    removed: watch::Sender<bool>,
}

impl Shared {
    fn new(settings: Settings) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings),
            removed: watch::Sender::new(false),
        }
    }

    /// Completes when a reload has removed the listener.
    pub(super) async fn removed(&self) {
        // The sender lives as long as the value that is borrowed here.
        let _ = self.removed.subscribe().wait_for(|removed| *removed).await;
    }
}

/// A listener that is bound.
struct Open {
    /// Where it listens: what was configured, with the port that was found for port 0.
    address: SocketAddr,
    shared: Arc<Shared>,
    /// A second hold on each socket, for whoever takes them over.
    sockets: Vec<TcpListener>,
}

impl Open {
    /// Whether this listener is the one that `config` asks for, other settings aside.
    fn serves(&self, config: &ListenerConfig) -> bool {
        is_same(&self.shared.settings.load().config, config)
    }
}

/// Whether a listener made for one configuration can go on under another.
pub(crate) fn is_same(old: &ListenerConfig, new: &ListenerConfig) -> bool {
    let place = (old.bind, old.ipv6_only) == (new.bind, new.ipv6_only);
    // Each port 0 is a port of its own: there the name says which is which.
    place && (old.bind.port() != 0 || old.name == new.name)
}

/// All listeners of the process.
pub(crate) struct Listeners {
    workers: usize,
    open: Vec<Open>,
}

/// What is about to come into force.
pub(crate) struct Prepared(Vec<PreparedOne>);

struct PreparedOne {
    config: Arc<ListenerConfig>,
    tls: Option<PreparedTls>,
    sockets: Sockets,
}

enum PreparedTls {
    /// The listener has TLS already.
    Renewed(Tls, Certificates),
    New(Tls),
}

enum Sockets {
    /// The position among those that are open.
    Kept(usize),
    New(Vec<TcpListener>),
}

/// A listener as people see it.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) config: Arc<ListenerConfig>,
    pub(crate) address: SocketAddr,
}

impl Listeners {
    /// None yet; each will have a socket for each of `workers`.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            open: Vec::new(),
        }
    }

    /// Binds what is not bound yet, or `inherited`, and loads certificates. Changes nothing.
    pub(crate) fn prepare(
        &self,
        configs: &[ListenerConfig],
        inherited: &mut Inherited,
    ) -> anyhow::Result<Prepared> {
        let prepare = |config: &ListenerConfig| {
            self.prepare_one(config, inherited)
                .with_context(|| format!("listener {}", config.name))
        };
        let prepared: anyhow::Result<Vec<_>> = configs.iter().map(prepare).collect();
        Ok(Prepared(prepared?))
    }

    fn prepare_one(
        &self,
        config: &ListenerConfig,
        inherited: &mut Inherited,
    ) -> anyhow::Result<PreparedOne> {
        let kept = self.open.iter().position(|open| open.serves(config));
        let settings = kept.map(|index| self.open[index].shared.settings.load_full());
        let tls_before = settings.and_then(|settings| settings.tls.clone());
        let tls = match (&config.tls, tls_before) {
            (None, _) => None,
            (Some(tls), Some(before)) => {
                let certificates = tls::certificates(tls)?;
                Some(PreparedTls::Renewed(
                    tls::renewed(tls, before)?,
                    certificates,
                ))
            }
            (Some(tls), None) => Some(PreparedTls::New(tls::prepare(tls)?)),
        };
        let sockets = match kept {
            Some(index) => Sockets::Kept(index),
            None => Sockets::New(self.bind(config, inherited)?),
        };
        Ok(PreparedOne {
            config: Arc::new(config.clone()),
            tls,
            sockets,
        })
    }

    /// A socket for each worker at least; inherited ones are never closed, since clients may wait
    /// in their queues.
    fn bind(
        &self,
        config: &ListenerConfig,
        inherited: &mut Inherited,
    ) -> anyhow::Result<Vec<TcpListener>> {
        let cannot = || format!("cannot bind {}", config.bind);
        let mut sockets = inherited.listener(config);
        if sockets.is_empty() {
            return tcp::bind(config.bind, config.ipv6_only, self.workers).with_context(cannot);
        }
        let address = sockets[0].local_addr().with_context(cannot)?;
        for index in sockets.len()..self.workers {
            // A port that only root may bind is shared with a worker that has it already.
            let more = tcp::listen(address, config.ipv6_only);
            sockets.push(more.or_else(|_| sockets[index % sockets.len()].try_clone())?);
        }
        Ok(sockets)
    }

    /// Puts in force what was prepared, and gives each worker the listeners that are new to it.
    pub(crate) fn commit(&mut self, prepared: Prepared) -> Vec<Vec<Listener>> {
        let mut fresh: Vec<Vec<Listener>> = (0..self.workers).map(|_| Vec::new()).collect();
        let mut before: Vec<Option<Open>> = self.open.drain(..).map(Some).collect();
        for one in prepared.0 {
            let tls = one.tls.map(|tls| match tls {
                PreparedTls::New(tls) => tls,
                PreparedTls::Renewed(tls, certificates) => {
                    tls.resolver.replace(certificates);
                    tls
                }
            });
            let settings = Settings {
                config: one.config,
                tls,
            };
            match one.sockets {
                Sockets::Kept(index) => {
                    let open = before[index].take();
                    let open = open.expect("no two listeners have the same address");
                    open.shared.settings.store(Arc::new(settings));
                    self.open.push(open);
                }
                Sockets::New(sockets) => self.open_new(settings, sockets, &mut fresh),
            }
        }
        for removed in before.into_iter().flatten() {
            let address = removed.address;
            tracing::info!(listener = %removed.shared.settings.load().config.name, %address, "closing");
            removed.shared.removed.send_replace(true);
        }
        fresh
    }

    fn open_new(
        &mut self,
        settings: Settings,
        sockets: Vec<TcpListener>,
        fresh: &mut [Vec<Listener>],
    ) {
        let address = sockets[0].local_addr().unwrap_or(settings.config.bind);
        let tls = settings.tls.is_some();
        tracing::info!(listener = %settings.config.name, %address, tls, "listening");
        let shared = Arc::new(Shared::new(settings));
        let workers = fresh.len();
        let mut held = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            // Without a second hold nobody can take the socket over, but it serves all the same.
            held.extend(socket.try_clone());
            fresh[index % workers].push(Listener {
                shared: Arc::clone(&shared),
                socket,
            });
        }
        self.open.push(Open {
            address,
            shared,
            sockets: held,
        });
    }

    /// Lets go of every socket, so that each closes when its worker closes it.
    pub(crate) fn release(&mut self) {
        for open in &mut self.open {
            open.sockets.clear();
        }
    }

    /// Every listener.
    pub(crate) fn described(&self) -> impl Iterator<Item = Described> {
        self.open.iter().map(Open::describe)
    }

    /// Every listener with its sockets.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (Described, &[TcpListener])> {
        self.open
            .iter()
            .map(|open| (open.describe(), &*open.sockets))
    }
}

impl Open {
    fn describe(&self) -> Described {
        Described {
            config: Arc::clone(&self.shared.settings.load().config),
            address: self.address,
        }
    }
}
