//! One worker: a thread with a runtime, listeners and upstream connections of its own.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use slab::Slab;
use tokio::sync::{Notify, mpsc, watch};

use super::busy_poll;
use super::connections::{Connections, Counted, Full};
use super::generation::Generation;
use super::plane::Plane;
use super::timers::Timers;
use crate::config::AccessLogConfig;
use crate::drain::{CUT_GRACE, Drain};
use crate::listen::{self, Listener};
use crate::normalise::target::KnownHosts;
use crate::overload::pressure::{Pressure, Relief, Strain};
use crate::serve::Client;
use crate::socket;
use crate::telemetry::access_log::{AccessLog, FLUSH_EVERY, Writers};
use crate::telemetry::metrics::Shard;
use crate::upstream::balance::Random;

/// Between looks for upstream connections that were idle for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Between looks at client connections: how late an idle one may be noticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Longer than any idle upstream connection is kept.
const IDLE_FOR_EVER: Duration = Duration::from_secs(400 * 24 * 3600);

/// What a worker is made of; may cross threads, unlike the worker itself.
pub(super) struct Seed {
    pub(super) index: usize,
    pub(super) generations: watch::Receiver<Arc<Generation>>,
    pub(super) metrics: Arc<Shard>,
    pub(super) writers: Arc<Writers>,
    pub(super) drain: Drain,
    pub(super) connections: Arc<Connections>,
    pub(super) pressure: Arc<Pressure>,
    /// Listeners, as they come into force.
    pub(super) listeners: mpsc::UnboundedReceiver<Listener>,
}

/// What the requests of one thread share.
pub(crate) struct Worker {
    index: usize,
    plane: RefCell<Rc<Plane>>,
    pub(crate) metrics: Arc<Shard>,
    access_log: RefCell<Option<Rc<AccessLog>>>,
    writers: Arc<Writers>,
    pub(crate) drain: Drain,
    /// What is left for new work.
    pub(crate) strain: Strain,
    /// For requests' deadlines.
    pub(crate) timers: Timers,
    /// Client connections of all workers.
    connections: Arc<Connections>,
    ids: RequestIds,
    pub(crate) known_hosts: KnownHosts,
    /// The connections that are being served.
    clients: RefCell<Slab<Rc<Client>>>,
    open: Cell<usize>,
    closed: Notify,
}

impl Worker {
    fn new(seed: Seed) -> (Self, mpsc::UnboundedReceiver<Listener>) {
        let generation = Arc::clone(&seed.generations.borrow());
        let random = RandomState::new().hash_one("access log");
        let access_log = seed
            .writers
            .worker_end(&generation.config.access_logs, random);
        let worker = Self {
            index: seed.index,
            plane: RefCell::new(Rc::new(Plane::new(generation, seed.index, None))),
            metrics: seed.metrics,
            access_log: RefCell::new(access_log.map(Rc::new)),
            writers: seed.writers,
            drain: seed.drain,
            strain: Strain::new(seed.pressure, seed.index),
            timers: Timers::default(),
            connections: seed.connections,
            known_hosts: KnownHosts::default(),
            ids: RequestIds::seeded(RandomState::new().hash_one("request ids")),
            clients: RefCell::default(),
            open: Cell::new(0),
            closed: Notify::new(),
        };
        (worker, seed.listeners)
    }

    /// The configuration in force. A request keeps the one it began with.
    pub(crate) fn plane(&self) -> Rc<Plane> {
        Rc::clone(&self.plane.borrow())
    }

    /// 64 random bits.
    pub(crate) fn random(&self) -> u64 {
        self.ids.random.next()
    }

    /// The access logs in force, if there are any.
    pub(crate) fn access_log(&self) -> Option<Rc<AccessLog>> {
        self.access_log.borrow().clone()
    }

    /// Writes to other access logs from now on.
    fn replace_access_log(&self, configs: &[AccessLogConfig]) {
        let random = RandomState::new().hash_one("access log");
        let new = self.writers.worker_end(configs, random).map(Rc::new);
        drop(self.access_log.replace(new));
        self.writers.prune();
    }

    /// A new request id.
    pub(crate) fn request_id(&self) -> HeaderValue {
        self.ids.next()
    }

