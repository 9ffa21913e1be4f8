//! What a request must be for a route, as data: listener, host, path, method, headers, query,
//! cookies.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::Route;
use super::expression::PathExpression;
use super::host::HostPattern;
use super::path::PathPattern;
use super::wanted::{Conditions, Unmet};

/// A request as routes see it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The name of the listener it came in by.
    pub listener: &'r str,
    /// Without port, in lower case.
    pub host: &'r str,
    /// Its method.
    pub method: &'r Method,
    /// Normalised, without the query.
    pub path: &'r str,
    /// As sent, without `?`.
    pub query: Option<&'r str>,
    /// Its header fields.
    pub headers: &'r HeaderMap,
}

/// A route and what a request must be to take it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The route.
    pub route: Arc<Route>,
    /// The names of the listeners it is served on; empty: all.
    pub listeners: Box<[Box<str>]>,
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathRule,
    /// Which methods; empty: any. GET stands for HEAD too (RFC 9110 section 9.3.2).
    pub methods: Vec<Method>,
    /// Which headers, query parameters and cookies; all of them must hold.
    pub conditions: Conditions,
}

/// Which paths a route is for.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRule {
    /// Segments, parameters, a rest.
    Pattern(PathPattern),
    /// A regular expression.
    Expression(PathExpression),
}

/// Why a rule does not take a request: the first thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Another listener.
    Listener,
    /// Another host.
    Host,
    /// Another path.
    Path,
    /// This header, query parameter or cookie is missing or different.
    Condition(Unmet),
    /// Another method. Checked last, because a rule that fails in nothing else makes a 405.
    Method,
}

/// What decides among rules that match the same request; the least is the winner.
pub(super) type Rank = (
    (u8, usize),
    Vec<u8>,
    bool,
    Reverse<usize>,
    Reverse<usize>,
    bool,
);

impl Rule {
    /// Whether a request takes this route, as far as this route alone is concerned.
    pub fn check(&self, request: &Request<'_>) -> Result<(), Mismatch> {
        if !self.serves(request.listener) {
            return Err(Mismatch::Listener);
        }
        if !self.host.matches(request.host) {
            return Err(Mismatch::Host);
        }
        if !self.path.matches(request.path) {
            return Err(Mismatch::Path);
        }
        self.check_head(request)
    }

    /// The part of [`check`](Self::check) that the look-up by host and path leaves to do.
    pub(super) fn check_head(&self, request: &Request<'_>) -> Result<(), Mismatch> {
        if !self.serves(request.listener) {
            return Err(Mismatch::Listener);
        }
        self.conditions
            .check(request.headers, request.query)
            .map_err(Mismatch::Condition)?;
        if !self.allows(request.method) {
            return Err(Mismatch::Method);
        }
        Ok(())
    }

    /// Whether [`check_head`](Self::check_head) can fail.
    pub(super) fn asks_for_head(&self) -> bool {
        !(self.listeners.is_empty() && self.methods.is_empty() && self.conditions.is_empty())
    }

    /// Whether the method is among those of the route.
    pub(super) fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// Whether the route is served on a listener.
    fn serves(&self, listener: &str) -> bool {
        self.listeners.is_empty() || self.listeners.iter().any(|one| **one == *listener)
    }

    /// Precedence among rules that match the same request, the winner first: host, path, method,
    /// number of headers and cookies, number of query parameters (the order of the Kubernetes
    /// Gateway API), whether it is for some listeners only, and then the name, so that the order
    /// in the file never matters.
    pub fn precedence(&self, other: &Self) -> Ordering {
        self.rank()
            .cmp(&other.rank())
            .then_with(|| self.route.name.cmp(&other.route.name))
    }

    /// The part of [`precedence`](Self::precedence) that is not the name.
    pub(super) fn rank(&self) -> Rank {
        let Conditions {
            headers,
            query,
            cookies,
        } = &self.conditions;
        (
            self.host.rank(),
            self.path.rank(),
            self.methods.is_empty(),
            Reverse(headers.len() + cookies.len()),
            Reverse(query.len()),
            self.listeners.is_empty(),
        )
    }

    /// Whether both rules, which have the same host and path, match exactly the same requests for
    /// some method: an oversight, since only the names would decide between them.
    pub(super) fn collides(&self, other: &Self) -> bool {
        let methods = |a: &Self, b: &Self| a.methods.iter().any(|method| b.allows(method));
        let listeners = |a: &Self, b: &Self| a.listeners.iter().any(|one| b.serves(one));
        self.methods.is_empty() == other.methods.is_empty()
            && self.conditions == other.conditions
            && (self.methods.is_empty() || methods(self, other) || methods(other, self))
            // One that is for fewer listeners than the other is meant to stand beside it.
            && self.listeners.is_empty() == other.listeners.is_empty()
            && (self.listeners.is_empty() || listeners(self, other))
    }
}

impl PathRule {
    /// Whether a path is meant.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.matches(path),
            Self::Expression(expression) => expression.matches(path),
        }
    }

    /// The parameters of a path that matches, in order, still percent-encoded.
    pub fn parameters<'p>(&'p self, path: &'p str) -> Vec<(&'p str, &'p str)> {
        match self {
            Self::Pattern(pattern) => pattern.parameters(path).collect(),
            Self::Expression(expression) => expression.parameters(path),
        }
    }

    /// The names of its parameters.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Pattern(pattern) => pattern.names().collect(),
            Self::Expression(expression) => expression.names().collect(),
        }
    }

    /// Sorts the more specific first: patterns, then expressions, and last the pattern that takes
    /// every path: a fallback that switched off all expressions would be of no use.
    fn rank(&self) -> Vec<u8> {
        match self {
            Self::Pattern(pattern) if pattern.takes_all() => vec![5],
            Self::Pattern(pattern) => pattern.rank(),
            Self::Expression(expression) => [&[4], &expression.rank()[..]].concat(),
        }
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => pattern.fmt(f),
            Self::Expression(expression) => expression.fmt(f),
        }
    }
}
