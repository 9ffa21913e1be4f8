//! Wrong configurations with the exact text they are refused with, and the example.

mod balance;
mod changes;
mod example;
mod tls;
mod trace;
mod wrong_routes;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use self::wrong_routes::wrong_routes;
use super::*;

/// What a case leaves out is added behind it, so that each is wrong in one thing only.
const LISTENER: &str = "[listeners.public]\nbind = \"127.0.0.1:8080\"\n";
const SERVICE: &str = "[services.orders]\nendpoints = [\"10.0.1.11:8080\"]\n";

/// RFC 7515 appendix A.3.1.
const JWKS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

const JWT: &str = "type = \"jwt\"\nissuer = \"me\"\naudience = [\"you\"]\n";
/// A folder with the files configurations refer to.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("jwks.json"), JWKS).unwrap();
    std::fs::write(folder.path().join("no-set.json"), "[]").unwrap();
    let weak = r#"{"keys": [{"kty": "oct", "kid": "hmac-1", "k": "c2VjcmV0"}]}"#;
    std::fs::write(folder.path().join("weak.json"), weak).unwrap();
    let certificate = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    std::fs::write(folder.path().join("chain.pem"), certificate.cert.pem()).unwrap();
    let both = certificate.cert.pem() + &certificate.signing_key.serialize_pem();
    std::fs::write(folder.path().join("both.pem"), both).unwrap();
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(folder.path().join("other.key"), other).unwrap();
    folder
}

/// The text of a case, made whole.
fn whole(case: &str) -> String {
    let mut text = case.to_owned();
    for (section, addition) in [("[listeners.", LISTENER), ("[services.", SERVICE)] {
        if !case.contains(section) {
            text.push_str(addition);
        }
    }
    text
}

fn jwt(rest: &str) -> String {
    format!("[auth.partners]\n{JWT}{rest}")
}

fn route(matches: &str) -> String {
    format!("[routes.orders]\nmatch = {{ {matches} }}\nservice = \"orders\"\n")
}

