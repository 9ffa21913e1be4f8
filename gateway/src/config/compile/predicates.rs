//! What requests must be for a route.

use http::{HeaderName, Method};

use super::super::error::Problem;
use super::super::file::{Listener, Named, PathMatch, Placed, Predicates, ValueMatch};
use super::Compiler;
use crate::route::expression::PathExpression;
use crate::route::host::HostPattern;
use crate::route::path::PathPattern;
use crate::route::predicate::PathRule;
use crate::route::wanted::{Conditions, HeaderPredicate, NamedPredicate, Wanted};

/// The methods a route may ask for: those registered with IANA that people use. CONNECT and TRACE
/// are not forwarded at all.
const METHODS: [&str; 17] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
];

/// Headers, query parameters or cookies a route may ask for, of each.
const CONDITIONS_MAX: usize = 16;

/// The tables in which conditions on a request are written.
pub(super) struct TypedConditions<'f> {
    pub(super) headers: &'f Named<Placed<ValueMatch>>,
    pub(super) query: &'f Named<Placed<ValueMatch>>,
    pub(super) cookies: &'f Named<Placed<ValueMatch>>,
}

/// Everything a rule is made of but the route.
pub(super) struct Matching {
    pub(super) listeners: Box<[Box<str>]>,
    pub(super) host: HostPattern,
    pub(super) path: PathRule,
    pub(super) methods: Vec<Method>,
    pub(super) conditions: Conditions,
}

impl Compiler<'_> {
    pub(super) fn matching(
        &mut self,
        typed: &Predicates,
        listeners: &Named<Listener>,
    ) -> Option<Matching> {
        for name in &typed.listeners {
            if !listeners.contains_key(name.as_str()) {
                let known = listeners.keys().map(|known| known.as_str());
                let problem = Problem::at(name.span(), format!("unknown listener `{name}`"));
                self.refuse(problem.nearest(name, known));
            }
        }
        let host = match &typed.host {
            None => Some(HostPattern::Any),
            Some(text) => self.host(text),
        };
        let path = self.path_rule(&typed.path);
        let methods = self.methods(&typed.methods);
        let conditions = self.conditions(&TypedConditions {
            headers: &typed.headers,
            query: &typed.query,
            cookies: &typed.cookies,
        });
        let listeners = typed.listeners.iter();
        Some(Matching {
            listeners: listeners.map(|name| name.as_str().into()).collect(),
            host: host?,
            path: path?,
            methods,
            conditions,
        })
    }

    fn host(&mut self, text: &Placed<String>) -> Option<HostPattern> {
        HostPattern::parse(text)
            .map_err(|reason| {
                let message = format!("invalid host `{text}`: {reason}");
                let hint = "write a name without port, or `*.example.com` for all below it";
                self.refuse(Problem::at(text.span(), message).hint(hint));
            })
            .ok()
    }

    fn path_rule(&mut self, typed: &Placed<PathMatch>) -> Option<PathRule> {
        match &**typed {
            PathMatch::Pattern(text) => PathPattern::parse(text)
                .map(PathRule::Pattern)
                .map_err(|reason| {
                    let message = format!("invalid path `{text}`: {reason}");
                    let hint =
                        "write `/a/b`, `/users/{id}`, or `/v2/{*rest}` for `/v2` and all below";
                    self.refuse(Problem::at(typed.span(), message).hint(hint));
                })
                .ok(),
            PathMatch::Regex(text) => PathExpression::parse(text)
                .map(PathRule::Expression)
                .map_err(|reason| {
                    let message = format!("invalid expression `{text}`: {reason}");
                    let hint = "it must match the whole path, as in `/users/[0-9]+`";
                    self.refuse(Problem::at(typed.span(), message).hint(hint));
                })
                .ok(),
        }
    }

    pub(super) fn methods(&mut self, typed: &[Placed<String>]) -> Vec<Method> {
        let mut methods = Vec::new();
        for text in typed {
            if !METHODS.contains(&text.as_str()) {
                let message = format!("unknown method `{text}`");
                let problem = Problem::at(text.span(), message);
                self.refuse(problem.nearest(&text.to_ascii_uppercase(), METHODS));
            } else if let Ok(method) = text.parse() {
                methods.push(method);
            }
        }
        methods
    }

    /// Headers, query parameters and cookies.
    pub(super) fn conditions(&mut self, typed: &TypedConditions<'_>) -> Conditions {
        for (table, what) in [
            (typed.headers, "headers"),
            (typed.query, "query parameters"),
            (typed.cookies, "cookies"),
        ] {
            if let Some(name) = table.keys().nth(CONDITIONS_MAX) {
                let message = format!("a route asks for {CONDITIONS_MAX} {what} at most");
                self.refuse(Problem::at(name.span(), message));
            }
        }
        Conditions {
            headers: self.headers(typed.headers),
            query: self.named(typed.query),
            cookies: self.cookies(typed.cookies),
        }
    }

    fn headers(&mut self, typed: &Named<Placed<ValueMatch>>) -> Vec<HeaderPredicate> {
        let mut predicates = Vec::new();
        for (name, wanted) in typed {
            let Some(header) = self.header_name(name) else {
                continue;
            };
            if header == http::header::HOST {
                let problem = Problem::at(name.span(), "the host is no header for routes");
                self.refuse(problem.hint("write `host = \"…\"` in `match`"));
            }
            if let Some(wanted) = self.wanted(wanted) {
                predicates.push(HeaderPredicate {
                    name: header,
                    wanted,
                });
            }
        }
        predicates.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        if let Some(pair) = predicates
            .windows(2)
            .find(|pair| pair[0].name == pair[1].name)
        {
            let same = typed.keys().filter(|name| pair[0].name == name.as_str());
            let span = same.last().map(Placed::span).unwrap_or_default();
            let message = format!("header `{}` is asked for twice", pair[0].name);
            self.refuse(Problem::at(span, message));
        }
        predicates
    }

    fn cookies(&mut self, typed: &Named<Placed<ValueMatch>>) -> Vec<NamedPredicate> {
        for name in typed.keys() {
            // RFC 6265 section 4.1.1: a token, as header names are.
            if HeaderName::try_from(name.as_str()).is_err() {
                let message = format!("`{name}` is no cookie name");
                self.refuse(Problem::at(name.span(), message));
            }
        }
        self.named(typed)
    }

    fn named(&mut self, typed: &Named<Placed<ValueMatch>>) -> Vec<NamedPredicate> {
        let mut predicates = Vec::new();
        for (name, wanted) in typed {
            if let Some(wanted) = self.wanted(wanted) {
                predicates.push(NamedPredicate {
                    name: name.as_str().into(),
                    wanted,
                });
            }
        }
        predicates
    }

    fn wanted(&mut self, typed: &Placed<ValueMatch>) -> Option<Wanted> {
        Some(match &**typed {
            ValueMatch::Exact(value) => Wanted::Exact(value.as_bytes().into()),
            ValueMatch::Present(present) => Wanted::Present(*present),
            ValueMatch::Regex(expression) => match Wanted::regex(expression) {
                Ok(wanted) => wanted,
                Err(error) => {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default();
                    let message = format!("invalid expression `{expression}`: {reason}");
                    self.refuse(Problem::at(typed.span(), message));
                    return None;
                }
            },
        })
    }
}
