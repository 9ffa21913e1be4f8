//! One configuration in force, and what all workers share of it.
//!
//! A reload makes the next generation. What both have in common is carried over: services that
//! have not changed, and what is known of instances. Counters are the workers' own and outlive
//! generations.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::config::{Config, ServiceConfig};
use crate::discovery::Found;
use crate::telemetry::metrics::Configured;
use crate::upstream::service::SharedService;
use crate::upstream::spare::Spare;

/// One configuration in force.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) config: Arc<Config>,
    /// One per service, in the order of the configuration.
    pub(crate) services: Vec<Arc<SharedService>>,
    pub(crate) metrics: Arc<Configured>,
    /// What the workers that serve by it ask each other.
    pub(crate) spare: Arc<Spare>,
    /// A permit for each worker that serves by it.
    followed: Semaphore,
}

impl Generation {
    /// The generation for `config`, after `previous` if there was one. Services that have not
    /// changed are taken over as they are.
    pub(crate) fn new(config: Config, workers: usize, previous: Option<&Self>) -> Self {
        let now = Instant::now();
        let service = |config: &Arc<ServiceConfig>| {
            let known = previous.and_then(|previous| previous.service(&config.name));
            match known {
                Some(known) if known.config == *config => Arc::clone(known),
                known => {
                    let known = known.map(|known| &**known);
                    let found = known.and_then(|known| known.known_to(config));
                    Arc::new(SharedService::new(Arc::clone(config), found, now, known))
                }
            }
        };
        let services = config.services.iter().map(service).collect();
        let spare = previous.map_or_else(|| Spare::new(workers), |known| Arc::clone(&known.spare));
        Self::with(Arc::new(config), services, spare)
    }

    /// The next generation with all as it is.
    pub(crate) fn again(&self) -> Self {
        Self::with(
            Arc::clone(&self.config),
            self.services.clone(),
            Arc::clone(&self.spare),
        )
    }

    fn with(config: Arc<Config>, services: Vec<Arc<SharedService>>, spare: Arc<Spare>) -> Self {
        let metrics = Arc::new(Configured::new(&config, &services));
        Self {
            config,
            services,
            metrics,
            spare,
            followed: Semaphore::new(0),
        }
    }

    /// The generation after this one, by the same configuration, with the instances that were
    /// `found`. `None`: none of them is news. A reload may have taken their service away, or sent it
    /// to look elsewhere, or have heard a later answer itself.
    pub(crate) fn with_found(&self, found: Vec<Found>) -> Option<Self> {
        let mut services = self.services.clone();
        let mut news = false;
        for found in found {
            let at = self.position(&found.service);
            let Some(at) = at.filter(|at| services[*at].is_news(&found)) else {
                continue;
            };
            let known = &services[at];
            let (service, count) = (&found.service, found.answer.endpoints.len());
            tracing::info!(%service, count, "instances found");
            let config = Arc::clone(&known.config);
            let now = Instant::now();
            let next = SharedService::new(config, Some(found.answer), now, Some(known));
            services[at] = Arc::new(next);
            news = true;
        }
        let spare = Arc::clone(&self.spare);
        news.then(|| Self::with(Arc::clone(&self.config), services, spare))
    }

    /// The service of this name.
    fn service(&self, name: &str) -> Option<&Arc<SharedService>> {
        Some(&self.services[self.position(name)?])
    }

    fn position(&self, name: &str) -> Option<usize> {
        // In order of name.
        let services = &self.services;
        let found = services.binary_search_by(|known| known.config.name.as_str().cmp(name));
        found.ok()
    }

    /// A worker serves by it from now on.
    pub(crate) fn follow(&self) {
        self.followed.add_permits(1);
    }