/// Every kind of mistake the gateway refuses, by what is wrong.
fn wrong_configurations() -> Vec<(&'static str, String)> {
    let limit = |lines: &str| format!("[limits.a]\n{lines}\n");
    vec![
        ("syntax", "[routes.a\n".to_owned()),
        ("the same table twice", route("") + &route("")),
        ("unknown section", "[listener.a]\nbind = \"1\"\n".to_owned()),
        ("unknown key", route("path = \"/\"") + "timeut = \"3s\"\n"),
        ("unknown key far from any", "[drain]\nzzz = 1\n".to_owned()),
        (
            "unknown value",
            format!("{SERVICE}balance = \"least-requests\"\n"),
        ),
        (
            "missing key",
            "[routes.a]\nmatch = { path = \"/\" }\n".to_owned(),
        ),
        ("wrong type", "[server]\nheaders_max = \"100\"\n".to_owned()),
        ("out of range", "[server]\nworkers = 0\n".to_owned()),
        (
            "time out of range",
            "[server]\nbusy_poll = \"11ms\"\n".to_owned(),
        ),
        ("duration without unit", route("") + "timeout = 3\n"),
        (
            "duration with a wrong unit",
            route("") + "timeout = \"5x\"\n",
        ),
        ("duration of nothing", route("") + "timeout = \"0s\"\n"),
        (
            "duration too long",
            "[drain]\ndelay = \"400days\"\n".to_owned(),
        ),
        (
            "size with a wrong unit",
            "[server]\nbody_bytes_max = \"16kb\"\n".to_owned(),
        ),
        (
            "size without unit",
            "[server]\nbody_bytes_max = 16\n".to_owned(),
        ),
        (
            "size out of range",
            "[server]\nheader_bytes_max = \"1GiB\"\n".to_owned(),
        ),
        (
            "rate with a wrong period",
            limit("rate = \"100/week\"\nkey = \"route\""),
        ),
        ("rate of nothing", limit("rate = \"0/s\"\nkey = \"route\"")),
        (
            "burst of nothing",
            limit("rate = \"1/s\"\nburst = 0\nkey = \"route\""),
        ),
        (
            "burst for ever",
            limit("rate = \"1/d\"\nburst = 367\nkey = \"route\""),
        ),
        (
            "limit by nothing known",
            limit("rate = \"1/s\"\nkey = \"ip\""),
        ),
        ("retries", route("") + "retry = { attempts = 11 }\n"),
        (
            "retry on nothing known",
            route("") + "retry = { on = [\"reset\", \"4xx\"] }\n",
        ),
        (
            "retry on a good answer",
            route("") + "retry = { on = [200] }\n",
        ),
        (
            "backoff that falls",
            route("") + "retry = { backoff = \"1s\" }\n",
        ),
        (
            "body too large to keep",
            route("") + "retry = { body_bytes_max = \"1GiB\" }\n",
        ),
        ("hedge always", route("") + "hedge = { after = \"0s\" }\n"),
        (
            "hedge by no percentile",
            route("") + "hedge = { after = \"p101\" }\n",
        ),
        (
            "check without path",
            format!("{SERVICE}health = {{ every = \"1s\" }}\n"),
        ),
        (
            "check with the key of another",
            format!("{SERVICE}health = {{ type = \"tcp\", path = \"/\" }}\n"),
        ),
        (
            "check for no status",
            format!("{SERVICE}health = {{ path = \"/\", statuses = [\"2xx\"] }}\n"),
        ),
        (
            "check at port 0",
            format!("{SERVICE}health = {{ type = \"tcp\", port = 0 }}\n"),
        ),
        (
            "outlier of no deviation",
            format!("{SERVICE}outlier = {{ success_deviations = 0.0 }}\n"),
        ),
        (
            "ejection that shrinks",
            format!("{SERVICE}outlier = {{ ejection = \"10m\" }}\n"),
        ),
        (
            "breaker without probes",
            format!("{SERVICE}breaker = {{ probes = 0 }}\n"),
        ),
        (
            "budget without retries",
            format!("{SERVICE}retry_budget = {{ in_flight_max = 0 }}\n"),
        ),
        (
            "no listener",
            SERVICE
                .replace("[services", "\n[services")
                .replace("[listeners", ""),
        ),
        (
            "bind without port",
            "[listeners.a]\nbind = \"0.0.0.0\"\n".to_owned(),
        ),
        (
            "bind twice",
            format!("{LISTENER}[listeners.b]\nbind = \"127.0.0.1:8080\"\n"),
        ),
        ("admin without a place", format!("{LISTENER}[admin]\n")),
        (
            "control socket with a path too long",
            format!("{LISTENER}[admin]\nsocket = \"/{}\"\n", "s".repeat(99)),
        ),
        (
            "control socket with odd permissions",
            format!("{LISTENER}[admin]\nsocket = \"/a\"\nsocket_mode = \"u+rw\"\n"),
        ),
        (
            "control socket with too many permissions",
            format!("{LISTENER}[admin]\nsocket = \"/a\"\nsocket_mode = \"1777\"\n"),
        ),
        (
            "admin on a listener",
            format!("{LISTENER}[admin]\nbind = \"127.0.0.1:8080\"\n"),
        ),
        (
            "no network",
            format!("{LISTENER}trusted_proxies = [\"10.0.0.0/33\"]\n"),
        ),
        (
            "network with host bits",
            format!("{LISTENER}trusted_proxies = [\"10.0.0.1/8\"]\n"),
        ),
        (
            "no certificate file",
            format!("{LISTENER}tls = {{ certificates = [\"a.pem\"] }}\n"),
        ),
        (
            "certificate without key",
            format!("{LISTENER}tls = {{ certificates = [\"chain.pem\"] }}\n"),
        ),
        (
            "key file without key",
            format!(
                "{LISTENER}tls = {{ certificates = [{{ chain = \"both.pem\", key = \"chain.pem\" }}] }}\n"
            ),
        ),
        (
            "key of another certificate",
            format!(
                "{LISTENER}tls = {{ certificates = [{{ chain = \"chain.pem\", key = \"other.key\" }}] }}\n"
            ),
        ),
        (
            "no certificate in the file",
            format!("{LISTENER}tls = {{ certificates = [\"other.key\"] }}\n"),
        ),
        (
            "no certificates",
            format!("{LISTENER}tls = {{ certificates = [] }}\n"),
        ),
        (
            "health path",
            format!("{SERVICE}health = {{ path = \"healthz\" }}\n"),
        ),
        (
            "slow checks",
            format!("{SERVICE}health = {{ path = \"/\", every = \"1s\", timeout = \"2s\" }}\n"),
        ),
        (
            "checks of nothing",
            format!("{SERVICE}health = {{ path = \"/\", fall = 0 }}\n"),
        ),
        (
            "name",
            "[routes.\"a b\"]\nmatch = {}\nservice = \"orders\"\n".to_owned(),
        ),
        (
            "name no header could carry",
            "[limits.\"\\n\\u007F\u{e9}\\\"\"]\nrate = \"1/s\"\nkey = \"route\"\n".to_owned(),
        ),
        (
            "unknown service",
            route("").replace("\"orders\"", "\"ordres\""),
        ),
        (
            "unknown limit",
            route("")
                + "use = [\"per-partner\"]\n[limits.per-partners]\nrate = \"1/s\"\nkey = \"route\"\n",
        ),
        (
            "used twice",
            route("") + "use = [\"a\", \"a\"]\n" + &limit("rate = \"1/s\"\nkey = \"route\""),
        ),
        (
            "limit by token without token",
            route("") + "use = [\"a\"]\n" + &limit("rate = \"1/s\"\nkey = \"jwt.sub\""),
        ),
        (
            "two token authentications",
            route("")
                + "use = [\"a\", \"b\"]\n"
                + &jwt("jwks = { file = \"jwks.json\" }\n").replace("partners", "a")
                + &jwt("jwks = { file = \"jwks.json\" }\n").replace("partners", "b"),
        ),
        (
            "a name for two things",
            jwt("jwks = { file = \"jwks.json\" }\n").replace("partners", "a")
                + &limit("rate = \"1/s\"\nkey = \"route\""),
        ),
        (
            "token without anything",
            "[auth.partners]\ntype = \"jwt\"\n".to_owned(),
        ),
        (
            "no audience",
            jwt("jwks = { file = \"jwks.json\" }\n").replace("[\"you\"]", "[]"),
        ),
        (
            "no key set file",
            jwt("jwks = { file = \"missing.json\" }\n"),
        ),
        (
            "no key set variable",
            jwt("jwks = { env = \"WEIR_TEST_NOT_SET\" }\n"),
        ),
        ("no key set", jwt("jwks = { file = \"no-set.json\" }\n")),
        ("weak key", jwt("jwks = { file = \"weak.json\" }\n")),
        (
            "no key for the algorithms",
            jwt("jwks = { file = \"jwks.json\" }\nalgorithms = [\"RS256\"]\n"),
        ),
        ("secret in clear", jwt("jwks = \"Xk3-in-clear\"\n")),
        (
            "unknown algorithm",
            jwt("jwks = { file = \"jwks.json\" }\nalgorithms = [\"ES265\"]\n"),
        ),
        (
            "no algorithm",
            jwt("jwks = { file = \"jwks.json\" }\nalgorithms = [\"none\"]\n"),
        ),
        (
            "key of the other type",
            jwt("jwks = { file = \"jwks.json\" }\nheader = \"x-key\"\n"),
        ),
        (
            "leeway",
            jwt("jwks = { file = \"jwks.json\" }\nleeway = \"1h\"\n"),
        ),
        (
            "API key in clear",
            "[auth.a]\ntype = \"api-key\"\nkeys = { ci = \"Xk3-in-clear\" }\n".to_owned(),
        ),
        ("no API keys", "[auth.a]\ntype = \"api-key\"\n".to_owned()),
        (
            "log file without path",
            "[access_log]\nto = \"file\"\n".to_owned(),
        ),
        (
            "unknown log format",
            "[access_log]\nformat = \"jsom\"\n".to_owned(),
        ),
        (
            "log format with a lone brace",
            "[access_log]\nformat = \"{status\"\n".to_owned(),
        ),
        (
            "log format with an unknown field",
            "[access_log]\nformat = \"{statsu}\"\n".to_owned(),
        ),
        (
            "secret in the log",
            "[access_log]\nfields = [\"status\", \"request.authorization\"]\n".to_owned(),
        ),
        (
            "log field twice",
            "[access_log]\nfields = [\"status\", \"status\"]\n".to_owned(),
        ),
        (
            "renamed what is not there",
            "[access_log]\nrename = { statsu = \"code\" }\n".to_owned(),
        ),
        ("log sample", "[access_log]\nsample = \"0.5\"\n".to_owned()),
        (
            "log condition without parts",
            "[access_log]\nonly = {}\n".to_owned(),
        ),
        (
            "log status",
            "[access_log]\nonly = { status = [\"6xx\"] }\n".to_owned(),
        ),
        (
            "log route",
            "[access_log]\nalways = { routes = [\"nobody\"] }\n".to_owned(),
        ),
        (
            "syslog address",
            "[access_log]\nto = \"syslog\"\nsyslog = { address = \"localhost:514\" }\n".to_owned(),
        ),
        (
            "syslog facility",
            "[access_log]\nto = \"syslog\"\nsyslog = { facility = \"local8\" }\n".to_owned(),
        ),
        (
            "log path without file",
            "[access_log]\nto = \"off\"\npath = \"a.log\"\n".to_owned(),
        ),
    ]
}

