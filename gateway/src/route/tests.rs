//! The table against a plain reading of the rules: by examples, and by chance.

use http::header::HeaderValue;
use http::{HeaderMap, HeaderName, Method};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::expression::PathExpression;
use super::host::HostPattern;
use super::path::PathPattern;
use super::predicate::{Mismatch, PathRule, Rule};
use super::table::Outcome;
use super::wanted::{Conditions, HeaderPredicate, NamedPredicate, Unmet, Wanted};
use super::*;
use crate::filter::reject::Reject;

/// A rule; a path after `~ ` is an expression, and a condition that is no header is written
/// `query NAME` or `cookie NAME`.
fn rule(name: &str, host: &str, path: &str, methods: &[&str], conditions_named: &[&str]) -> Rule {
    let route = Route {
        name: name.into(),
        series_at: 0,
        action: Action::Forward(Box::new(action::Forwarding::to(0))),
        overload: Default::default(),
        chain: Chain::default(),
        response_headers: None,
        cors: None,
        timeout: Duration::from_secs(1),
        body_bytes_max: None,
        body_rate: None,
        retry: crate::config::RetryConfig::default(),
        hedge: None,
    };
    let present = Wanted::Present(true);
    let mut conditions = Conditions::default();
    for name in conditions_named {
        let wanted = present.clone();
        match name.split_once(' ') {
            Some((kind, name)) => {
                let name = name.into();
                let all = match kind {
                    "query" => &mut conditions.query,
                    _ => &mut conditions.cookies,
                };
                all.push(NamedPredicate { name, wanted });
            }
            None => {
                let name = HeaderName::try_from(*name).unwrap();
                conditions.headers.push(HeaderPredicate { name, wanted });
            }
        }
    }
    let path = match path.strip_prefix("~ ") {
        Some(text) => PathRule::Expression(PathExpression::parse(text).unwrap()),
        None => PathRule::Pattern(PathPattern::parse(path).unwrap()),
    };
    Rule {
        route: Arc::new(route),
        host: HostPattern::parse(host).unwrap(),
        path,
        listeners: Box::default(),
        methods: methods
            .iter()
            .map(|method| method.parse().unwrap())
            .collect(),
        conditions,
    }
}

fn request<'r>(
    method: &'r Method,
    host: &'r str,
    target: &'r str,
    headers: &'r HeaderMap,
) -> Request<'r> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Request {
        listener: "public",
        host,
        method,
        path,
        query,
        headers,
    }
}

/// The name of the route found, or the reason code with what is allowed.
fn find(table: &Table, method: &Method, host: &str, path: &str, headers: &HeaderMap) -> String {
    name(table.find(&request(method, host, path, headers)))
}