    /// Completes when so many workers serve by it: then no new request meets an earlier one.
    pub(crate) async fn followed_by(&self, workers: usize) {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        // An error would mean that the semaphore was closed, which nobody does.
        let _ = self.followed.acquire_many(workers).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::{DiscoverSource, EndpointConfig};
    use crate::discovery::Answer;

    fn config(file: &str, more: &str) -> Config {
        let text = format!(
            "[listeners.public]\nbind = \"127.0.0.1:0\"\n\
             [services.app]\ndiscover = {{ file = \"{file}\" }}\n{more}\n"
        );
        Config::parse(&text, Path::new("/")).unwrap()
    }

    /// An answer that was asked for so many seconds after `epoch`: one instance with this port.
    fn found(epoch: Instant, asked: u64, file: &str, port: u16) -> Vec<Found> {
        vec![Found {
            service: "app".to_owned(),
            source: DiscoverSource::File(Path::new("/").join(file)),
            answer: Answer {
                asked: epoch + Duration::from_secs(asked),
                valid: Duration::MAX,
                endpoints: vec![EndpointConfig::new(([10, 0, 0, 1], port).into())],
            },
        }]
    }

    fn ports(generation: &Generation) -> Vec<u16> {
        let endpoints = &generation.services[0].endpoints;
        endpoints.iter().map(|one| one.address.port()).collect()
    }

    #[test]
    fn the_newest_answer_holds_whenever_a_reload_comes() {
        enum Step {
            /// An answer arrives: when it was asked for, where, what it says.
            Found(u64, &'static str, u16),
            /// A reload is compiled from what is in force now.
            Compile(&'static str, &'static str),
            /// And comes into force, after its own first question, if it asks one.
            Apply(Option<(u64, &'static str, u16)>),
        }
        use Step::{Apply, Compile, Found};
        let idle = "idle_timeout = \"9s\"";
        let table: [(&str, Vec<Step>, &[u16]); 8] = [
            ("none yet", vec![Compile("a", idle), Apply(None)], &[]),
            (
                "later answers",
                vec![Found(1, "a", 1), Found(2, "a", 2)],
                &[2],
            ),
            (
                "an older one comes late",
                vec![Found(2, "a", 2), Found(1, "a", 1)],
                &[2],
            ),
            (
                "one that came while a reload compiled is taken after it",
                vec![
                    Found(1, "a", 1),
                    Compile("a", idle),
                    Apply(None),
                    Found(2, "a", 2),
                ],
                &[2],
            ),
            (
                "the reload asked later than an answer that was on its way",
                vec![
                    Compile("a", idle),
                    Apply(Some((2, "a", 2))),
                    Found(1, "a", 1),
                ],
                &[2],
            ),
            (
                "and earlier",
                vec![
                    Compile("a", idle),
                    Apply(Some((1, "a", 1))),
                    Found(2, "a", 2),
                ],
                &[2],
            ),
            (
                "an answer from where nobody looks any more",
                vec![
                    Found(1, "a", 1),
                    Compile("b", ""),
                    Apply(Some((2, "b", 2))),
                    Found(3, "a", 3),
                ],
                &[2],
            ),
            (
                "found by an earlier look at the same place",
                vec![
                    Found(1, "a", 1),
                    Compile("b", ""),
                    Apply(None),
                    Compile("a", ""),
                    Apply(None),
                ],
                &[],
            ),
        ];
        let epoch = Instant::now();
        for (what, steps, expected) in table {
            let mut current = Generation::new(config("a", ""), 1, None);
            let mut compiled = None;
            for step in steps {
                match step {
                    Found(asked, file, port) => {
                        let next = current.with_found(found(epoch, asked, file, port));
                        current = next.unwrap_or(current);
                    }
                    Compile(file, more) => {
                        compiled = Some(Generation::new(config(file, more), 1, Some(&current)));
                    }
                    Apply(first) => {
                        let next = compiled.take().unwrap();
                        let first =
                            first.map(|(asked, file, port)| found(epoch, asked, file, port));
                        let asked = next.with_found(first.unwrap_or_default());
                        current = asked.unwrap_or(next);
                    }
                }
            }
            assert_eq!(ports(&current), expected, "{what}");
        }
    }

    #[test]
    fn what_is_no_news_makes_no_generation() {
        let epoch = Instant::now();
        let known = Generation::new(config("a", ""), 1, None);
        let known = known.with_found(found(epoch, 1, "a", 1)).unwrap();
        assert!(
            known.with_found(found(epoch, 2, "a", 1)).is_none(),
            "the same"
        );
        assert!(known.with_found(found(epoch, 0, "a", 2)).is_none(), "older");
        let mut unknown = found(epoch, 2, "a", 2);
        unknown[0].service = "gone".to_owned();
        assert!(known.with_found(unknown).is_none(), "the service is gone");
    }
}