#[test]
fn wrong_configurations_are_refused_with_place_reason_and_hint() {
    let folder = folder();
    let place = folder.path().display().to_string();
    let mut report = String::new();
    let others = [
        balance::wrong(),
        wrong_routes(),
        trace::wrong(),
        tls::wrong(),
    ]
    .concat();
    for (description, case) in [wrong_configurations(), others].concat() {
        let text = if description == "no listener" {
            case
        } else {
            whole(&case)
        };
        let error = match parse(&text, "gateway.toml", folder.path(), None) {
            Ok(_) => panic!("accepted: {description}"),
            Err(error) => error.to_string().replace(&place, "."),
        };
        assert!(!error.contains("Xk3"), "a secret is shown: {description}");
        let _ = write!(report, "## {description}\n{error}\n\n\n");
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!("wrong_configurations", report) });
}

#[test]
fn all_problems_of_a_file_are_reported_in_order() {
    let text = "[routes.a]\nmatch = { host = \"?\", path = \"x\" }\nservice = \"no\"\n";
    let error = Config::parse(text, Path::new("")).unwrap_err();
    let lines: Vec<_> = error
        .problems()
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(
        lines,
        [
            "there is no listener",
            "invalid host `?`: not a host name",
            "invalid path `x`: a path begins with `/`",
            "unknown service `no`",
        ]
    );
}

