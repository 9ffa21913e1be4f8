//! Another host or path for the instance than the client asked for.

use std::fmt;

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

use super::path::{PathPattern, Segment, split};
use super::predicate::PathRule;

/// What an instance sees in place of what the client sent.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// The host, with port where one is wanted.
    pub host: Option<HeaderValue>,
    /// The path; the query stays.
    pub path: Option<PathTemplate>,
}

/// A path made of another: `/v1/orders/{id}`, or `/v1/{*rest}` for what stands below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    pattern: PathPattern,
}

impl PathTemplate {
    /// Reads a template, in the form of a path pattern. The error is a reason in one line.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let pattern = PathPattern::parse_template(text)?;
        Ok(Self { pattern })
    }

    /// A template that replaces a prefix: the part of a pattern before its rest, of this name.
    pub fn prefix(text: &str, rest: &str) -> Result<Self, &'static str> {
        let text = text.strip_suffix('/').unwrap_or(text);
        Self::parse(&format!("{text}/{{*{rest}}}"))
    }

    /// The names of the parameters it needs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pattern.names()
    }

    /// Whether it ends in the rest of the path.
    pub fn rest(&self) -> Option<&str> {
        self.pattern.rest()
    }

    /// The path made of `path`, which `matched` it.
    pub fn make(&self, matched: &PathRule, path: &str) -> String {
        let parameters = matched.parameters(path);
        let value = |name: &str| {
            let found = parameters.iter().find(|(known, _)| *known == name);
            found.map_or("", |(_, value)| *value)
        };
        let mut made = String::with_capacity(path.len());
        for segment in self.pattern.segments() {
            made.push('/');
            match segment {
                Segment::Literal(text) => made.push_str(text),
                Segment::Parameter(name) => made.push_str(value(name)),
            }
        }
        if let Some(name) = self.pattern.rest() {
            match matched {
                // The rest begins with its slash, if there is one: `/v2` becomes `/v1`, and
                // `/v2/` becomes `/v1/`.
                PathRule::Pattern(pattern) if pattern.rest() == Some(name) => {
                    made.push_str(below(path, pattern.segments().len()));
                }
                _ => {
                    made.push('/');
                    made.push_str(value(name).trim_start_matches('/'));
                }
            }
        }
        if made.is_empty() {
            made.push('/');
        }
        made
    }
}

/// What of a path stands behind this many segments, from the slash on.
fn below(path: &str, segments: usize) -> &str {
    let mut slashes = path.match_indices('/');
    slashes
        .nth(segments)
        .map_or("", |(slash, _)| &path[slash..])
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pattern.fmt(f)
    }
}

/// The URI in origin form with this path and the query of `uri`; nothing if that is no URI.
pub fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    // A parameter out of an expression may hold anything a path can, dots and slashes too.
    let odd = |segment: &str| segment == "." || segment == "..";
    if split(path)?.any(odd) {
        return None;
    }
    let target = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target.ok().map(Uri::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::expression::PathExpression;

    #[test]
    fn paths_are_made_of_what_the_pattern_took() {
        let cases = [
            ("/a", "/b", "/a", "/b"),
            (
                "/users/{id}",
                "/people/{id}/show",
                "/users/7",
                "/people/7/show",
            ),
            ("/{a}/{b}", "/{b}/{a}", "/1/2%20", "/2%20/1"),
            ("/v2/{*rest}", "/v1/{*rest}", "/v2", "/v1"),
            ("/v2/{*rest}", "/v1/{*rest}", "/v2/", "/v1/"),
            ("/v2/{*rest}", "/v1/{*rest}", "/v2/a/b", "/v1/a/b"),
            ("/v2/{*rest}", "/{*rest}", "/v2", "/"),
            ("/v2/{*rest}", "/{*rest}", "/v2/", "/"),
            ("/v2/{*rest}", "/{*rest}", "/v2/a", "/a"),
            ("/{*rest}", "/x/{*rest}", "/", "/x/"),
            ("/{*rest}", "/x/{*rest}", "/a", "/x/a"),
            ("/t/{t}/{*rest}", "/{t}/{*rest}", "/t/acme/a/", "/acme/a/"),
            ("/v2/{*rest}", "/only", "/v2/a", "/only"),
            ("~ /(?<id>[0-9]+)/x", "/x/{id}", "/7/x", "/x/7"),
            ("~ /old/(?<rest>.*)", "/new/{*rest}", "/old/a/b", "/new/a/b"),
        ];
        for (pattern, template, path, expected) in cases {
            let matched = match pattern.strip_prefix("~ ") {
                Some(text) => PathRule::Expression(PathExpression::parse(text).unwrap()),
                None => PathRule::Pattern(PathPattern::parse(pattern).unwrap()),
            };
            assert!(matched.matches(path), "{pattern} {path}");
            let made = PathTemplate::parse(template).unwrap().make(&matched, path);
            assert_eq!(made, expected, "{pattern} to {template} on {path}");
        }
    }

    /// The table of the Gateway API's `ReplacePrefixMatch`.
    #[test]
    fn prefixes_are_replaced_as_the_gateway_api_says() {
        let cases = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ];
        for (path, matched, replacement, expected) in cases {
            let pattern = format!("{matched}/{{*rest}}");
            let matched = PathRule::Pattern(PathPattern::parse(&pattern).unwrap());
            let template = PathTemplate::prefix(replacement, "rest").unwrap();
            assert_eq!(
                template.make(&matched, path),
                expected,
                "{path} {replacement}"
            );
        }
    }

    #[test]
    fn the_query_stays_and_dots_are_refused() {
        let uri: Uri = "/a?b=c%20d".parse().unwrap();
        assert_eq!(with_path(&uri, "/x").unwrap(), "/x?b=c%20d");
        assert_eq!(with_path(&"/a".parse().unwrap(), "/x").unwrap(), "/x");
        for path in ["/a/../b", "/.", "", "a", "/a b"] {
            assert_eq!(with_path(&uri, path), None, "{path}");
        }
    }
}
