//! The table against a plain reading of the rules: by examples, and by chance.

use http::header::HeaderValue;
use http::{HeaderMap, HeaderName, Method};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::host::HostPattern;
use super::path::PathPattern;
use super::predicate::{HeaderPredicate, HeaderWanted, Mismatch, Rule};
use super::table::Outcome;
use super::*;
use crate::filter::reject::Reject;

fn rule(name: &str, host: &str, path: &str, methods: &[&str], headers: &[&str]) -> Rule {
    let route = Route {
        name: name.into(),
        series_at: 0,
        action: Action::Forward(action::Split::to(0)),
        chain: Chain::default(),
        timeout: Duration::from_secs(1),
        body_bytes_max: None,
        retry: crate::config::RetryConfig::default(),
        hedge: None,
    };
    let header = |name: &&str| HeaderPredicate {
        name: HeaderName::try_from(*name).unwrap(),
        wanted: HeaderWanted::Present(true),
    };
    Rule {
        route: Arc::new(route),
        host: HostPattern::parse(host).unwrap(),
        path: PathPattern::parse(path).unwrap(),
        methods: methods
            .iter()
            .map(|method| method.parse().unwrap())
            .collect(),
        headers: headers.iter().map(header).collect(),
    }
}

/// The name of the route found, or the reason code with what is allowed.
fn find(table: &Table, method: &Method, host: &str, path: &str, headers: &HeaderMap) -> String {
    match table.find(host, method, path, headers) {
        Ok(found) => found.route.name.to_string(),
        Err(Reject::MethodNotAllowed { allow }) => format!("405 {}", allow.to_str().unwrap()),
        Err(reject) => reject.status().as_str().to_owned(),
    }
}

fn headers(names: &[&str]) -> HeaderMap {
    let pair = |name: &&str| {
        (
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::from_static("1"),
        )
    };
    names.iter().map(pair).collect()
}

#[test]
fn the_most_specific_route_wins() {
    let table = Table::new(vec![
        rule("all", "*", "/{*rest}", &[], &[]),
        rule("host", "api.example.com", "/{*rest}", &[], &[]),
        rule("below", "*.example.com", "/{*rest}", &[], &[]),
        rule("below-eu", "*.eu.example.com", "/{*rest}", &[], &[]),
        rule("exact", "api.example.com", "/a/b", &["GET"], &[]),
        rule("parameter", "api.example.com", "/a/{id}", &[], &[]),
        rule("prefix", "api.example.com", "/a/{*rest}", &[], &[]),
        rule("any-method", "api.example.com", "/m", &[], &[]),
        rule("one-header", "api.example.com", "/m", &[], &["x-one"]),
        rule(
            "two-headers",
            "api.example.com",
            "/m",
            &[],
            &["x-one", "x-two"],
        ),
        rule("method", "api.example.com", "/m", &["POST"], &[]),
        rule("read-only", "only.test", "/r/{id}", &["GET"], &[]),
        rule(
            "write-only",
            "only.test",
            "/r/{id}",
            &["PUT", "DELETE"],
            &["x-one"],
        ),
    ]);
    let cases: [(&str, &str, &str, &[&str], &str); 22] = [
        ("GET", "other.test", "/", &[], "all"),
        ("GET", "api.example.com", "/", &[], "host"),
        ("GET", "www.example.com", "/a/b", &[], "below"),
        ("GET", "x.eu.example.com", "/a", &[], "below-eu"),
        ("GET", "example.com", "/a", &[], "all"),
        ("GET", "api.example.com", "/a/b", &[], "exact"),
        ("HEAD", "api.example.com", "/a/b", &[], "exact"),
        ("POST", "api.example.com", "/a/b", &[], "parameter"),
        ("GET", "api.example.com", "/a/c", &[], "parameter"),
        ("GET", "api.example.com", "/a/b/c", &[], "prefix"),
        ("GET", "api.example.com", "/a", &[], "prefix"),
        ("GET", "api.example.com", "/a/", &[], "prefix"),
        ("GET", "api.example.com", "/ab", &[], "host"),
        ("GET", "api.example.com", "/m", &[], "any-method"),
        ("GET", "api.example.com", "/m", &["x-one"], "one-header"),
        (
            "GET",
            "api.example.com",
            "/m",
            &["x-one", "x-two"],
            "two-headers",
        ),
        (
            "POST",
            "api.example.com",
            "/m",
            &["x-one", "x-two"],
            "method",
        ),
        ("GET", "only.test", "/r/1", &[], "read-only"),
        ("PUT", "only.test", "/r/1", &["x-one"], "write-only"),
        ("PUT", "only.test", "/r/1", &[], "all"),
        ("GET", "api.example.com", "*", &[], "404"),
        ("GET", "", "/", &[], "all"),
    ];
    for (method, host, path, names, expected) in cases {
        let method = method.parse().unwrap();
        let found = find(&table, &method, host, path, &headers(names));
        assert_eq!(found, expected, "{method} {host} {path} {names:?}");
    }
}

#[test]
fn only_a_wrong_method_alone_makes_a_405() {
    let table = Table::new(vec![
        rule("read", "a.test", "/r", &["GET"], &[]),
        rule("write", "*.test", "/r", &["PUT", "DELETE"], &[]),
        rule("secret", "a.test", "/r", &["PATCH"], &["x-one"]),
    ]);
    let cases: [(&str, &str, &[&str], &str); 5] = [
        ("POST", "/r", &[], "405 DELETE, GET, HEAD, PUT"),
        (
            "POST",
            "/r",
            &["x-one"],
            "405 DELETE, GET, HEAD, PATCH, PUT",
        ),
        ("PUT", "/r", &[], "write"),
        ("POST", "/other", &[], "404"),
        ("PATCH", "/r", &["x-one"], "secret"),
    ];
    for (method, path, names, expected) in cases {
        let method = method.parse().unwrap();
        let found = find(&table, &method, "a.test", path, &headers(names));
        assert_eq!(found, expected, "{method} {path} {names:?}");
    }
}

