//! TLS that is configured wrongly, and what is made of what is left out.

use std::path::Path;

use super::super::*;
use super::{LISTENER, SERVICE, folder};

/// Wrong configurations, to be refused with the text that stands in the snapshot.
pub(super) fn wrong() -> Vec<(&'static str, String)> {
    let tls = |lines: &str| format!("{SERVICE}[services.orders.tls]\n{lines}\n");
    let named = |lines: &str| tls(&format!("server_name = \"a.example\"\n{lines}"));
    let many = vec!["\"a.example\""; 33].join(", ");
    let clients =
        |keys: &str| format!("{LISTENER}tls = {{ certificates = [\"both.pem\"], {keys} }}\n");
    vec![
        (
            "demands on clients without issuers",
            clients("client_certificate = \"optional\", client_crl = \"chain.pem\""),
        ),
        ("clients of nobody", clients("client_ca = \"other.key\"")),
        (
            "a revocation list that is none",
            clients("client_ca = \"chain.pem\", client_crl = \"chain.pem\""),
        ),
        (
            "a demand nobody knows",
            clients("client_ca = \"chain.pem\", client_certificate = \"request\""),
        ),
        ("TLS to nobody", tls("ca = \"chain.pem\"")),
        ("issuers that are missing", named("ca = \"missing.pem\"")),
        ("issuers that are none", named("ca = \"other.key\"")),
        (
            "a server name with port",
            tls("ca = \"chain.pem\"\nserver_name = \"a.example:443\""),
        ),
        (
            "a pattern for a name",
            tls("ca = \"chain.pem\"\nnames = [\"*.example\"]"),
        ),
        (
            "too many names",
            tls(&format!("ca = \"chain.pem\"\nnames = [{many}]")),
        ),
        (
            "the key of another certificate",
            named(
                "ca = \"chain.pem\"\ncertificate = { chain = \"chain.pem\", key = \"other.key\" }",
            ),
        ),
        (
            "trust in anybody",
            named("ca = \"chain.pem\"\ninsecure_skip_verify = true"),
        ),
        (
            "a check over TLS there is none of",
            format!("{SERVICE}health = {{ path = \"/\", tls = true }}\n"),
        ),
    ]
}

fn service(lines: &str) -> (String, Config) {
    let text = format!("{}[services.orders]\n{lines}\n", LISTENER);
    let folder = folder();
    let (file, config) = parse(&text, "gateway.toml", folder.path(), None).unwrap();
    (toml::to_string(&file.complete()).unwrap(), config)
}

#[test]
fn the_name_is_that_by_which_instances_are_found() {
    let tls = "[services.orders.tls]\nca = \"chain.pem\"";
    let dns = "discover = { dns = \"orders.internal.:8443\" }";
    let listed = "endpoints = [\"10.0.0.1:80\"]";
    // How instances are found, the section, the name, the host of a check.
    let table = [
        (dns, "", Some("orders.internal")),
        (dns, "server_name = \"a.example\"", Some("a.example")),
        (listed, "server_name = \"a.example\"", Some("a.example")),
        (listed, "names = [\"a.example\"]", None),
        (dns, "names = [\"a.example\"]", Some("orders.internal")),
    ];
    for (found, lines, expected) in table {
        let health = "health = { path = \"/\" }";
        let (complete, config) = service(&format!("{found}\n{health}\n{tls}\n{lines}"));
        let service = &config.services[0];
        let host = service.tls.as_ref().unwrap().host();
        assert_eq!(host, expected, "{found} {lines}");
        let shown = expected.map(|name| format!("server_name = \"{name}\""));
        let is_shown = complete.contains("server_name");
        assert_eq!(is_shown, shown.is_some(), "{complete}");
        assert!(shown.is_none_or(|shown| complete.contains(&shown)));
        let Check::Http { host, .. } = &service.health.as_ref().unwrap().check else {
            panic!("another check");
        };
        assert_eq!(host.as_deref(), expected);
    }
}

#[test]
fn clients_that_are_asked_must_answer_unless_told_otherwise() {
    use ClientCertificate::{InsecureFallback, Optional, Required};
    let folder = folder();
    let table = [
        ("", None),
        (", client_ca = \"chain.pem\"", Some(Required)),
        (
            ", client_ca = \"chain.pem\", client_certificate = \"optional\"",
            Some(Optional),
        ),
        (
            ", client_ca = \"chain.pem\", client_certificate = \"insecure-fallback\"",
            Some(InsecureFallback),
        ),
    ];
    for (keys, expected) in table {
        let text = format!("{LISTENER}tls = {{ certificates = [\"both.pem\"]{keys} }}\n");
        let (file, config) = parse(&text, "gateway.toml", folder.path(), None).unwrap();
        let clients = config.listeners[0].tls.as_ref().unwrap().clients.as_ref();
        assert_eq!(clients.map(|clients| clients.demand), expected, "{keys}");
        let complete = toml::to_string(&file.complete()).unwrap();
        let shown = complete.contains("client_certificate = ");
        assert_eq!(shown, expected.is_some(), "{complete}");
    }
}

#[test]
fn only_what_matters_makes_a_difference() {
    let folder = folder();
    let tls = |lines: &str| {
        let section = "[services.orders.tls]\nserver_name = \"a.example\"\nca = \"ca.pem\"";
        let text = format!("{}{SERVICE}{section}\n{lines}\n", LISTENER);
        let config = Config::parse(&text, folder.path()).unwrap();
        config.services[0].tls.clone().unwrap()
    };
    let copy = |from: &str, to: &str| {
        std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    };
    copy("chain.pem", "ca.pem");
    copy("both.pem", "own.pem");
    let own = "certificate = \"own.pem\"";
    let (before, with_own) = (tls(""), tls(own));
    assert_eq!(tls("names = []"), before);
    for lines in [own, "names = [\"a.example\"]", "names = [\"b.example\"]"] {
        assert_ne!(tls(lines), before, "{lines}");
    }
    let other = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let both = other.cert.pem() + &other.signing_key.serialize_pem();
    std::fs::write(folder.path().join("own.pem"), both).unwrap();
    assert_eq!(tls(""), before);
    assert_ne!(tls(own), with_own, "a renewed certificate of our own");
    std::fs::write(folder.path().join("ca.pem"), other.cert.pem()).unwrap();
    assert_ne!(tls(""), before, "other issuers");
}

#[test]
fn without_issuers_those_of_the_system_are_trusted_or_nobody() {
    let section = "[services.orders.tls]\nserver_name = \"a.example\"\n";
    let text = format!("{}{SERVICE}{section}", LISTENER);
    let parsed = Config::parse(&text, Path::new(""));
    match rustls_native_certs::load_native_certs().certs.is_empty() {
        false => assert!(parsed.unwrap().services[0].tls.is_some()),
        true => {
            let error = parsed.unwrap_err().to_string();
            assert!(error.contains("the system trusts no issuer"), "{error}");
        }
    }
}
