//! What a value in a request must be: of a header field, a query parameter, a cookie.

use std::fmt;

use http::{HeaderMap, HeaderName};
use regex::bytes::{Regex, RegexBuilder};

use super::{cookie, query};

/// Bytes a compiled expression may take up; bounds what a configuration can cost.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Bytes an expression may take up while it runs, on each thread; beyond it is only slower.
const REGEX_CACHE_BYTES_MAX: usize = 256 << 10;

/// What must hold for a value.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// It is this one.
    Exact(Box<[u8]>),
    /// The expression matches it as a whole.
    Regex {
        /// As written.
        expression: Box<str>,
        /// As compiled, with anchors.
        compiled: Box<Regex>,
    },
    /// There is one (true), or there is none (false).
    Present(bool),
}

impl Wanted {
    /// Compiles an expression that must match a value as a whole.
    pub fn regex(expression: &str) -> Result<Self, regex::Error> {
        Ok(Self::Regex {
            expression: expression.into(),
            compiled: Box::new(anchored(expression)?),
        })
    }

    /// Whether this holds for something with these values.
    fn holds<V: AsRef<[u8]>>(&self, mut values: impl Iterator<Item = V>) -> bool {
        match self {
            Self::Exact(wanted) => values.any(|value| value.as_ref() == &**wanted),
            Self::Regex { compiled, .. } => values.any(|value| compiled.is_match(value.as_ref())),
            Self::Present(wanted) => values.next().is_some() == *wanted,
        }
    }
}

/// An expression that matches texts as a whole, bounded in what it may take up.
pub(super) fn anchored(expression: &str) -> Result<Regex, regex::Error> {
    // Read alone first, so that an unbalanced `)` cannot close the group added here.
    let parser = regex_syntax::ParserBuilder::new().utf8(false).build();
    if { parser }.parse(expression).is_err() {
        // For the error.
        Regex::new(expression)?;
    }
    RegexBuilder::new(&format!("^(?:{expression})$"))
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_CACHE_BYTES_MAX)
        .build()
}

/// Expressions are the same when they are written the same.
impl PartialEq for Wanted {
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

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "= {:?}", String::from_utf8_lossy(value)),
            Self::Regex { expression, .. } => write!(f, "~ {expression}"),
            Self::Present(true) => f.write_str("present"),
            Self::Present(false) => f.write_str("absent"),
        }
    }
}

/// What one header field must be: one of its values, if it has several.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderPredicate {
    /// Its name.
    pub name: HeaderName,
    /// What must hold.
    pub wanted: Wanted,
}

impl HeaderPredicate {
    fn holds(&self, headers: &HeaderMap) -> bool {
        self.wanted.holds(headers.get_all(&self.name).iter())
    }
}

/// What one query parameter or cookie must be: the first of this name, if there are several, as
/// the Gateway API recommends.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPredicate {
    /// Its name, decoded.
    pub name: Box<str>,
    /// What must hold.
    pub wanted: Wanted,
}

/// What header fields, query parameters and cookies must be; all of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// In order of name.
    pub headers: Vec<HeaderPredicate>,
    /// In order of name.
    pub query: Vec<NamedPredicate>,
    /// In order of name.
    pub cookies: Vec<NamedPredicate>,
}

/// The first condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// This header is missing or different.
    Header(HeaderName),
    /// This query parameter is missing or different.
    Query(Box<str>),
    /// This cookie is missing or different.
    Cookie(Box<str>),
}

impl Conditions {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.query.is_empty() && self.cookies.is_empty()
    }

    /// Whether a request meets all of them; `query` is without `?`, as sent.
    pub fn check(&self, headers: &HeaderMap, query: Option<&str>) -> Result<(), Unmet> {
        if let Some(failed) = self.headers.iter().find(|one| !one.holds(headers)) {
            return Err(Unmet::Header(failed.name.clone()));
        }
        let holds =
            |one: &&NamedPredicate| !one.wanted.holds(query::first(query, &one.name).into_iter());
        if let Some(failed) = self.query.iter().find(holds) {
            return Err(Unmet::Query(failed.name.clone()));
        }
        let holds = |one: &&NamedPredicate| {
            !one.wanted
                .holds(cookie::first(headers, &one.name).into_iter())
        };
        match self.cookies.iter().find(holds) {
            Some(failed) => Err(Unmet::Cookie(failed.name.clone())),
            None => Ok(()),
        }
    }
}