#[test]
fn parameters_come_with_the_match() {
    let table = Table::new(vec![rule("a", "*", "/users/{id}/{*rest}", &[], &[])]);
    let found = table
        .find("x", &Method::GET, "/users/7/a/b", &HeaderMap::new())
        .unwrap();
    let parameters: Vec<_> = found.parameters("/users/7/a/b").collect();
    assert_eq!(parameters, [("id", "7"), ("rest", "a/b")]);
}

#[test]
fn explain_names_the_first_thing_that_does_not_hold() {
    let table = Table::new(vec![
        rule("chosen", "a.test", "/r", &["GET"], &[]),
        rule("wider", "*", "/{*rest}", &[], &[]),
        rule("host", "b.test", "/r", &[], &[]),
        rule("path", "a.test", "/s", &[], &[]),
        rule("method", "a.test", "/r", &["PUT"], &[]),
        rule("header", "a.test", "/r", &[], &["x-one"]),
    ]);
    let explained = table.explain("a.test", &Method::GET, "/r", &HeaderMap::new());
    let mut outcomes: Vec<_> = explained
        .into_iter()
        .map(|(rule, outcome)| (&*rule.route.name, outcome))
        .collect();
    outcomes.sort_by_key(|(name, _)| *name);
    let header = Mismatch::Header(HeaderName::from_static("x-one"));
    assert_eq!(
        outcomes,
        [
            ("chosen", Outcome::Chosen),
            ("header", Outcome::Mismatch(header)),
            ("host", Outcome::Mismatch(Mismatch::Host)),
            ("method", Outcome::Mismatch(Mismatch::Method)),
            ("path", Outcome::Mismatch(Mismatch::Path)),
            ("wider", Outcome::LessSpecific),
        ]
    );
}

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PUT"];
const HEADERS: [&str; 2] = ["x-one", "x-two"];

fn any_path(last: &'static [&'static str]) -> impl Strategy<Value = String> {
    let segments = vec(select(&["x", "y", "{}"][..]), 0..3);
    (segments, select(last)).prop_map(|(segments, last)| {
        let mut path = String::new();
        for (place, segment) in segments.iter().chain([&last]).enumerate() {
            let segment = if *segment == "{}" {
                format!("{{p{place}}}")
            } else {
                (*segment).to_owned()
            };
            path = path + "/" + &segment;
        }
        path
    })
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let host = select(&["*", "*.t", "*.b.t", "a.t", "a.b.t"][..]);
    let path = any_path(&["x", "y", "{}", "{*rest}", ""]);
    let methods = subsequence(&METHODS[..], 0..3);
    let one = (host, path, methods, subsequence(&HEADERS[..], 0..=2));
    vec(one, 0..NAMES.len()).prop_map(|rules| {
        let named = rules.iter().zip(NAMES);
        named
            .map(|((host, path, methods, names), name)| rule(name, host, path, methods, names))
            .collect()
    })
}

/// The plain reading: of all rules that match, the first by precedence.
fn expected(
    rules: &[Rule],
    method: &Method,
    host: &str,
    path: &str,
    headers: &HeaderMap,
) -> String {
    let checked: Vec<_> = rules
        .iter()
        .map(|rule| (rule, rule.check(host, method, path, headers)))
        .collect();
    let matching = checked
        .iter()
        .filter(|(_, outcome)| outcome.is_ok())
        .map(|(rule, _)| rule);
    if let Some(best) = matching.min_by(|a, b| a.precedence(b)) {
        return best.route.name.to_string();
    }
    let allowed = checked
        .iter()
        .filter(|(_, outcome)| *outcome == Err(Mismatch::Method));
    let mut allowed: Vec<String> = METHODS
        .iter()
        .filter(|method| {
            allowed
                .clone()
                .any(|(rule, _)| rule.allows(&method.parse().unwrap()))
        })
        .map(ToString::to_string)
        .collect();
    allowed.sort();
    if allowed.is_empty() {
        "404".to_owned()
    } else {
        format!("405 {}", allowed.join(", "))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_what_a_plain_reading_finds_in_any_order(
        (rules, shuffled) in any_rules().prop_flat_map(|rules| {
            (Just(rules.clone()), Just(rules).prop_shuffle())
        }),
        host in select(&["a.t", "b.t", "a.b.t", "x.a.b.t", "t", "other"][..]),
        path in any_path(&["x", "y", "z", ""]),
        method in select(&METHODS[..]),
        extra in option::of(select(&HEADERS[..])),
    ) {
        let method: Method = method.parse().unwrap();
        // A path in a request has no parameters: any text stands for one.
        let path = path.replace(['{', '}'], "");
        let headers = headers(extra.as_slice());
        let expected = expected(&rules, &method, host, &path, &headers);
        for order in [rules, shuffled] {
            let table = Table::new(order);
            prop_assert_eq!(&find(&table, &method, host, &path, &headers), &expected);
            let explained = table.explain(host, &method, &path, &headers);
            let chosen = explained.iter().find(|(_, outcome)| *outcome == Outcome::Chosen);
            if let Some((rule, _)) = chosen {
                prop_assert_eq!(&*rule.route.name, &expected);
            }
        }
    }
}
