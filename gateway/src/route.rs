//! Which route a request takes: pure, from its head alone.
//!
//! Among the routes that match, the most specific wins: by [`host`], then [`path`], then method,
//! then number of headers. The order in the file never matters.

pub mod host;
pub mod path;
pub mod predicate;
pub mod table;

use std::sync::Arc;
use std::time::Duration;

pub use table::Table;

use self::path::PathPattern;
use crate::filter::chain::Chain;

/// Where matching requests go, and what they must pass on the way.
#[derive(Debug)]
pub struct Route {
    /// Its name in the file; the label in metrics and logs.
    pub name: Arc<str>,
    /// Index into `Config::services`.
    pub service: usize,
    /// What a request must pass.
    pub chain: Chain,
    /// From the complete request, body included, to the head of the answer.
    pub timeout: Duration,
    /// Request body bytes at most; `None`: as `ServerLimits` says.
    pub body_bytes_max: Option<u64>,
    /// Further instances tried when a request could not be delivered and may be repeated.
    pub retries: u32,
}

/// The route found for a request.
#[derive(Clone, Copy, Debug)]
pub struct Match<'t> {
    /// The most specific route that matches.
    pub route: &'t Arc<Route>,
    path: &'t PathPattern,
}

impl<'t> Match<'t> {
    /// The path parameters of the request's path, in order of appearance, as sent (still
    /// percent-encoded).
    pub fn parameters(&self, path: &'t str) -> impl Iterator<Item = (&'t str, &'t str)> {
        self.path.parameters(path)
    }
}

#[cfg(test)]
mod tests;
