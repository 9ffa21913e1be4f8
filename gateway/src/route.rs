//! Which route a request takes: pure, from its head alone.
//!
//! Among the routes that match, the most specific wins: by [`host`], then path, then method, then
//! number of headers and cookies, then number of query parameters. Of paths, patterns ([`path`])
//! come before expressions ([`expression`]), and the pattern that takes every path comes last. The
//! order in the file never matters.

pub mod action;
pub mod changes;
pub(crate) mod cookie;
pub mod cors;
pub mod expression;
pub mod host;
pub mod mirror;
pub mod path;
pub mod predicate;
pub(crate) mod query;
pub mod redirect;
pub mod respond;
pub mod rewrite;
pub mod split;
pub mod table;
pub mod template;
pub mod wanted;

use std::sync::Arc;
use std::time::Duration;

pub use table::Table;

use self::action::Action;
use self::changes::HeaderChanges;
use self::cors::Cors;
use self::predicate::PathRule;
pub use self::predicate::Request;
use self::split::Target;
use crate::config::{BodyRate, RetryConfig};
use crate::filter::chain::Chain;
use crate::forward::hedge::Hedge;
use crate::overload::RoutePolicy;

/// Where matching requests go, and what they must pass on the way.
#[derive(Debug)]
pub struct Route {
    /// Its name in the file; the label in metrics and logs.
    pub name: Arc<str>,
    /// Where its series begin among those of all routes.
    pub series_at: usize,
    /// What becomes of a request that has passed.
    pub action: Action,
    /// What a request must pass.
    pub chain: Chain,
    /// Changes of the header fields of every answer.
    pub response_headers: Option<HeaderChanges>,
    /// Which other web sites' pages may call it; `None`: the instance says so itself.
    pub cors: Option<Box<Cors>>,
    /// How its requests fare when not all can be served.
    pub overload: RoutePolicy,
    /// From the complete request, body included, to the head of the answer.
    pub timeout: Duration,
    /// Request body bytes at most; `None`: as `ServerLimits` says.
    pub body_bytes_max: Option<u64>,
    /// How fast clients must send and take bodies; `None`: no demand.
    pub body_rate: Option<BodyRate>,
    /// How a request that failed is tried again.
    pub retry: RetryConfig,
    /// Asks further instances when the first is slow.
    pub hedge: Option<Box<Hedge>>,
}

impl Route {
    /// The services requests may go to; none where the gateway answers itself.
    pub fn targets(&self) -> &[Target] {
        match &self.action {
            Action::Forward(forwarding) => forwarding.split.targets(),
            Action::Redirect(_) | Action::Respond(_) => &[],
        }
    }

    /// The services its requests are counted by, as indices into `Config::services`: that of
    /// each target, and `None` for requests that were given to none, where there is a choice.
    pub fn counted_by(&self) -> impl Iterator<Item = Option<usize>> {
        let targets = self.targets();
        let none = (targets.len() != 1).then_some(None);
        targets
            .iter()
            .map(|target| Some(target.service))
            .chain(none)
    }

    /// The position in [`counted_by`](Self::counted_by) of a request that went to this target.
    pub fn counted_at(&self, target: Option<usize>) -> usize {
        match self.targets().len() {
            // A single service is blamed for refusals too: the request was meant for it.
            1 => 0,
            targets => target.unwrap_or(targets),
        }
    }

    /// The service of a request that went to this target, or could have gone to one only.
    pub fn service(&self, target: Option<usize>) -> Option<usize> {
        self.counted_by().nth(self.counted_at(target)).flatten()
    }
}

/// The route found for a request.
#[derive(Clone, Copy, Debug)]
pub struct Match<'t> {
    /// The most specific route that matches.
    pub route: &'t Arc<Route>,
    /// What its path matched.
    pub path: &'t PathRule,
    /// Where it stands in the table.
    pub position: Position,
}

/// Where a route stands in its [`Table`]: what is kept of it while a request lasts. A counted
/// reference would be written by all workers with every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position(usize);

impl<'t> Match<'t> {
    /// The path parameters of the request's path, in order of appearance, as sent (still
    /// percent-encoded).
    pub fn parameters(&self, path: &'t str) -> Vec<(&'t str, &'t str)> {
        self.path.parameters(path)
    }
}

#[cfg(test)]
mod tests;
