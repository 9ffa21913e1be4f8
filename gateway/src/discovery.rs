//! Instances that are found rather than listed: by DNS, or in a file.
//!
//! One task for each such service asks again and again, and tells what it hears. What is done
//! with an answer is decided by [`memory`], without sockets and clocks:
//!
//! - instances found are used at once, until the next answer;
//! - a failure (no answer, a broken file) changes nothing: the last good answer is kept, however
//!   old, and `weir_gateway_discovery_stale` says so;
//! - that there are none is believed only when it has been said for as long as `hold`: a zone that
//!   was emptied by mistake must not take the service with it at once.
//!
//! The next question is asked when the answer is no longer valid, but not sooner than
//! `refresh_min` nor later than `refresh_max`; after failures the time doubles from `refresh_min`.
//!
//! Answers come to the one who reloads, too, one after the other. An answer that was asked for
//! before the one in force, or at a place where the service no longer looks, is thrown away
//! ([`Generation::with_found`](crate::server::generation::Generation::with_found)).
//!
//! Only the service whose instances have changed is made anew: what is known of instances that
//! stay, and connections to them, stay too.

mod dns;
mod file;
mod memory;
pub(crate) mod record;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use self::dns::Names;
use self::memory::{Memory, orderly};
use crate::config::{DiscoverConfig, DiscoverSource, EndpointConfig};
use crate::upstream::service::SharedService;

/// How long a start or a reload waits for the first instances of services that have none yet.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// The instances of a service that were found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The service's name.
    pub(crate) service: String,
    /// Where: of no meaning any more once the service looks elsewhere.
    pub(crate) source: DiscoverSource,
    pub(crate) answer: Answer,
}

/// A good answer. Of two the one that was asked for later holds, whichever comes first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// When it was asked for.
    pub(crate) asked: Instant,
    /// For how long it is valid from then on.
    pub(crate) valid: Duration,
    /// All instances, in order of address.
    pub(crate) endpoints: Vec<EndpointConfig>,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    /// These instances, valid for so long.
    Found(Vec<EndpointConfig>, Duration),
    /// That there are none, valid for so long, if that is said.
    Nothing(Option<Duration>),
    /// No answer, and why.
    Failed(String),
}

/// Who is asked for one service.
struct Asker {
    source: DiscoverSource,
    names: Option<Names>,
    seen: file::Seen,
}

impl Asker {
    fn new(config: &DiscoverConfig) -> Self {
        let names = match &config.source {
            DiscoverSource::Dns { servers, .. } | DiscoverSource::Srv { servers, .. } => {
                Some(Names::new(servers))
            }
            DiscoverSource::File(_) => None,
        };
        Self {
            source: config.source.clone(),
            names,
            seen: file::Seen::default(),
        }
    }

    async fn ask(&self) -> Outcome {
        match (&self.source, &self.names) {
            (DiscoverSource::Dns { name, port, .. }, Some(names)) => {
                names.addresses(name, *port).await
            }
            (DiscoverSource::Srv { name, .. }, Some(names)) => names.services(name).await,
            (DiscoverSource::File(path), _) => file::read(path).await,
            (_, None) => Outcome::Failed("there is no resolver".to_owned()),
        }
    }

    /// Until it is worth asking again.
    async fn wait(&mut self, time: Duration) {
        match &self.source {
            DiscoverSource::File(path) => self.seen.changed(path).await,
            _ => tokio::time::sleep(time).await,
        }
    }
}

/// The first instances of services that have none from their discovery yet. Waits for them, but
/// not for ever: a service that is not found must not keep the others from being served.
pub(crate) async fn first(services: &[Arc<SharedService>]) -> Vec<Found> {
    let missing = services.iter().filter(|service| !service.was_discovered());
    let ask = missing.filter_map(|service| {
        let config = service.config.discover.clone()?;
        Some(async move {
            let (asker, asked) = (Asker::new(&config), Instant::now());
            match tokio::time::timeout(FIRST_WAIT, asker.ask()).await {
                Ok(Outcome::Found(endpoints, valid)) => Some(Found {
                    service: service.config.name.clone(),
                    source: config.source,
                    answer: Answer {
                        asked,
                        valid: valid.saturating_add(asked.elapsed()),
                        endpoints: orderly(endpoints),
                    },
                }),
                // The task of the service says what was wrong.
                _ => None,
            }
        })
    });
    let found = futures_util::future::join_all(ask).await;
    found.into_iter().flatten().collect()
}

/// The tasks that look for instances.
pub(crate) struct Discovery {
    tasks: HashMap<String, Task>,
    report: Rc<dyn Fn(Found)>,
}

struct Task {
    config: DiscoverConfig,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Discovery {
    /// Nothing is looked for yet; what is found will be `report`ed.
    pub(crate) fn new(report: Rc<dyn Fn(Found)>) -> Self {
        Self {
            tasks: HashMap::new(),
            report,
        }
    }

    /// Looks for the instances of these services, and of no others any more.
    pub(crate) fn follow(&mut self, services: &[Arc<SharedService>]) {
        let mut before = std::mem::take(&mut self.tasks);
        for service in services {
            let Some(config) = &service.config.discover else {
                continue;
            };
            let name = service.config.name.clone();
            let known = before.remove(&name).filter(|task| task.config == *config);
            let task = known.unwrap_or_else(|| Task {
                config: config.clone(),
                handle: tokio::task::spawn_local(look(
                    Arc::clone(service),
                    config.clone(),
                    Rc::clone(&self.report),
                )),
            });
            self.tasks.insert(name, task);
        }
    }
}

async fn look(service: Arc<SharedService>, config: DiscoverConfig, report: Rc<dyn Fn(Found)>) {
    let name = service.config.name.clone();
    let record = Arc::clone(&service.record);
    let mut memory = Memory::new(&config, service.discovered().to_vec());
    let valid = service.discovered_valid(Instant::now());
    // What was needed to begin is not kept alive by the task.
    drop(service);
    let mut asker = Asker::new(&config);
    if let Some(valid) = valid {
        // Whoever made the service has asked already.
        asker.wait(memory.bounded(valid)).await;
    }
    loop {
        let asked = Instant::now();
        let outcome = asker.ask().await;
        record.count(&outcome);
        if let (Outcome::Failed(reason), false) = (&outcome, memory.is_failing()) {
            tracing::warn!(service = %name, %reason, "instances not found, the known ones are kept");
        }
        let step = memory.take(outcome, Instant::now());
        if let Some(endpoints) = step.endpoints {
            report(Found {
                service: name.clone(),
                source: config.source.clone(),
                answer: Answer {
                    asked,
                    valid: step.wait.saturating_add(asked.elapsed()),
                    endpoints,
                },
            });
        }
        asker.wait(step.wait).await;
    }
}
