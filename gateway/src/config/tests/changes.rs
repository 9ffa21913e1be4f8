//! Reading what has changed gives what reading everything gives, and takes over the rest.

use super::*;

const BASE: &str = r#"
[listeners.public]
bind = "127.0.0.1:80"
[services.app]
endpoints = ["127.0.0.1:81"]
[services.other]
endpoints = ["127.0.0.1:82"]
[limits.once]
rate = "1/m"
key = "client-ip"
[auth.keys]
type = "api-key"
keys = { ci = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" }
[routes.a]
match = { path = "/a" }
service = "app"
use = ["once", "keys"]
[routes.b]
match = { path = "/b" }
split = { app = 1, other = 1 }
in_flight_max = 5
[routes.c.match]
path = { regex = "/c/[0-9]+" }
[routes.c]
service = "other"
"#;

/// The routes in order of precedence, as one text; where series begin, and times, aside.
fn shown(config: &Config) -> String {
    let rules = config.routes.rules().iter();
    let rules = rules.map(|rule| format!("{rule:#?}"));
    let lines = rules.collect::<Vec<_>>().join("\n");
    let other = |line: &&str| {
        !["series_at", "tv_sec", "tv_nsec"]
            .iter()
            .any(|own| line.contains(own))
    };
    let lines = lines.lines().filter(other);
    lines.collect::<Vec<_>>().join("\n")
}

fn route<'c>(config: &'c Config, name: &str) -> Option<&'c Arc<crate::route::Route>> {
    config.routes.routes().find(|route| *route.name == *name)
}

/// No two routes count in the same series.
fn check_series(config: &Config) {
    let mut series: Vec<usize> = config
        .routes
        .routes()
        .flat_map(|route| (route.series_at..).take(route.counted_by().count()))
        .collect();
    let all = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), all);
    assert!(series.last() < Some(&config.series));
}

#[test]
fn what_has_not_changed_is_taken_over() {
    let before = Config::parse(BASE, Path::new("")).unwrap();
    let d = "[routes.d]\nmatch = { path = \"/d\" }\nservice = \"app\"\n";
    // What changes, and which routes stay the same.
    let cases: [(&str, String, &[&str]); 10] = [
        ("an endpoint", BASE.replace(":81", ":91"), &["a", "b", "c"]),
        ("a route", BASE.replace("\"/a\"", "\"/x\""), &["b", "c"]),
        (
            "a split",
            BASE.replace("{ app = 1, other = 1 }", "{ app = 1 }"),
            &["a", "c"],
        ),
        ("a part of a route", BASE.replace("/c/", "/x/"), &["a", "b"]),
        ("a new one", format!("{BASE}{d}"), &["a", "b", "c"]),
        (
            "the first one",
            BASE.replace("[routes.a]", "[routes.0]"),
            &["b", "c"],
        ),
        (
            "one is gone",
            BASE[..BASE.find("[routes.c.match]").unwrap()].to_owned(),
            &["a", "b"],
        ),
        ("a limit", BASE.replace("1/m", "2/m"), &[]),
        ("a key", BASE.replace("ci =", "cd ="), &[]),
        (
            "a listener",
            BASE.replace("listeners.public", "listeners.other"),
            &[],
        ),
    ];
    for (what, text, kept) in cases {
        let after = Config::parse_after(&text, &before).unwrap();
        let whole = Config::parse(&text, Path::new("")).unwrap();
        if kept.is_empty() {
            // Limits remember when they were made.
            assert_eq!(after.routes.rules().len(), whole.routes.rules().len());
        }
        for name in ["a", "b", "c"] {
            let both = [&before, &after].map(|config| route(config, name));
            let same = matches!(both, [Some(one), Some(other)] if Arc::ptr_eq(one, other));
            assert_eq!(same, kept.contains(&name), "{what}: {name}");
        }
        let order = |config: &Config| {
            let names = config.routes.routes().map(|route| route.name.to_string());
            names.collect::<Vec<_>>()
        };
        assert_eq!(order(&after), order(&whole), "{what}");
        assert_eq!(after.gates.routes.len(), 1, "{what}");
        assert_eq!(after.sections, whole.sections, "{what}");
        check_series(&after);
        // And once more from there.
        let again = Config::parse_after(BASE, &after).unwrap();
        assert_eq!(order(&again), order(&before), "{what}, and back");
        check_series(&again);
    }
}

#[test]
fn parts_compiled_alone_are_what_they_are_within_the_whole() {
    let plain = BASE.replace("use = [\"once\", \"keys\"]\n", "");
    let before = Config::parse(&plain, Path::new("")).unwrap();
    let table = [
        plain.replace(":81", ":91"),
        plain.replace("\"/a\"", "\"/{*rest}\""),
        plain.replace("/c/", "/x/"),
        format!(
            "{plain}[routes.d]\nmatch = {{ path = \"/a\", methods = [\"GET\"] }}\nservice = \"app\"\n"
        ),
    ];
    for text in table {
        let after = Config::parse_after(&text, &before).unwrap();
        assert!(parse_changes(&text, Path::new(""), &before).is_some());
        let whole = Config::parse(&text, Path::new("")).unwrap();
        assert!(shown(&after) == shown(&whole), "{text}");
    }
}

#[test]
fn what_is_said_of_a_wrong_file_does_not_depend_on_what_was_before() {
    let before = Config::parse(BASE, Path::new("")).unwrap();
    let twice = "[routes.d]\nmatch = { path = \"/a\" }\nservice = \"app\"\n";
    let table = [
        BASE.replace("[services.other]", "[services.another]"),
        BASE.replace("\"/b\"", "\"b\""),
        format!("{BASE}{twice}"),
        format!("{BASE}[routes.a]\nservice = \"app\"\n"),
        format!("{BASE}[routes.a.match]\npath = \"/b\"\n"),
        BASE.replace("[limits.once]", "[limits.never]"),
        format!("{BASE}["),
    ];
    for text in table {
        let error = |outcome: Result<Config, Error>| outcome.unwrap_err().to_string();
        let after = error(Config::parse_after(&text, &before));
        assert_eq!(after, error(Config::parse(&text, Path::new(""))), "{text}");
    }
}

#[test]
fn a_route_that_holds_a_file_is_read_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, "one").unwrap();
    let text = format!(
        "{BASE}[routes.d]\nmatch = {{ path = \"/d\" }}\nrespond = {{ body = {{ file = {file:?} }} }}\n"
    );
    let before = Config::parse(&text, Path::new("")).unwrap();
    std::fs::write(&file, "two").unwrap();
    let after = Config::parse_after(&text, &before).unwrap();
    let body = |config: &Config| match &route(config, "d").unwrap().action {
        crate::route::action::Action::Respond(respond) => respond.body.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (&body(&before)[..], &body(&after)[..]),
        (&b"one"[..], &b"two"[..])
    );
    let again = Config::parse_after(&text, &after).unwrap();
    assert_eq!(&body(&again)[..], b"two");
    assert_eq!(after.fingerprint, again.fingerprint, "it is watched on");
}

#[test]
fn series_of_routes_that_are_gone_are_not_piled_up() {
    let mut config = Config::parse(BASE, Path::new("")).unwrap();
    for n in 0..3000 {
        let text = format!("{BASE}[routes.d{n}]\nmatch = {{ path = \"/d\" }}\nservice = \"app\"\n");
        config = Config::parse_after(&text, &config).unwrap();
        check_series(&config);
        assert!(config.series < 1100, "{n}: {}", config.series);
    }
}
