//! All routes, arranged for look-up: hosts by name, paths as a tree of segments.
//!
//! The tree is walked with the most specific branch first and steps back when the routes at an
//! end do not take the request, so the first route that does is the most specific of all. Every
//! node is visited at most once, whatever the path, and the number of routes elsewhere in the
//! tree does not matter.

use std::collections::HashMap;
use std::str::Split;
use std::sync::Arc;

use foldhash::fast::FixedState;
use http::{HeaderValue, Method};

use super::host::{HostPattern, parents};
use super::path::{PathPattern, Segment, split};
use super::predicate::{Mismatch, PathRule, Request, Rule};
use super::{Match, Route};
use crate::filter::reject::Reject;

/// By names and segments out of the configuration. What a request brings is only looked up, so
/// nobody can fill it with keys that collide, and a quick hash will do.
type Map<T> = HashMap<Box<str>, T, FixedState>;

/// All routes, arranged for look-up.
#[derive(Debug, Default)]
pub struct Table {
    /// In order of precedence; the trees hold indices into it.
    rules: Vec<Rule>,
    exact: Map<Tree>,
    below: Map<Tree>,
    any: Tree,
}

/// The routes of one host, in the order they are looked at.
#[derive(Debug, Default)]
struct Tree {
    patterns: Node,
    /// Under the segments their paths begin with.
    expressions: Node,
    /// Those that take every path.
    all: Vec<usize>,
}

/// A node of the tree of path segments.
#[derive(Debug, Default)]
struct Node {
    literals: Map<Self>,
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
        rules.sort_by_cached_key(|rule| (rule.rank(), Arc::clone(&rule.route.name)));
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
            tree.insert(&rule.path, index);
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
        let mut compare = |end: &[usize]| {
            for (place, first) in end.iter().enumerate() {
                for second in &end[place + 1..] {
                    let (first, second) = (&self.rules[*first], &self.rules[*second]);
                    if first.collides(second) && same_path(&first.path, &second.path) {
                        pairs.push((first.route.name.clone(), second.route.name.clone()));
                    }
                }
            }
        };
        for tree in trees {
            tree.patterns.visit_ends(&mut compare);
            tree.expressions.visit_ends(&mut compare);
            compare(&tree.all);
        }
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
                Ok(Match { route, path })
            }
            None => Err(self.refusal(&allowed)),
        }
    }

    /// The first rule, in order of precedence, whose host and path match and that `takes` the
    /// request: an index into [`rules`](Self::rules).
    pub(super) fn search(
        &self,
        request: &Request<'_>,
        takes: &mut impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let path = request.path;
        let parts = split(path)?;
        self.trees(request.host).find_map(|tree| {
            tree.patterns
                .find(parts.clone(), takes)
                .or_else(|| {
                    let matches = |index: usize| self.rules[index].path.matches(path);
                    let mut takes = |index| matches(index) && takes(index);
                    tree.expressions.find(parts.clone(), &mut takes)
                })
                .or_else(|| tree.all.iter().copied().find(|index| takes(*index)))
        })
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

    /// All routes, in order of precedence.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.rules.iter().map(|rule| &rule.route)
    }

    /// The trees a host may find its route in, the most specific first.
    fn trees(&self, host: &str) -> impl Iterator<Item = &Tree> {
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

/// Whether paths at the same place of a tree are the same.
fn same_path(one: &PathRule, other: &PathRule) -> bool {
    match (one, other) {
        (PathRule::Expression(one), PathRule::Expression(other)) => one == other,
        // Patterns at one place differ in the names of parameters at most.
        _ => true,
    }
}

impl Tree {
    fn insert(&mut self, path: &PathRule, index: usize) {
        match path {
            PathRule::Pattern(pattern) if pattern.takes_all() => self.all.push(index),
            PathRule::Pattern(pattern) => self.patterns.insert(pattern, index),
            PathRule::Expression(expression) => {
                let literal = expression.literal().iter();
                let node = literal.fold(&mut self.expressions, |node, segment| {
                    node.literals.entry(segment.clone()).or_default()
                });
                // Whatever follows the literal segments is left to the expression.
                node.rest.push(index);
            }
        }
    }
}

impl Node {
    fn insert(&mut self, pattern: &PathPattern, index: usize) {
        let segments = pattern.segments().iter();
        let node = segments.fold(self, |node, segment| match segment {
            Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
            Segment::Parameter(_) => node.parameter.get_or_insert_default(),
        });
        if pattern.has_rest() {
            node.rest.push(index);
        } else {
            node.end.push(index);
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
