//! The path a route is for: literal segments, parameters, and a rest.
//!
//! `/users/{id}` takes exactly two segments, the second not empty. `/v2/{*rest}` takes `/v2`,
//! `/v2/` and everything below. A trailing slash makes another path, as it does on the web.

use std::fmt;
use std::str::Split;

/// Segments of a pattern at most; the depth of the tree the patterns are kept in.
const SEGMENTS_MAX: usize = 64;

/// One segment of a pattern. The order is the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// This text, byte for byte.
    Literal(Box<str>),
    /// Any text but none; holds the parameter's name.
    Parameter(Box<str>),
}

/// Which paths a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    /// The name of the rest, if the pattern ends in one.
    rest: Option<Box<str>>,
}

impl PathPattern {
    /// Reads a pattern. The error is a reason in one line.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let pattern = Self::parse_template(text)?;
        let mut names: Vec<&str> = pattern.names().collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("two parameters have the same name");
        }
        Ok(pattern)
    }

    /// The same where a parameter may stand several times: in what is made of a path.
    pub(super) fn parse_template(text: &str) -> Result<Self, &'static str> {
        let mut segments = Vec::new();
        let mut rest = None;
        for part in split(text).ok_or("a path begins with `/`")? {
            if rest.is_some() {
                return Err("`{*…}` stands at the end only");
            }
            match part
                .strip_prefix('{')
                .and_then(|inner| inner.strip_suffix('}'))
            {
                Some(inner) => match inner.strip_prefix('*') {
                    Some(name) => rest = Some(parameter_name(name)?),
                    None => segments.push(Segment::Parameter(parameter_name(inner)?)),
                },
                None => segments.push(Segment::Literal(literal(part)?)),
            }
        }
        let pattern = Self { segments, rest };
        if pattern.segments.len() > SEGMENTS_MAX {
            return Err("a path pattern has at most 64 segments");
        }
        Ok(pattern)
    }

    /// The segments before the rest.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether every path is meant.
    pub(super) fn takes_all(&self) -> bool {
        self.segments.is_empty() && self.rest.is_some()
    }

    /// The name of the rest, if the pattern ends in one.
    pub(crate) fn rest(&self) -> Option<&str> {
        self.rest.as_deref()
    }

    /// Whether everything below is meant too.
    pub(super) fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// Whether a path is meant.
    pub fn matches(&self, path: &str) -> bool {
        let Some(mut parts) = split(path) else {
            return false;
        };
        let head = self
            .segments
            .iter()
            .all(|segment| match (segment, parts.next()) {
                (Segment::Literal(text), Some(part)) => **text == *part,
                (Segment::Parameter(_), Some(part)) => !part.is_empty(),
                (_, None) => false,
            });
        head && (self.rest.is_some() || parts.next().is_none())
    }

    /// The parameters of a path that matches, in order, still percent-encoded.
    pub fn parameters<'p>(&'p self, path: &'p str) -> impl Iterator<Item = (&'p str, &'p str)> {
        let parts = split(path).into_iter().flatten();
        let named = self
            .segments
            .iter()
            .zip(parts)
            .filter_map(|(segment, part)| match segment {
                Segment::Literal(_) => None,
                Segment::Parameter(name) => Some((&**name, part)),
            });
        let rest = self.rest.iter().map(move |name| {
            let mut slashes = path.match_indices('/').map(|(slash, _)| &path[slash + 1..]);
            (
                &**name,
                slashes.nth(self.segments.len()).unwrap_or_default(),
            )
        });
        named.chain(rest)
    }

    /// Sorts the more specific first: the first segment that differs decides, a literal before a
    /// parameter before an end before a rest. Only meaningful between patterns that match the
    /// same path.
    pub(super) fn rank(&self) -> Vec<u8> {
        let kind = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Parameter(_) => 1,
        };
        let end = if self.rest.is_some() { 3 } else { 2 };
        self.segments.iter().map(kind).chain([end]).collect()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Parameter(name) => Some(&**name),
        });
        named.chain(self.rest.as_deref())
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
            }
        }
        match &self.rest {
            Some(name) => write!(f, "/{{*{name}}}"),
            None if self.segments.is_empty() => f.write_str("/"),
            None => Ok(()),
        }
    }
}

