//! Load on the VIP while something is killed: new connections all the time, and held ones.
//!
//! New connections show how long a failure is felt; held ones show whether anybody is disturbed
//! who has nothing to do with it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::scenes::{Place, place};
use super::topology::{Family, World};
use crate::client::{Client, Connection, runtime};

/// How many tasks open one new connection after the other.
const FRESH_TASKS: usize = 4;

/// The rest of such a task between two requests.
const FRESH_PAUSE: Duration = Duration::from_millis(10);

/// How many connections are held. That none of them meets one of two gateways happens once in
/// 32 768 runs.
const HELD_CONNECTIONS: usize = 16;

/// The rest between two requests of a held connection.
const HELD_PAUSE: Duration = Duration::from_millis(50);

/// An answer that takes longer counts as failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Load ends by itself after this, whatever happens to whoever started it.
const DURATION_MAX: Duration = Duration::from_secs(60);

/// Running load.
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What was asked and answered.
#[derive(Debug, Default)]
pub struct Record {
    /// Requests that each had a connection of their own, in the order they ended.
    pub fresh: Vec<Sample>,
    /// Connections that are held, with their requests.
    pub held: Vec<Held>,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it ended.
    pub at: Instant,
    /// Where it was answered, or why it was not.
    pub outcome: Result<Place, String>,
}

/// One held connection; it ends with its first failure and is never opened again.
#[derive(Debug, Clone)]
pub struct Held {
    /// The client's end of the TCP connection.
    pub local: SocketAddr,
    /// Its requests.
    pub samples: Vec<Sample>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    record: Mutex<Record>,
}

/// What every task of the load knows.
#[derive(Clone)]
struct Task {
    clients: [Client; 2],
    path: String,
    names: Arc<HashMap<IpAddr, String>>,
    shared: Arc<Shared>,
    deadline: Instant,
}

impl Load {
    /// Starts asking for `path` from the client's host.
    ///
    /// # Errors
    ///
    /// When the clients cannot be built.
    pub fn start(world: &World, path: &str) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let user = |family| anyhow::Ok(world.user(family, "load")?.with_timeout(ANSWER_LIMIT));
        let task = Task {
            clients: [user(Family::V4)?, user(Family::V6)?],
            path: path.to_owned(),
            names: world.gateway_names(),
            shared: Arc::clone(&shared),
            deadline: Instant::now() + DURATION_MAX,
        };
        let thread = world
            .client
            .namespace()
            .thread(move || runtime().block_on(task.all()))?;
        Ok(Self { shared, thread })
    }

    /// Whether `fresh` new connections and every held one have brought an answer.
    #[must_use]
    pub fn has_settled(&self, fresh: usize) -> bool {
        let record = self.shared.lock();
        let answering = record
            .held
            .iter()
            .filter(|held| held.answered() > 0)
            .count();
        record.fresh.len() >= fresh && answering == HELD_CONNECTIONS
    }

    /// When the last failed request on a new connection ended.
    #[must_use]
    pub fn last_failure(&self) -> Option<Instant> {
        let record = self.shared.lock();
        record
            .fresh
            .iter()
            .rev()
            .find(|sample| sample.outcome.is_err())
            .map(|sample| sample.at)
    }

    /// Ends the load and returns what happened.
    ///
    /// # Panics
    ///
    /// When the load itself has panicked.
    #[must_use]
    pub fn stop(self) -> Record {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        std::mem::take(&mut *self.shared.lock())
    }
}

impl Held {
    /// The gateway that holds the other end.
    #[must_use]
    pub fn gateway(&self) -> Option<&str> {
        let first = self.samples.first()?.outcome.as_ref().ok()?;
        Some(&first.gateway)
    }

    /// How many of its requests were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.samples
            .iter()
            .filter(|sample| sample.outcome.is_ok())
            .count()
    }

    /// Why it ended before its time, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.samples
            .iter()
            .find_map(|sample| sample.outcome.as_ref().err())
            .map(String::as_str)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    async fn all(self) {
        let mut tasks = JoinSet::new();
        for number in 0..FRESH_TASKS {
            tasks.spawn(self.clone().fresh(self.clients[number % 2].clone()));
        }
        for number in 0..HELD_CONNECTIONS {
            tasks.spawn(self.clone().hold(self.clients[number % 2].clone()));
        }
        tasks.join_all().await;
    }

    fn goes_on(&self) -> bool {
        !self.shared.stop.load(Ordering::Relaxed) && Instant::now() < self.deadline
    }

    async fn fresh(self, client: Client) {
        while self.goes_on() {
            let outcome = place(&client.once(&self.path).await, &self.names);
            self.shared.lock().fresh.push(Sample {
                at: Instant::now(),
                outcome,
            });
            tokio::time::sleep(FRESH_PAUSE).await;
        }
    }

    async fn hold(self, client: Client) {
        let Ok(mut connection) = Connection::open(&client).await else {
            return;
        };
        let held = Held {
            local: connection.local(),
            samples: Vec::new(),
        };
        let number = {
            let mut record = self.shared.lock();
            record.held.push(held);
            record.held.len() - 1
        };
        while self.goes_on() {
            let outcome = place(&connection.get(&self.path).await, &self.names);
            let failed = outcome.is_err();
            let sample = Sample {
                at: Instant::now(),
                outcome,
            };
            self.shared.lock().held[number].samples.push(sample);
            if failed {
                break;
            }
            tokio::time::sleep(HELD_PAUSE).await;
        }
    }
}