fn name(found: Result<Match<'_>, Reject>) -> String {
    match found {
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
fn expressions_come_after_patterns_but_before_the_one_that_takes_all() {
    let table = Table::new(vec![
        rule("all", "*", "/{*rest}", &[], &[]),
        rule("users", "*", "/users/{id}", &["GET"], &[]),
        rule("below", "*", "/users/old/{*rest}", &[], &[]),
        rule("number", "*", "~ /users/[0-9]+", &[], &[]),
        rule("word", "*", "~ /users/[a-z]+/x", &[], &[]),
        rule("image", "*", r"~ .*\.png", &[], &[]),
        rule("image-get", "*", r"~ .*\.png", &["GET"], &[]),
        rule("one-host", "a.test", "/{*rest}", &[], &[]),
    ]);
    let cases = [
        ("GET", "x", "/users/7", "users"),
        ("POST", "x", "/users/7", "number"),
        ("GET", "x", "/users/old/x", "below"),
        ("GET", "x", "/users/new/x", "word"),
        ("GET", "x", "/users/old/x.png", "below"),
        ("GET", "x", "/img/x.png", "image-get"),
        ("PUT", "x", "/users/x.png", "image"),
        ("GET", "x", "/other", "all"),
        ("GET", "a.test", "/img/x.png", "one-host"),
    ];
    for (method, host, path, expected) in cases {
        let method = method.parse().unwrap();
        let found = find(&table, &method, host, path, &HeaderMap::new());
        assert_eq!(found, expected, "{method} {host} {path}");
    }
}

#[test]
fn headers_and_cookies_count_before_query_parameters() {
    let table = Table::new(vec![
        rule("plain", "*", "/a", &[], &[]),
        rule("query-2", "*", "/a", &[], &["query one", "query two"]),
        rule("query-1", "*", "/a", &[], &["query one"]),
        rule("cookie", "*", "/a", &[], &["cookie c"]),
        rule("both", "*", "/a", &[], &["cookie c", "query one"]),
        rule("method", "*", "/a", &["PUT"], &[]),
    ]);
    let mut cookie = HeaderMap::new();
    cookie.insert("cookie", HeaderValue::from_static("b=1; c=2"));
    let none = HeaderMap::new();
    let cases = [
        ("GET", "/a", &none, "plain"),
        ("GET", "/a?two=1", &none, "plain"),
        ("GET", "/a?one=1", &none, "query-1"),
        ("GET", "/a?two=1&one=1", &none, "query-2"),
        ("GET", "/a?two=1&one=1", &cookie, "both"),
        ("GET", "/a?two=1", &cookie, "cookie"),
        ("PUT", "/a?two=1&one=1", &cookie, "method"),
    ];
    for (method, target, headers, expected) in cases {
        let method = method.parse().unwrap();
        let found = find(&table, &method, "x", target, headers);
        assert_eq!(found, expected, "{method} {target}");
    }
}

#[test]
fn routes_of_one_listener_are_seen_on_it_alone() {
    let on = |name, listener: &str, methods| {
        let mut rule = rule(name, "*", "/a", methods, &[]);
        rule.listeners = Box::new([listener.into()]);
        rule
    };
    let rules = vec![
        rule("everywhere", "*", "/a", &["GET"], &[]),
        on("inside", "internal", &["GET"]),
        on("write", "internal", &["PUT"]),
        on("outside", "public", &["GET"]),
    ];
    let table = Table::new(rules);
    assert!(table.collisions().is_empty());
    let cases = [
        ("GET", "internal", "inside"),
        ("GET", "public", "outside"),
        ("GET", "other", "everywhere"),
        ("PUT", "internal", "write"),
        ("PUT", "public", "405 GET, HEAD"),
    ];
    for (method, listener, expected) in cases {
        let (method, none) = (method.parse().unwrap(), HeaderMap::new());
        let request = Request {
            listener,
            ..request(&method, "x", "/a", &none)
        };
        assert_eq!(name(table.find(&request)), expected, "{method} {listener}");
    }
}

#[test]
fn routes_that_only_their_names_tell_apart_collide() {
    let same = |path| {
        vec![
            rule("a", "*", path, &["GET"], &["query x"]),
            rule("b", "*", path, &[], &["query x"]),
        ]
    };
    let with = |path, methods: &[&str], conditions: &[&str]| {
        Table::new([same(path), vec![rule("c", "*", path, methods, conditions)]].concat())
            .collisions()
            .len()
    };
    let cases: [(&str, &[&str], &[&str], usize); 6] = [
        ("/p", &["GET"], &["query x"], 1),
        ("/p", &["PUT"], &["query x"], 0),
        ("/p", &["GET"], &["cookie x"], 0),
        ("/p", &[], &["query x"], 1),
        ("~ /p", &[], &["query x"], 1),
        ("~ /p", &["PUT"], &["query x"], 0),
    ];
    for (path, methods, conditions, expected) in cases {
        assert_eq!(
            with(path, methods, conditions),
            expected,
            "{path} {methods:?} {conditions:?}"
        );
    }
    let near = vec![
        rule("a", "*", "~ /p", &[], &[]),
        rule("b", "*", "~ /q", &[], &[]),
    ];
    assert!(Table::new(near).collisions().is_empty());
}

/// What a look-up costs is the rules it looks at: as many among ten routes as among ten thousand.
#[test]
fn the_rules_looked_at_do_not_grow_with_the_routes() {
    let looked_at = |routes: usize| {
        let mut rules = vec![rule("all", "*", "/{*rest}", &["PUT"], &[])];
        for number in 0..routes / 5 {
            let path = |end: &str| format!("/{number}/{end}");
            let host = format!("h{number}.test");
            let add = [
                rule(&format!("exact-{number}"), "*", &path("a"), &["PUT"], &[]),
                rule(&format!("one-{number}"), "*", &path("{id}"), &["PUT"], &[]),
                rule(
                    &format!("rest-{number}"),
                    "*",
                    &path("{*rest}"),
                    &["PUT"],
                    &[],
                ),
                rule(
                    &format!("regex-{number}"),
                    "*",
                    &format!("~ /{number}/[a-z]"),
                    &["PUT"],
                    &[],
                ),
                rule(&format!("host-{number}"), &host, "/{*rest}", &["PUT"], &[]),
            ];
            rules.extend(add);
        }
        let table = Table::new(rules);
        let headers = HeaderMap::new();
        let mut count = 0;
        // Taken by nobody, the request sees every rule that its host and path lead to.
        let request = request(&Method::GET, "h1.test", "/1/a", &headers);
        assert_eq!(
            table.search(&request, &mut |_| {
                count += 1;
                false
            }),
            None
        );
        count
    };
    assert_eq!(looked_at(10), 6);
    assert_eq!(looked_at(10_000), 6);
}

#[test]
fn parameters_come_with_the_match() {
    let table = Table::new(vec![rule("a", "*", "/users/{id}/{*rest}", &[], &[])]);
    let found = table
        .find(&request(
            &Method::GET,
            "x",
            "/users/7/a/b",
            &HeaderMap::new(),
        ))
        .unwrap();
    let parameters = found.parameters("/users/7/a/b");
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
    let explained = table.explain(&request(&Method::GET, "a.test", "/r", &HeaderMap::new()));
    let mut outcomes: Vec<_> = explained
        .into_iter()
        .map(|(rule, outcome)| (&*rule.route.name, outcome))
        .collect();
    outcomes.sort_by_key(|(name, _)| *name);
    let header = Mismatch::Condition(Unmet::Header(HeaderName::from_static("x-one")));
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
const EXPRESSIONS: [&str; 20] = [
    "~ /x/.*",
    "~ /[xy]",
    "~ /x/y/?.*",
    "~ .*",
    "~ /x|/y/.*",
    "~ /[a-z]+/y",
    "~ /[a-z]+/(y|z)?",
    "~ ^/(x)/[^/]*$",
    "~ /x.*",
    "~ /xy?",
    "~ /x(/y)?",
    "~ /x(/y|$)",
    "~ /[^x]+",
    "~ /",
    "~ /[a-z]*/?",
    "~ /y|/x/y|/x/.+",
    "~ (?i)/X/Y",
    "~ /x/y",
    "~ /p{1,2}[0-9]/x",
    "~ /p0/[xyz]{1}/?",
];
const CONDITIONS: [&str; 4] = ["x-one", "x-two", "query one", "cookie one"];

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
    let pattern = any_path(&["x", "y", "{}", "{*rest}", ""]);
    let path = prop_oneof![4 => pattern, 3 => select(&EXPRESSIONS[..]).prop_map(str::to_owned)];
    let methods = subsequence(&METHODS[..], 0..3);
    let one = (host, path, methods, subsequence(&CONDITIONS[..], 0..=3));
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
        .map(|rule| (rule, rule.check(&request(method, host, path, headers))))
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
        query in option::of(Just("one=1")),
        cookie in option::of(Just("one=1")),
    ) {
        let method: Method = method.parse().unwrap();
        // A path in a request has no parameters: any text stands for one.
        let mut path = path.replace(['{', '}'], "");
        if let Some(query) = query {
            path = path + "?" + query;
        }
        let mut headers = headers(extra.as_slice());
        if let Some(cookie) = cookie {
            headers.insert("cookie", HeaderValue::from_static(cookie));
        }
        let expected = expected(&rules, &method, host, &path, &headers);
        for order in [rules, shuffled] {
            let table = Table::new(order);
            prop_assert_eq!(&find(&table, &method, host, &path, &headers), &expected);
            let explained = table.explain(&request(&method, host, &path, &headers));
            let chosen = explained.iter().find(|(_, outcome)| *outcome == Outcome::Chosen);
            if let Some((rule, _)) = chosen {
                prop_assert_eq!(&*rule.route.name, &expected);
            }
        }
    }
}
