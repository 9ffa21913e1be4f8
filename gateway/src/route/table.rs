//! All routes, arranged for look-up: hosts by name, paths as a tree of segments.
//!
//! The tree is walked with the most specific branch first and steps back when the routes at an
//! end do not take the request, so the first route that does is the most specific of all. Every
//! node is visited at most once, whatever the path, and the number of routes elsewhere in the
//! tree does not matter.

mod forest;
mod grove;
mod slots;

use std::sync::Arc;

use http::{HeaderValue, Method};

use self::forest::{End, Forest};
use self::grove::Grove;
use super::predicate::{Mismatch, PathRule, Request, Rule};
use super::{Match, Position, Route};
use crate::filter::reject::Reject;

/// All routes, arranged for look-up.
#[derive(Debug)]
pub struct Table {
    /// In order of precedence; the trees hold indices into it.
    rules: Box<[Rule]>,
    forest: Forest,
}

/// What came of one route, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It takes the request.
    Chosen,
    /// It would match, but a more specific route takes the request.
    LessSpecific,
    /// It does not match.
    Mismatch(Mismatch),
}

impl Table {
    /// Arranges rules, given in any order.
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_cached_key(|rule| (rule.rank(), Arc::clone(&rule.route.name)));
        let forest = Grove::new(&rules).plant();
        Self {
            rules: rules.into(),
            forest,
        }
    }

    /// Pairs of routes that match exactly the same requests for some method, by name.
    pub fn collisions(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let mut pairs = Vec::new();
        for end in self.forest.crowded() {
            for (place, first) in end.iter().enumerate() {
                for second in &end[place + 1..] {
                    let (first, second) = (&self.rules[first.index()], &self.rules[second.index()]);
                    if first.collides(second) && same_path(&first.path, &second.path) {
                        pairs.push((first.route.name.clone(), second.route.name.clone()));
                    }
                }
            }
        }
        // An expression of several alternatives has several ends.
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }

    /// The most specific route for a request, or the refusal it gets instead.
    pub fn find(&self, request: &Request<'_>) -> Result<Match<'_>, Reject> {
        let mut allowed = Vec::new();
        let found = self.search(
            request,
            &mut |index| match self.rules[index].check_head(request) {
                Ok(()) => true,
                Err(Mismatch::Method) => {
                    allowed.push(index);
                    false
                }
                Err(_) => false,
            },
        );
        match found {
            Some(index) => {
                let Rule { route, path, .. } = &self.rules[index];
                Ok(Match {
                    route,
                    path,
                    position: Position(index),
                })
            }
            None => Err(self.refusal(&allowed)),
        }
    }

    /// The first rule, in order of precedence, whose host and path match and that asks for no more
    /// or `takes` the request: an index into [`rules`](Self::rules).
    pub(super) fn search(
        &self,
        request: &Request<'_>,
        takes: &mut impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let path = request.path;
        let mut takes = |end: End| {
            let index = end.index();
            (!end.asks_for_path() || self.rules[index].path.matches(path))
                && (!end.asks_for_head() || takes(index))
        };
        let found = self.forest.find(request.host, path, &mut takes);
        found.map(End::index)
    }

    /// Every route in order of precedence, and what came of it.
    pub fn explain(&self, request: &Request<'_>) -> Vec<(&Rule, Outcome)> {
        let mut chosen = false;
        let outcome = |rule: &Rule| match rule.check(request) {
            Err(mismatch) => Outcome::Mismatch(mismatch),
            Ok(()) if std::mem::replace(&mut chosen, true) => Outcome::LessSpecific,
            Ok(()) => Outcome::Chosen,
        };
        let outcomes: Vec<Outcome> = self.rules.iter().map(outcome).collect();
        self.rules.iter().zip(outcomes).collect()
    }

    /// All routes with what they match, in order of precedence.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The route at a position where this table has found one.
    pub fn route(&self, position: Position) -> &Route {
        &self.rules[position.0].route
    }

    /// All routes, in order of precedence.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.rules.iter().map(|rule| &rule.route)
    }

    /// 405 with `Allow` if routes failed in the method alone, else 404.
    fn refusal(&self, method_only: &[usize]) -> Reject {
        let rules = method_only.iter().map(|index| &self.rules[*index]);
        let mut methods: Vec<&str> = rules
            .flat_map(|rule| &rule.methods)
            .map(Method::as_str)
            .collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.sort_unstable();
        methods.dedup();
        match HeaderValue::try_from(methods.join(", ")) {
            Ok(allow) if !methods.is_empty() => Reject::MethodNotAllowed { allow },
            _ => Reject::RouteNotFound,
        }
    }
}

/// Whether paths at the same place of a tree are the same.
fn same_path(one: &PathRule, other: &PathRule) -> bool {
    match (one, other) {
        (PathRule::Expression(one), PathRule::Expression(other)) => one == other,
        // Patterns at one place differ in the names of parameters at most.
        _ => true,
    }
}
