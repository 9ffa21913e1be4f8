//! All routes, arranged for look-up: hosts by name, paths as a tree of segments.
//!
//! The tree is walked with the most specific branch first and steps back when the routes at an
//! end do not take the request, so the first route that does is the most specific of all. Every
//! node is visited at most once, whatever the path.

use std::collections::HashMap;
use std::str::Split;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use super::host::{HostPattern, parents};
use super::path::{Segment, split};
use super::predicate::{Mismatch, Rule};
use super::{Match, Route};
use crate::filter::reject::Reject;

/// All routes, arranged for look-up.
#[derive(Debug, Default)]
pub struct Table {
    /// In order of precedence; the trees hold indices into it.
    rules: Vec<Rule>,
    exact: HashMap<Box<str>, Node>,
    below: HashMap<Box<str>, Node>,
    any: Node,
}

/// A node of the tree of path segments.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Self>,
    parameter: Option<Box<Self>>,
    /// Rules whose path ends here.
    end: Vec<usize>,
    /// Rules whose rest begins here.
    rest: Vec<usize>,
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
        rules.sort_by(Rule::precedence);
        let mut table = Self {
            rules,
            ..Self::default()
        };
        for (index, rule) in table.rules.iter().enumerate() {
            let tree = match &rule.host {
                HostPattern::Exact(name) => table.exact.entry(name.clone()).or_default(),
                HostPattern::Below(name) => table.below.entry(name.clone()).or_default(),
                HostPattern::Any => &mut table.any,
            };
            tree.insert(rule.path.segments(), rule.path.has_rest(), index);
        }
        table
    }

    /// Pairs of routes that match exactly the same requests for some method, by name.
    pub fn collisions(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let trees = self
            .exact
            .values()
            .chain(self.below.values())
            .chain([&self.any]);
        let mut pairs = Vec::new();
        for tree in trees {
            tree.visit_ends(&mut |end| {
                for (place, first) in end.iter().enumerate() {
                    for second in &end[place + 1..] {
                        let (first, second) = (&self.rules[*first], &self.rules[*second]);
                        if first.collides(second) {
                            pairs.push((first.route.name.clone(), second.route.name.clone()));
                        }
                    }
                }
            });
        }
        pairs
    }

    /// The most specific route for a request, or the refusal it gets instead.
    ///
    /// `host` is without port, in lower case; `path` without query, normalised.
    pub fn find(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Match<'_>, Reject> {
        let mut allowed = Vec::new();
        let mut takes = |index: usize| match self.rules[index].check_head(method, headers) {
            Ok(()) => true,
            Err(Mismatch::Method) => {
                allowed.push(index);
                false
            }
            Err(_) => false,
        };
        for tree in self.trees(host) {
            if let Some(index) = split(path).and_then(|parts| tree.find(parts, &mut takes)) {
                let Rule { route, path, .. } = &self.rules[index];
                return Ok(Match { route, path });
            }
        }
        Err(self.refusal(&allowed))
    }

    /// Every route in order of precedence, and what came of it.
    pub fn explain(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Vec<(&Rule, Outcome)> {
        let mut chosen = false;
        let outcome = |rule: &Rule| match rule.check(host, method, path, headers) {
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

    /// All routes, in order of precedence.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.rules.iter().map(|rule| &rule.route)
    }

    /// The trees a host may find its route in, the most specific first.
    fn trees(&self, host: &str) -> impl Iterator<Item = &Node> {
        let below = parents(host).filter_map(|parent| self.below.get(parent));
        self.exact
            .get(host)
            .into_iter()
            .chain(below)
            .chain([&self.any])
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

impl Node {
    fn insert(&mut self, segments: &[Segment], has_rest: bool, index: usize) {
        match segments.split_first() {
            Some((Segment::Literal(text), others)) => {
                self.literals
                    .entry(text.clone())
                    .or_default()
                    .insert(others, has_rest, index);
            }
            Some((Segment::Parameter(_), others)) => {
                self.parameter
                    .get_or_insert_default()
                    .insert(others, has_rest, index);
            }
            None if has_rest => self.rest.push(index),
            None => self.end.push(index),
        }
    }

    /// The first rule, in order of precedence, that matches the remaining segments and `takes`
    /// the request.
    fn find(
        &self,
        mut parts: Split<'_, char>,
        takes: &mut impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let Some(part) = parts.next() else {
            return self
                .end
                .iter()
                .chain(&self.rest)
                .copied()
                .find(|index| takes(*index));
        };
        let literal = self.literals.get(part);
        let parameter = self.parameter.as_deref().filter(|_| !part.is_empty());
        literal
            .and_then(|child| child.find(parts.clone(), takes))
            .or_else(|| parameter.and_then(|child| child.find(parts.clone(), takes)))
            .or_else(|| self.rest.iter().copied().find(|index| takes(*index)))
    }

    fn visit_ends(&self, visit: &mut impl FnMut(&[usize])) {
        visit(&self.end);
        visit(&self.rest);
        for child in self.literals.values().chain(self.parameter.as_deref()) {
            child.visit_ends(visit);
        }
    }
}
