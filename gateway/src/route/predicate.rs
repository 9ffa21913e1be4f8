//! What a request must be for a route, as data: host, path, methods, headers.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use regex::bytes::{Regex, RegexBuilder};

use super::Route;
use super::host::HostPattern;
use super::path::PathPattern;

/// Bytes a compiled expression may take up; bounds what a configuration can cost.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A route and what a request must be to take it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The route.
    pub route: Arc<Route>,
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
    /// Which methods; empty: any. GET stands for HEAD too (RFC 9110 section 9.3.2).
    pub methods: Vec<Method>,
    /// Which headers; all of them must hold. In order of name.
    pub headers: Vec<HeaderPredicate>,
}

/// Why a rule does not take a request: the first thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Another host.
    Host,
    /// Another path.
    Path,
    /// This header is missing or different.
    Header(HeaderName),
    /// Another method. Checked last, because a rule that fails in nothing else makes a 405.
    Method,
}

impl Rule {
    /// Whether a request takes this route, as far as this route alone is concerned.
    pub fn check(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Mismatch> {
        if !self.host.matches(host) {
            return Err(Mismatch::Host);
        }
        if !self.path.matches(path) {
            return Err(Mismatch::Path);
        }
        self.check_head(method, headers)
    }

    /// The part of [`check`](Self::check) that the look-up by host and path leaves to do.
    pub(super) fn check_head(&self, method: &Method, headers: &HeaderMap) -> Result<(), Mismatch> {
        if let Some(failed) = self
            .headers
            .iter()
            .find(|predicate| !predicate.holds(headers))
        {
            return Err(Mismatch::Header(failed.name.clone()));
        }
        if !self.allows(method) {
            return Err(Mismatch::Method);
        }
        Ok(())
    }

    /// Whether the method is among those of the route.
    pub(super) fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// Precedence among rules that match the same request, the winner first: host, path, method,
    /// number of headers (the order of the Kubernetes Gateway API), and then the name, so that
    /// the order in the file never matters.
    pub fn precedence(&self, other: &Self) -> Ordering {
        let key = |rule: &Self| {
            let any_method = rule.methods.is_empty();
            (
                rule.host.rank(),
                rule.path.rank(),
                any_method,
                Reverse(rule.headers.len()),
            )
        };
        key(self)
            .cmp(&key(other))
            .then_with(|| self.route.name.cmp(&other.route.name))
    }

    /// Whether both rules match exactly the same requests for some method: an oversight, since
    /// only the names would decide between them.
    pub(super) fn collides(&self, other: &Self) -> bool {
        let methods = |a: &Self, b: &Self| a.methods.iter().any(|method| b.allows(method));
        self.methods.is_empty() == other.methods.is_empty()
            && self.headers == other.headers
            && (self.methods.is_empty() || methods(self, other) || methods(other, self))
    }
}

/// What one header must be.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderPredicate {
    /// Its name.
    pub name: HeaderName,
    /// What must hold for one of its values.
    pub wanted: HeaderWanted,
}

/// What must hold for a header.
#[derive(Clone, Debug)]
pub enum HeaderWanted {
    /// One of its values is this one.
    Exact(Box<[u8]>),
    /// The expression matches one of its values as a whole.
    Regex {
        /// As written.
        expression: Box<str>,
        /// As compiled, with anchors.
        compiled: Box<Regex>,
    },
    /// It is there (true), or it is not (false).
    Present(bool),
}

impl HeaderWanted {
    /// Compiles an expression that must match a value as a whole.
    pub fn regex(expression: &str) -> Result<Self, regex::Error> {
        // Compiled alone first, so that an unbalanced `)` cannot close the group added here.
        Regex::new(expression)?;
        let compiled = RegexBuilder::new(&format!("^(?:{expression})$"))
            .size_limit(REGEX_BYTES_MAX)
            .build()?;
        Ok(Self::Regex {
            expression: expression.into(),
            compiled: Box::new(compiled),
        })
    }
}

impl HeaderPredicate {
    fn holds(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        match &self.wanted {
            HeaderWanted::Exact(wanted) => values.any(|value| value.as_bytes() == &**wanted),
            HeaderWanted::Regex { compiled, .. } => {
                values.any(|value| compiled.is_match(value.as_bytes()))
            }
            HeaderWanted::Present(wanted) => values.next().is_some() == *wanted,
        }
    }
}

/// Expressions are the same when they are written the same.
impl PartialEq for HeaderWanted {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(two)) => one == two,
            (
                Self::Regex {
                    expression: one, ..
                },
                Self::Regex {
                    expression: two, ..
                },
            ) => one == two,
            (Self::Present(one), Self::Present(two)) => one == two,
            _ => false,
        }
    }
}

impl fmt::Display for HeaderWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "= {:?}", String::from_utf8_lossy(value)),
            Self::Regex { expression, .. } => write!(f, "~ {expression}"),
            Self::Present(true) => f.write_str("present"),
            Self::Present(false) => f.write_str("absent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn headers_hold_as_asked() {
        let mut headers = HeaderMap::new();
        headers.append("x-version", HeaderValue::from_static("2"));
        headers.append("x-version", HeaderValue::from_static("30"));
        let cases = [
            (
                "x-version",
                HeaderWanted::Exact(b"2".as_slice().into()),
                true,
            ),
            (
                "x-version",
                HeaderWanted::Exact(b"30".as_slice().into()),
                true,
            ),
            (
                "x-version",
                HeaderWanted::Exact(b"3".as_slice().into()),
                false,
            ),
            ("x-version", HeaderWanted::regex("[0-9]{2}").unwrap(), true),
            ("x-version", HeaderWanted::regex("3").unwrap(), false),
            ("x-version", HeaderWanted::regex("2|x").unwrap(), true),
            ("x-version", HeaderWanted::Present(true), true),
            ("x-version", HeaderWanted::Present(false), false),
            ("x-other", HeaderWanted::Present(false), true),
            ("x-other", HeaderWanted::Exact(b"".as_slice().into()), false),
        ];
        for (name, wanted, expected) in cases {
            let predicate = HeaderPredicate {
                name: HeaderName::from_static(name),
                wanted,
            };
            assert_eq!(predicate.holds(&headers), expected, "{predicate:?}");
        }
    }

    #[test]
    fn an_expression_cannot_break_out_of_its_anchors_or_grow_without_bound() {
        assert!(HeaderWanted::regex("a)|(?:b").is_err());
        assert!(HeaderWanted::regex("(").is_err());
        assert!(HeaderWanted::regex(r"\w{9999}").is_err());
    }
}