#[test]
fn limits_hold_at_their_limit() {
    let folder = folder();
    let check = |text: &str| parse(&whole(text), "gateway.toml", folder.path(), None).map(drop);
    for (length, accepted) in [(64, true), (65, false)] {
        let name = "n".repeat(length);
        let text = format!("[limits.{name}]\nrate = \"1/s\"\nkey = \"route\"\n");
        assert_eq!(check(&text).is_ok(), accepted, "a name of {length}");
    }
    for (excess, accepted) in [(0, true), (1, false)] {
        let padding = (1 << 20) - JWKS.len() + excess;
        let padded = format!("{JWKS}{}", " ".repeat(padding));
        std::fs::write(folder.path().join("big.json"), padded).unwrap();
        let text = jwt("jwks = { file = \"big.json\" }\n");
        assert_eq!(
            check(&text).is_ok(),
            accepted,
            "a key set of 1 MiB and {excess}"
        );
    }
    for (burst, accepted) in [(366, true), (367, false)] {
        let text = format!("[limits.a]\nrate = \"1/d\"\nburst = {burst}\nkey = \"route\"\n");
        assert_eq!(check(&text).is_ok(), accepted, "a burst of {burst} days");
    }
    let two = "[listeners.a]\nbind = \"[::1]:0\"\n[listeners.b]\nbind = \"[::1]:0\"\n";
    assert!(check(two).is_ok(), "port 0 is another port each time");
}

