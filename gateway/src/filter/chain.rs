//! The order of filters, once: a flat list, a sentence for each step.
//!
//! 1. **API key**: cheap to check, so a stranger costs one digest.
//! 2. **JWT**: a signature check at most once per token.
//! 3. **Limits of requests in flight**: after authentication too, and before rate limits, which a
//!    request that is refused here does not use up.
//! 4. **Rate limits**: after authentication, because limits may count by identity; a refused
//!    credential therefore never uses up somebody else's limit.

use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;

use super::Context;
use super::api_key::ApiKeys;
use super::in_flight::InFlightLimit;
use super::jwt::Jwt;
use super::rate_limit::RateLimit;
use super::reject::Reject;

/// One filter of a route. The order of the variants is the order they run in.
#[derive(Clone, Debug)]
pub enum FilterKind {
    /// Accepts requests with a known API key.
    ApiKey(Arc<ApiKeys>),
    /// Accepts requests with a valid bearer token.
    Jwt(Arc<Jwt>),
    /// Counts the request among those of its sender that are under way.
    InFlight(Arc<InFlightLimit>),
    /// Counts the request against a limit.
    RateLimit(Arc<RateLimit>),
}

impl FilterKind {
    /// The kind, as `explain` shows it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ApiKey(_) => "api-key",
            Self::Jwt(_) => "jwt",
            Self::InFlight(_) => "in-flight-limit",
            Self::RateLimit(_) => "rate-limit",
        }
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        match self {
            Self::ApiKey(filter) => filter.name(),
            Self::Jwt(filter) => filter.name(),
            Self::InFlight(filter) => &filter.policy().name,
            Self::RateLimit(filter) => &filter.policy().name,
        }
    }

    /// Whether this is the other, with all it remembers.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ApiKey(one), Self::ApiKey(other)) => Arc::ptr_eq(one, other),
            (Self::Jwt(one), Self::Jwt(other)) => Arc::ptr_eq(one, other),
            (Self::InFlight(one), Self::InFlight(other)) => Arc::ptr_eq(one, other),
            (Self::RateLimit(one), Self::RateLimit(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The step of the module's list this filter belongs to.
    fn step(&self) -> u8 {
        match self {
            Self::ApiKey(_) => 1,
            Self::Jwt(_) => 2,
            Self::InFlight(_) => 3,
            Self::RateLimit(_) => 4,
        }
    }
}

/// The filters of one route, in the order they run.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    route: Arc<str>,
    filters: Vec<FilterKind>,
}

impl Chain {
    /// Puts the filters of a route in order; filters of one step keep the order given.
    pub fn new(route: Arc<str>, mut filters: Vec<FilterKind>) -> Self {
        filters.sort_by_key(FilterKind::step);
        Self { route, filters }
    }

    /// The filters, in the order they run.
    pub fn filters(&self) -> &[FilterKind] {
        &self.filters
    }

    /// Runs every filter until one refuses. Synchronous, without I/O.
    ///
    /// `now` is wall-clock time, which tokens are dated in, and is read for those alone; limits run
    /// on a monotonic clock of their own, so that setting the clock back locks nobody out.
    pub fn run(
        &self,
        context: &mut Context,
        head: &Parts,
        now: impl Fn() -> SystemTime,
    ) -> Result<(), Reject> {
        self.filters.iter().try_for_each(|filter| match filter {
            FilterKind::ApiKey(filter) => filter.run(context, head),
            FilterKind::Jwt(filter) => filter.run(context, head, now()),
            FilterKind::InFlight(filter) => filter.run(context, head, &self.route),
            FilterKind::RateLimit(filter) => filter.run(context, head, &self.route),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderName;

    use super::*;
    use crate::config::Config;

    const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

    /// A route with everything, its filters named in the wrong order.
    const CONFIG: &str = r#"
[listeners.public]
bind = "127.0.0.1:80"
[services.orders]
endpoints = ["127.0.0.1:81"]
[auth.keys]
type = "api-key"
keys = { ci = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" }
[limits.once]
rate = "1/m"
key = "api-key"
[limits.twice]
rate = "2/m"
key = "client-ip"
[routes.orders]
match = {}
use = ["once", "keys", "twice"]
service = "orders"
"#;

    fn run(config: &Config, key: &str) -> (Result<(), Reject>, Context) {
        let route = config.routes.routes().next().unwrap();
        let head = http::Request::builder()
            .header("x-api-key", key)
            .body(())
            .unwrap();
        let mut context = Context::new("192.0.2.1".parse().unwrap());
        let outcome = route
            .chain
            .run(&mut context, &head.into_parts().0, SystemTime::now);
        (outcome, context)
    }

    #[test]
    fn filters_run_in_the_fixed_order_until_one_refuses() {
        let config = Config::parse(CONFIG, Path::new("")).unwrap();
        let route = config.routes.routes().next().unwrap();
        let names: Vec<_> = route.chain.filters().iter().map(FilterKind::name).collect();
        assert_eq!(names, ["keys", "once", "twice"]);

        let (outcome, context) = run(&config, "wrong");
        assert_eq!(outcome, Err(Reject::ApiKeyUnknown));
        assert!(
            context.told.values(&RATELIMIT).next().is_none(),
            "a stranger uses up no limit"
        );

        let (outcome, context) = run(&config, "abc");
        assert_eq!(outcome, Ok(()));
        assert_eq!(context.subject(), Some("ci"));
        let fields: Vec<_> = context.told.values(&RATELIMIT).collect();
        assert_eq!(fields, [r#""once";r=0;t=60"#, r#""twice";r=1;t=30"#]);

        let (outcome, context) = run(&config, "abc");
        assert_eq!(outcome, Err(Reject::RateLimited { retry_after: 60 }));
        assert_eq!(context.told.values(&RATELIMIT).count(), 1);
        let counts: Vec<_> = config
            .rate_limits
            .iter()
            .map(|limit| limit.counts())
            .collect();
        assert_eq!((counts[0].allowed, counts[0].limited), (1, 1));
        assert_eq!((counts[1].allowed, counts[1].limited), (1, 0));
    }
}
