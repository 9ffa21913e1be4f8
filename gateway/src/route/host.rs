//! The host a route is for: one name, all names below one, or any.

use std::fmt;

/// Characters of a host name at most (RFC 1035 section 2.3.4).
const HOST_CHARS_MAX: usize = 253;

/// Which hosts a route is for. The order is the order of precedence, the most specific first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `api.example.com`: this name only. An IPv6 address stands in brackets.
    Exact(Box<str>),
    /// `*.example.com`: every name below, at any depth, but not `example.com` itself.
    /// Holds `example.com`.
    Below(Box<str>),
    /// Any host.
    Any,
}

impl HostPattern {
    /// Reads a pattern; upper case is read as lower case. The error is a reason in one line.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lower = text.to_ascii_lowercase();
        if lower == "*" {
            return Ok(Self::Any);
        }
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (lower.as_str(), false),
        };
        if name.contains('*') {
            return Err("a wildcard stands for whole labels, at the front only");
        }
        // An IPv4 address has the form of a name.
        let fits = is_name(name) || (is_ipv6_literal(name) && !wildcard);
        if !fits {
            return Err("not a host name");
        }
        Ok(if wildcard {
            Self::Below(name.into())
        } else {
            Self::Exact(name.into())
        })
    }

    /// Whether a host, in lower case and without port, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Below(name) => parents(host).any(|parent| *parent == **name),
            Self::Any => true,
        }
    }

    /// Sorts the more specific first: exact names, then longer wildcards, then any.
    pub(super) fn rank(&self) -> (u8, usize) {
        match self {
            Self::Exact(_) => (0, 0),
            Self::Below(name) => (1, usize::MAX - name.len()),
            Self::Any => (2, 0),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// The names a host lies below, the nearest first: of `a.b.c` that is `b.c`, then `c`.
pub(super) fn parents(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').map(|(dot, _)| &host[dot + 1..])
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63 (RFC 1123 section 2.1; the
/// underscore is no host name character there, but found in the wild).
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= HOST_CHARS_MAX && name.split('.').all(label)
}

fn is_ipv6_literal(name: &str) -> bool {
    let inner = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_hosts_they_mean() {
        let cases = [
            ("api.example.com", "api.example.com", true),
            ("API.Example.com", "api.example.com", true),
            ("api.example.com", "example.com", false),
            ("api.example.com", "x.api.example.com", false),
            ("*.example.com", "api.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("*", "anything", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("[2001:db8::1]", "[2001:db8::1]", true),
        ];
        for (pattern, host, expected) in cases {
            let pattern = HostPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(host), expected, "{pattern} on {host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let wrong = [
            "",
            ".",
            "a..b",
            "-a.b",
            "a-.b",
            "a b",
            "exa*mple.com",
            "a.*.b",
            "*.*.b",
        ];
        let also_wrong = [
            "example.com:80",
            "https://a",
            "[::1",
            "*.[::1]",
            "ex\u{e4}mple.com",
        ];
        for text in wrong.into_iter().chain(also_wrong) {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
        assert!(HostPattern::parse(&"a".repeat(63)).is_ok());
        assert!(HostPattern::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn the_more_specific_ranks_first() {
        let order = ["a.b.c", "*.b.c", "*.c", "*"];
        let ranks: Vec<_> = order
            .iter()
            .map(|text| HostPattern::parse(text).unwrap().rank())
            .collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
    }
}