#[test]
fn a_reload_keeps_what_has_not_changed() {
    let folder = folder();
    let path = folder.path().join("gateway.toml");
    let write = |limit: &str| {
        let auth = jwt("jwks = { file = \"jwks.json\" }\n");
        let text =
            format!("{auth}[limits.a]\n{limit}\n[limits.b]\nrate = \"1/s\"\nkey = \"route\"\n");
        std::fs::write(&path, whole(&text)).unwrap();
    };
    write("rate = \"1/s\"\nkey = \"route\"");
    let first = load(&path).unwrap();
    write("rate = \"2/s\"\nkey = \"route\"");
    let second = reload(&path, &first).unwrap().expect("a change");
    assert!(is_current(&path, &second) && !is_current(&path, &first));
    assert!(reload(&path, &second).unwrap().is_none(), "no change");
    let same_limit = |n: usize| Arc::ptr_eq(&first.rate_limits[n], &second.rate_limits[n]);
    assert!(!same_limit(0), "limit `a` has another rate");
    assert!(same_limit(1), "limit `b` keeps its senders");
    assert!(
        Arc::ptr_eq(&first.tokens[0], &second.tokens[0]),
        "verified tokens stay"
    );

    std::fs::write(
        folder.path().join("jwks.json"),
        JWKS.replace("\"x\"", "\"kid\": \"2\", \"x\""),
    )
    .unwrap();
    let third = reload(&path, &second).unwrap().expect("a change");
    assert!(
        !Arc::ptr_eq(&second.tokens[0], &third.tokens[0]),
        "tokens of old keys go"
    );
}

#[test]
fn what_is_left_out_has_a_default() {
    let config = Config::parse(&whole(&route("")), Path::new("")).unwrap();
    assert_eq!(config.limits.headers_max, 100);
    assert_eq!(config.limits.body_bytes_max, 1 << 30);
    assert_eq!(config.access_logs.len(), 1);
    assert_eq!(config.access_logs[0].target.to_string(), "stdout");
    assert_eq!(config.drain.delay, Duration::from_secs(5));
    let service = &config.services[0];
    assert_eq!(service.balance.method, Method::RoundRobin);
    assert_eq!(service.connect_timeout, Duration::from_secs(1));
    let route = config.routes.routes().next().unwrap();
    assert_eq!(
        (route.timeout, route.retry.attempts),
        (Duration::from_secs(30), 1)
    );
}

#[test]
fn certificates_may_come_in_one_file_or_two() {
    let folder = folder();
    let two = "{ chain = \"chain.pem\", key = \"both.pem\" }";
    let tls = format!("{LISTENER}tls = {{ certificates = [\"both.pem\", {two}] }}\n");
    let config = Config::parse(&whole(&tls), folder.path()).unwrap();
    let certificates = &config.listeners[0].tls.as_ref().unwrap().certificates;
    let both = folder.path().join("both.pem");
    assert_eq!(certificates[0].cert_chain_path, both);
    assert_eq!(certificates[0].key_path, both);
    assert_eq!(
        certificates[1].cert_chain_path,
        folder.path().join("chain.pem")
    );
}

#[test]
fn the_example_loads_and_its_complete_form_means_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let (file, config) = read(&folder.join("gateway.toml")).unwrap();
    let complete = toml::to_string(&file.complete()).unwrap();
    let again = Config::parse(&complete, &folder).unwrap();
    assert_eq!(again.limits, config.limits);
    assert_eq!(again.services.len(), config.services.len());
    let names = |config: &Config| -> Vec<_> {
        config
            .routes
            .routes()
            .map(|route| (route.name.clone(), route.timeout))
            .collect()
    };
    assert_eq!(names(&again), names(&config));
    let again = toml::to_string(&toml::from_str::<File>(&complete).unwrap().complete()).unwrap();
    assert_eq!(again, complete, "complete is as complete as it gets");
}

proptest! {
    /// Whatever is done to the example, the answer is a configuration or a list of problems.
    #[test]
    fn a_damaged_configuration_never_breaks_the_reader(
        at in any::<proptest::sample::Index>(),
        length in 0usize..30,
        filling in "[a-z0-9=\"{}\\[\\]., \n\u{e9}-]{0,8}",
    ) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let example = include_str!("../../examples/gateway.toml");
        let start = example.floor_char_boundary(at.index(example.len()));
        let end = example.floor_char_boundary((start + length).min(example.len()));
        let damaged = format!("{}{filling}{}", &example[..start], &example[end..]);
        if let Err(error) = Config::parse(&damaged, &folder) {
            prop_assert!(!error.problems().is_empty());
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