    /// Whether connections are to end with the request they have.
    pub(crate) fn is_closing(&self) -> bool {
        self.drain.is_closing() || self.strain.is_relieving()
    }

    /// Makes room for one more client connection, unless that would be over a limit. `source` is
    /// left out for those who are not counted by address.
    pub(crate) fn admit(self: &Rc<Self>, source: Option<IpAddr>) -> Result<Slot, Full> {
        let counted = self
            .connections
            .admit(source, self.plane.borrow().limits())?;
        self.metrics.connection_opens();
        Ok(Slot {
            _open: Open::new(self),
            _counted: counted,
            worker: Rc::clone(self),
        })
    }

    /// Looks after a connection's idle time and its end while the value lives.
    pub(crate) fn attend(self: &Rc<Self>, client: &Rc<Client>) -> Attended {
        Attended {
            key: self.clients.borrow_mut().insert(Rc::clone(client)),
            worker: Rc::clone(self),
        }
    }

    /// Ends connections, since memory is short: idle ones first.
    fn relieve(&self) {
        self.strain.shed_waiting(&self.plane().config().gates);
        let clients = self.clients.borrow();
        self.relieve_of_tunnels(&clients);
        let ends = |client: &Client| client.is_ending() || client.tunnel_moved().is_some();
        for (_, client) in clients.iter().filter(|(_, client)| !ends(client)) {
            match self.strain.relief(client.is_idle()) {
                Relief::None => {}
                Relief::Close => client.close(),
                Relief::Cut => client.cut(),
            }
        }
    }

    /// Cuts tunnels, the most idle first.
    fn relieve_of_tunnels(&self, clients: &Slab<Rc<Client>>) {
        if !self.strain.is_short_of_all() {
            return;
        }
        let live = clients.iter().filter(|(_, client)| !client.is_cut());
        let moved = live.filter_map(|(_, client)| Some((client.tunnel_moved()?, client)));
        let mut tunnels: Vec<_> = moved.collect();
        let cut = self.strain.tunnels_to_cut(tunnels.len(), Instant::now());
        tunnels.sort_unstable_by_key(|(moved, _)| *moved);
        tunnels[..cut].iter().for_each(|(_, client)| client.cut());
    }

    /// Counts an upgraded connection while the value lives.
    pub(crate) fn open_tunnel(self: &Rc<Self>) -> Tunnel {
        self.metrics.tunnels(1);
        Tunnel {
            _open: Open::new(self),
            worker: Rc::clone(self),
        }
    }

    /// Completes when nothing is open any more.
    async fn idle(&self) {
        while self.open.get() > 0 {
            self.closed.notified().await;
        }
    }
}

/// One client connection, counted.
pub(crate) struct Slot {
    worker: Rc<Worker>,
    _open: Open,
    _counted: Counted,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.worker.metrics.connection_closes();
    }
}

/// A connection whose idle time and end the worker looks after.
pub(crate) struct Attended {
    worker: Rc<Worker>,
    key: usize,
}

impl Drop for Attended {
    fn drop(&mut self) {
        let _ = self.worker.clients.borrow_mut().remove(self.key);
    }
}

/// One upgraded connection, counted.
pub(crate) struct Tunnel {
    worker: Rc<Worker>,
    _open: Open,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.worker.metrics.tunnels(-1);
    }
}

/// Something the drain waits for.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.closed.notify_one();
    }
}

/// Makes request ids: 128 bits in hexadecimal, unique by a counter under a random prefix.
struct RequestIds {
    prefix: u64,
    random: Random,
}

impl RequestIds {
    fn seeded(seed: u64) -> Self {
        Self {
            prefix: seed,
            random: Random::seeded(seed),
        }
    }

    fn next(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let id = u128::from(self.prefix) << 64 | u128::from(self.random.next());
        let mut text = [0; 32];
        for (place, digit) in text.iter_mut().rev().enumerate() {
            *digit = DIGITS[(id >> (4 * place)) as usize & 0xf];
        }
        HeaderValue::from_bytes(&text).expect("hexadecimal digits are a header value")
    }
}

