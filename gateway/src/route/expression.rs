//! Paths given as regular expressions, which match a path as a whole.
//!
//! An expression is taken apart at the slashes of its paths ([`steps`]), so that a look-up runs
//! only pieces of expressions that could match, and each of them once for all expressions:
//! `/users/[0-9]+` is looked at for paths below `/users` alone.

pub(super) mod steps;

use std::fmt;
use std::sync::OnceLock;

use regex::bytes::Regex;
use regex_syntax::hir::Hir;
use regex_syntax::hir::literal::Extractor;

use self::steps::Steps;
use super::path::split;
use super::wanted::anchored;

/// Characters of an expression at most.
const EXPRESSION_CHARS_MAX: usize = 1024;

/// Which paths a route is for: those an expression matches as a whole.
#[derive(Clone, Debug)]
pub struct PathExpression {
    expression: Box<str>,
    /// Made again where a match by steps does not suffice: it takes up much memory.
    compiled: OnceLock<Box<Regex>>,
    /// How the table finds it; `None`: by `compiled` alone.
    steps: Option<Box<[Steps]>>,
    /// The segments every path begins with.
    literal: Box<[Box<str>]>,
    /// Of its groups.
    names: Box<[Box<str>]>,
}

impl PathExpression {
    /// Reads an expression. The error is a reason in one line.
    pub fn parse(expression: &str) -> Result<Self, String> {
        if expression.len() > EXPRESSION_CHARS_MAX {
            return Err(format!(
                "it has more than {EXPRESSION_CHARS_MAX} characters"
            ));
        }
        let reason = |error: regex::Error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().to_owned()
        };
        let compiled = anchored(expression).map_err(reason)?;
        let parsed = parsed(expression);
        let names: Box<[Box<str>]> = compiled.capture_names().flatten().map(Into::into).collect();
        let steps = parsed.as_ref().and_then(steps::of);
        let whole = OnceLock::new();
        if steps.is_none() || !names.is_empty() {
            whole.get_or_init(|| Box::new(compiled));
        }
        Ok(Self {
            expression: expression.into(),
            compiled: whole,
            steps,
            literal: parsed.as_ref().map(literal_segments).unwrap_or_default(),
            names,
        })
    }

    fn compiled(&self) -> &Regex {
        self.compiled.get_or_init(|| {
            let compiled = anchored(&self.expression);
            Box::new(compiled.expect("it was compiled before, when it was read"))
        })
    }

    /// How paths are matched segment by segment, for each of its alternatives.
    pub(super) fn steps(&self) -> Option<&[Steps]> {
        self.steps.as_deref()
    }

    /// The segments every path that matches begins with.
    pub(super) fn literal(&self) -> &[Box<str>] {
        &self.literal
    }

    /// Whether a path is meant.
    pub fn matches(&self, path: &str) -> bool {
        self.compiled().is_match(path.as_bytes())
    }

    /// The names of its groups, `(?<name>…)`.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// What the named groups hold of a path that matches, in order.
    pub(super) fn parameters<'p>(&'p self, path: &'p str) -> Vec<(&'p str, &'p str)> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let Some(captures) = self.compiled().captures(path.as_bytes()) else {
            return Vec::new();
        };
        let value = |name| {
            let range = captures.name(name)?.range();
            Some((name, path.get(range)?))
        };
        self.names().filter_map(value).collect()
    }

    /// Sorts the more specific first: more literal segments, then the longer expression.
    pub(super) fn rank(&self) -> [u8; 4] {
        let segments = u16::try_from(self.literal.len()).unwrap_or(u16::MAX);
        let length = u16::try_from(self.expression.len()).unwrap_or(u16::MAX);
        let [a, b] = (u16::MAX - segments).to_be_bytes();
        let [c, d] = (u16::MAX - length).to_be_bytes();
        [a, b, c, d]
    }
}

/// Expressions are the same when they are written the same.
impl PartialEq for PathExpression {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

impl fmt::Display for PathExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~ {}", self.expression)
    }
}

/// An expression as the regex crate reads it when it matches bytes.
fn parsed(expression: &str) -> Option<Hir> {
    let parser = regex_syntax::ParserBuilder::new().utf8(false).build();
    { parser }.parse(expression).ok()
}

/// Of the text every match begins with, the segments that are complete.
fn literal_segments(parsed: &Hir) -> Box<[Box<str>]> {
    let found = Extractor::new().extract(parsed);
    let Some(prefix) = found.longest_common_prefix() else {
        return Box::default();
    };
    let prefix = std::str::from_utf8(prefix).unwrap_or_default();
    // What stands behind the last slash may go on in the path.
    let complete = prefix.rfind('/').map_or("", |slash| &prefix[..slash]);
    let segments = split(complete).into_iter().flatten();
    segments.map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_paths_as_a_whole() {
        let cases = [
            ("/users/[0-9]+", "/users/7", true),
            ("/users/[0-9]+", "/users/7/x", false),
            ("/users/[0-9]+", "/v1/users/7", false),
            ("/a|/b", "/a", true),
            ("/a|/b", "/b", true),
            ("/a|/b", "/bc", false),
            ("(?i)/a", "/A", true),
            (r".*\.png", "/img/x.png", true),
        ];
        for (text, path, expected) in cases {
            let expression = PathExpression::parse(text).unwrap();
            assert_eq!(expression.matches(path), expected, "{text} on {path}");
        }
    }

    #[test]
    fn literal_segments_are_those_every_match_begins_with() {
        let cases: [(&str, &[&str]); 12] = [
            ("/users/[0-9]+", &["users"]),
            ("/users/v[12]/x", &["users"]),
            ("/a/b/c", &["a", "b"]),
            ("/a/b/?", &["a"]),
            ("/a|/b", &[]),
            ("/a/x|/a/y", &["a"]),
            ("(?i)/a/b", &[]),
            (".*", &[]),
            ("", &[]),
            ("/", &[]),
            (r"/a\.b/.*", &["a.b"]),
            ("(/a/b)?/c", &[]),
        ];
        for (text, expected) in cases {
            let expression = PathExpression::parse(text).unwrap();
            let literal: Vec<&str> = expression.literal().iter().map(|one| &**one).collect();
            assert_eq!(literal, expected, "{text}");
        }
    }

    #[test]
    fn named_groups_are_parameters() {
        let text = "/(?<year>[0-9]{4})/(?:[a-z]+)/(?<slug>.*)(?<no>x)?";
        let expression = PathExpression::parse(text).unwrap();
        let parameters = expression.parameters("/2026/news/a/b");
        assert_eq!(parameters, [("year", "2026"), ("slug", "a/b")]);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["(", "a)|(?:b", r"\w{9999}"] {
            assert!(PathExpression::parse(text).is_err(), "{text}");
        }
        assert!(PathExpression::parse(&"a".repeat(1024)).is_ok());
        assert!(PathExpression::parse(&"a".repeat(1025)).is_err());
    }
}