/// The segments of a path; `/` has none, `/a/` has `a` and an empty one. Nothing for what is no
/// path.
pub(super) fn split(path: &str) -> Option<Split<'_, char>> {
    let inner = path.strip_prefix('/')?;
    let mut parts = inner.split('/');
    if inner.is_empty() {
        // An empty text still splits into one empty part.
        parts.next();
    }
    Some(parts)
}

fn parameter_name(name: &str) -> Result<Box<str>, &'static str> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err("a parameter is named with letters, digits, `_` and `-`, as in `{id}`");
    }
    Ok(name.into())
}

/// A literal segment, in the characters of a URI (RFC 3986 section 3.3). Requests are matched
/// after normalisation, so what normalisation would rewrite could never match.
fn literal(part: &str) -> Result<Box<str>, &'static str> {
    if part.contains(['{', '}']) {
        return Err("a parameter takes up a whole segment, as in `/{id}/`");
    }
    if part == "." || part == ".." {
        return Err("dot segments never reach the routes");
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&b);
    if !part.bytes().all(is_plain) {
        return Err("other characters than those of a URI path must be percent-encoded");
    }
    Ok(part.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_paths_they_mean() {
        let cases = [
            ("/", "/", true),
            ("/", "/a", false),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a/", "/a/", true),
            ("/a/", "/a", false),
            ("/users/{id}", "/users/7", true),
            ("/users/{id}", "/users/", false),
            ("/users/{id}", "/users", false),
            ("/users/{id}", "/users/7/x", false),
            ("/v2/{*rest}", "/v2", true),
            ("/v2/{*rest}", "/v2/", true),
            ("/v2/{*rest}", "/v2/a/b", true),
            ("/v2/{*rest}", "/v20", false),
            ("/{*rest}", "/", true),
            ("/{*rest}", "*", false),
            ("/a", "", false),
        ];
        for (pattern, path, expected) in cases {
            let pattern = PathPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn parameters_are_taken_from_their_places() {
        type Case = (
            &'static str,
            &'static str,
            &'static [(&'static str, &'static str)],
        );
        let cases: [Case; 4] = [
            (
                "/users/{id}/{*rest}",
                "/users/7/a/b",
                &[("id", "7"), ("rest", "a/b")],
            ),
            (
                "/users/{id}/{*rest}",
                "/users/7",
                &[("id", "7"), ("rest", "")],
            ),
            ("/{a}/x/{b}", "/1/x/2%20", &[("a", "1"), ("b", "2%20")]),
            ("/{*all}", "/", &[("all", "")]),
        ];
        for (pattern, path, expected) in cases {
            let pattern = PathPattern::parse(pattern).unwrap();
            assert_eq!(
                pattern.parameters(path).collect::<Vec<_>>(),
                expected,
                "{pattern}"
            );
        }
    }

    #[test]
    fn wrong_patterns_are_refused_and_right_ones_written_back() {
        let wrong = [
            "", "a", "/{}", "/{*}", "/{a b}", "/x{a}", "/{*a}/b", "/{a}/{a}", "/a?b", "/ä",
        ];
        for text in wrong.into_iter().chain(["/..", "/a/./b", "/{a", "/ "]) {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
        for text in [
            "/",
            "/a",
            "/a/",
            "/{id}",
            "/a/{id}/{*rest}",
            "/{*rest}",
            "//",
            "/a%20b",
        ] {
            assert_eq!(PathPattern::parse(text).unwrap().to_string(), text);
        }
        assert!(PathPattern::parse(&"/a".repeat(64)).is_ok());
        assert!(PathPattern::parse(&"/a".repeat(65)).is_err());
    }
}
