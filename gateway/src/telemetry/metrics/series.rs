//! The series that follow from the configuration: per route, service and instance.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::counter::Counter;
use crate::config::Config;
use crate::filter::jwt::Jwt;
use crate::filter::rate_limit::RateLimit;
use crate::overload::Gates;
use crate::route::Route;
use crate::upstream::cluster::SharedService;
use crate::upstream::instance::Instance;

/// Upper bounds of the duration histogram, in microseconds; beyond the last is `+Inf`.
pub(super) const DURATION_BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// `1xx` to `5xx`.
pub(super) const STATUS_CLASSES: usize = 5;

/// What one worker counts of one route.
#[derive(Debug)]
pub(crate) struct RouteSeries {
    /// By instance, and a last one for requests that reached none; within, by status class.
    pub(super) requests: Box<[[Counter; STATUS_CLASSES]]>,
    pub(super) duration: [Counter; DURATION_BOUNDS_US.len() + 1],
    pub(super) duration_sum_us: Counter,
}

impl RouteSeries {
    /// The series of a route whose service has this many instances.
    pub(super) fn new(instances: usize) -> Self {
        Self {
            requests: (0..=instances).map(|_| Default::default()).collect(),
            duration: Default::default(),
            duration_sum_us: Counter::default(),
        }
    }

    /// Counts a request. `instance` is a position; `None`: it reached none.
    pub(super) fn count(&self, instance: Option<usize>, status: u16, duration: Duration) {
        let instance = instance.unwrap_or(self.requests.len() - 1);
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES) - 1;
        self.requests[instance][class].add(1);
        let micros = duration.as_micros() as u64;
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < micros);
        self.duration[bucket].add(1);
        self.duration_sum_us.add(micros);
    }
}

/// The names of one route and one of its services, and their series of every worker.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    pub(super) route: String,
    /// Empty for requests that were given to none.
    pub(super) service: String,
    /// Addresses, in the order of the service's endpoints.
    pub(super) instances: Vec<String>,
    pub(crate) workers: Vec<Arc<RouteSeries>>,
}

impl RouteMetrics {
    pub(super) fn new(
        route: String,
        service: String,
        instances: Vec<String>,
        workers: usize,
    ) -> Self {
        let series = || Arc::new(RouteSeries::new(instances.len()));
        let workers = (0..workers).map(|_| series()).collect();
        Self {
            route,
            service,
            instances,
            workers,
        }
    }

    fn same_labels(&self, other: &Self) -> bool {
        (&self.route, &self.service, &self.instances)
            == (&other.route, &other.service, &other.instances)
    }
}

/// One service's instances and their health.
#[derive(Debug)]
pub(crate) struct ServiceHealth {
    pub(super) service: String,
    pub(super) instances: Vec<Arc<Instance>>,
}

/// All series one configuration has.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    /// One after the other in the order of [`Route::series_at`]; within, of [`Route::counted_by`].
    pub(crate) routes: Vec<RouteMetrics>,
    pub(super) services: Vec<ServiceHealth>,
    pub(super) tokens: Vec<Arc<Jwt>>,
    pub(super) rate_limits: Vec<Arc<RateLimit>>,
    pub(super) gates: Gates,
}

impl Configured {
    /// The series of `config`. Those that `previous` has too go on counting where they are.
    pub(crate) fn new(
        config: &Config,
        services: &[SharedService],
        workers: usize,
        previous: Option<&Self>,
    ) -> Self {
        let addresses = |service: usize| -> Vec<String> {
            config.services[service]
                .endpoints
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        let known = previous.iter().flat_map(|previous| &previous.routes);
        let known: HashMap<(&str, &str), &RouteMetrics> = known
            .map(|known| ((&*known.route, &*known.service), known))
            .collect();
        let mut routes: Vec<&Arc<Route>> = config.routes.routes().collect();
        routes.sort_unstable_by_key(|route| route.series_at);
        let pairs = routes.into_iter().flat_map(|route| {
            let services = route.counted_by();
            services.map(move |service| (route, service))
        });
        let routes = pairs.map(|(route, service)| {
            let instances = service.map(addresses).unwrap_or_default();
            let service = service.map(|service| config.services[service].name.clone());
            let service = service.unwrap_or_default();
            let mut new = RouteMetrics::new(route.name.to_string(), service, instances, workers);
            let known = known.get(&(&*new.route, &*new.service));
            if let Some(known) = known.filter(|known| known.same_labels(&new)) {
                new.workers.clone_from(&known.workers);
            }
            new
        });
        let health = services
            .iter()
            .enumerate()
            .map(|(index, service)| ServiceHealth {
                service: config.services[index].name.clone(),
                instances: service.instances.clone(),
            });
        Self {
            routes: routes.collect(),
            services: health.collect(),
            tokens: config.tokens.clone(),
            rate_limits: config.rate_limits.clone(),
            gates: config.gates.clone(),
        }
    }
}
