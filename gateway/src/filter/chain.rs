//! The order of filters, once: a flat list, a sentence for each step.
//!
//! 1. **API key**: cheap to check, so a stranger costs one digest.
//! 2. **JWT**: a signature check at most once per token.
//! 3. **Rate limits**: after authentication, because limits may count by identity; a refused
//!    credential therefore never uses up somebody else's limit.

use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;

use super::Context;
use super::api_key::ApiKeys;
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
    /// Counts the request against a limit.
    RateLimit(Arc<RateLimit>),
}

impl FilterKind {
    /// The kind, as `explain` shows it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ApiKey(_) => "api-key",
            Self::Jwt(_) => "jwt",
            Self::RateLimit(_) => "rate-limit",
        }
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        match self {
            Self::ApiKey(filter) => filter.name(),
            Self::Jwt(filter) => filter.name(),
            Self::RateLimit(filter) => &filter.policy().name,
        }
    }

    /// The step of the module's list this filter belongs to.
    fn step(&self) -> u8 {
        match self {
            Self::ApiKey(_) => 1,
            Self::Jwt(_) => 2,
            Self::RateLimit(_) => 3,
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
    /// `now` is wall-clock time, which tokens are dated in; limits run on a monotonic clock of
    /// their own, so that setting the clock back locks nobody out.
    pub fn run(&self, context: &mut Context, head: &Parts, now: SystemTime) -> Result<(), Reject> {
        self.filters.iter().try_for_each(|filter| match filter {
            FilterKind::ApiKey(filter) => filter.run(context, head),
            FilterKind::Jwt(filter) => filter.run(context, head, now),
            FilterKind::RateLimit(filter) => filter.run(context, head, &self.route),
        })
    }
}