impl Conditions {
    /// What an unmet condition wanted, as people read it.
    pub fn unmet(&self, unmet: &Unmet) -> String {
        let mut only = Self::default();
        match unmet {
            Unmet::Header(name) => {
                let headers = self.headers.iter().filter(|one| one.name == *name);
                only.headers.extend(headers.cloned());
            }
            Unmet::Query(name) => {
                let query = self.query.iter().filter(|one| one.name == *name);
                only.query.extend(query.cloned());
            }
            Unmet::Cookie(name) => {
                let cookies = self.cookies.iter().filter(|one| one.name == *name);
                only.cookies.extend(cookies.cloned());
            }
        }
        only.to_string()
    }
}

/// As people read it: `header x-beta = "on", query page present`.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self.headers.iter();
        let headers = headers.map(|one| format!("header {} {}", one.name, one.wanted));
        let named = |what: &'static str, all: &[NamedPredicate]| -> Vec<String> {
            let all = all.iter();
            all.map(|one| format!("{what} {} {}", one.name, one.wanted))
                .collect()
        };
        let all = headers
            .chain(named("query", &self.query))
            .chain(named("cookie", &self.cookies));
        f.write_str(&all.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn exact(value: &str) -> Wanted {
        Wanted::Exact(value.as_bytes().into())
    }

    #[test]
    fn headers_hold_as_asked() {
        let mut headers = HeaderMap::new();
        headers.append("x-version", HeaderValue::from_static("2"));
        headers.append("x-version", HeaderValue::from_static("30"));
        let cases = [
            ("x-version", exact("2"), true),
            ("x-version", exact("30"), true),
            ("x-version", exact("3"), false),
            ("x-version", Wanted::regex("[0-9]{2}").unwrap(), true),
            ("x-version", Wanted::regex("3").unwrap(), false),
            ("x-version", Wanted::regex("2|x").unwrap(), true),
            ("x-version", Wanted::Present(true), true),
            ("x-version", Wanted::Present(false), false),
            ("x-other", Wanted::Present(false), true),
            ("x-other", exact(""), false),
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
    fn query_and_cookies_hold_by_their_first_value() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1; b=x; a=2"));
        let cases = [
            ("a", exact("1"), true, true),
            ("a", exact("2"), false, false),
            ("b", Wanted::regex("[xy]").unwrap(), true, true),
            ("b", Wanted::regex("[y]").unwrap(), false, false),
            ("c", Wanted::Present(false), true, true),
            ("c", Wanted::Present(true), false, false),
            ("b", Wanted::Present(true), true, true),
        ];
        for (name, wanted, in_query, in_cookies) in cases {
            let one = vec![NamedPredicate {
                name: name.into(),
                wanted,
            }];
            let query = Conditions {
                query: one.clone(),
                ..Conditions::default()
            };
            let cookies = Conditions {
                cookies: one,
                ..Conditions::default()
            };
            let unmet = Unmet::Query(name.into());
            let expected = if in_query { Ok(()) } else { Err(unmet) };
            assert_eq!(query.check(&headers, Some("a=1&b=x&a=2")), expected);
            let unmet = Unmet::Cookie(name.into());
            let expected = if in_cookies { Ok(()) } else { Err(unmet) };
            assert_eq!(cookies.check(&headers, None), expected);
        }
    }

    #[test]
    fn an_expression_cannot_break_out_of_its_anchors_or_grow_without_bound() {
        assert!(Wanted::regex("a)|(?:b").is_err());
        assert!(Wanted::regex("(").is_err());
        assert!(Wanted::regex(r"\w{9999}").is_err());
    }
}