/// Serves until the gateway has drained.
pub(super) async fn run(seed: Seed) -> anyhow::Result<()> {
    let generations = seed.generations.clone();
    let (worker, mut listeners) = Worker::new(seed);
    let worker = Rc::new(worker);
    let mut accepting = tokio::task::JoinSet::new();
    busy_poll::set(worker.plane().config().busy_poll);
    tokio::task::spawn_local(busy_poll::run(Arc::clone(&worker.metrics)));
    tokio::task::spawn_local(keep_house(Rc::clone(&worker)));
    tokio::task::spawn_local(close_connections(Rc::clone(&worker)));
    tokio::task::spawn_local(watch_lag(Rc::clone(&worker)));
    tokio::task::spawn_local(spare_connections(Rc::clone(&worker)));
    tokio::task::spawn_local(follow(generations, Rc::clone(&worker)));
    worker.plane().followed();
    let closing = worker.drain.closing();
    tokio::pin!(closing);
    loop {
        tokio::select! {
            Some(listener) = listeners.recv() => {
                accepting.spawn_local(listen::run(listener, Rc::clone(&worker)));
            }
            Some(ended) = accepting.join_next() => ended??,
            () = &mut closing => break,
        }
    }
    // They end by themselves once they have emptied their queues.
    while let Some(ended) = accepting.join_next().await {
        ended??;
    }
    tokio::select! {
        () = worker.idle() => {}
        () = worker.drain.cut() => tokio::time::sleep(CUT_GRACE).await,
    }
    // This turn of the event loop is the last.
    socket::flush();
    Ok(())
}

/// Takes on each new generation. Requests under way finish with the one they began with.
async fn follow(mut generations: watch::Receiver<Arc<Generation>>, worker: Rc<Worker>) {
    while generations.changed().await.is_ok() {
        let generation = Arc::clone(&generations.borrow_and_update());
        let logs = &generation.config.access_logs;
        if *logs != worker.plane().config().access_logs {
            worker.replace_access_log(logs);
        }
        busy_poll::set(generation.config.busy_poll);
        let previous = worker.plane();
        let next = Plane::new(Arc::clone(&generation), worker.index, Some(&previous));
        let next = Rc::new(next);
        worker.plane.replace(Rc::clone(&next));
        previous.retire(&next);
        generation.follow();
    }
}

/// Watches how late the event loop is, where that is limited.
async fn watch_lag(worker: Rc<Worker>) {
    let lag_max = || worker.plane().config().overload.lag_max;
    worker.strain.watch_lag(lag_max).await;
}

/// Closes idle upstream connections where other workers need their places.
async fn spare_connections(worker: Rc<Worker>) {
    // The same for all generations.
    let spare = Arc::clone(worker.plane().spare());
    loop {
        spare.asked(worker.index).await;
        worker.plane().spare_idle();
    }
}

/// Ends connections when the gateway closes. HTTP/2 can say so at any time; a request may be on
/// its way already to an HTTP/1.1 connection that is idle, so those are closed later.
async fn close_connections(worker: Rc<Worker>) {
    let each = |close: fn(&Client)| {
        let clients = worker.clients.borrow();
        clients.iter().for_each(|(_, client)| close(client));
    };
    worker.drain.closing().await;
    each(Client::close_http2);
    worker.drain.closing_idle().await;
    each(Client::close);
}

async fn keep_house(worker: Rc<Worker>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let now = Instant::now();
                worker.clients.borrow().iter().for_each(|(_, client)| client.look(now));
            }
            _ = flush.tick() => {
                if let Some(log) = worker.access_log() {
                    log.flush();
                }
                if worker.strain.is_relieving() {
                    worker.relieve();
                    // As if all had been idle for too long.
                    worker.plane().sweep(Instant::now() + IDLE_FOR_EVER);
                }
            }
            _ = sweep.tick() => {
                let now = Instant::now();
                worker.plane().sweep(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn request_ids_differ_and_are_32_digits() {
        let ids = RequestIds::seeded(42);
        let made: HashSet<HeaderValue> = (0..1000).map(|_| ids.next()).collect();
        assert_eq!(made.len(), 1000);
        assert!(made.iter().all(|id| id.len() == 32));
    }
}
