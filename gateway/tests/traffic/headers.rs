//! What happens to header fields on the way: hop-by-hop fields end here, forwarding fields are
//! added, everything else passes.

use http::Request;
use http_body_util::Empty;
use serde_json::Value;

use crate::support::client::{self, Answer, raw};
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

/// The values of a field as the instance saw it.
fn seen(answer: &Answer, name: &str) -> Vec<String> {
    let fields = answer.json()["headers"].as_array().unwrap().clone();
    let values = fields.into_iter().filter(|field| field[0] == name);
    values
        .map(|field| field[1].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn hop_by_hop_fields_of_requests_end_here() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let request = client::request("/")
        .header("connection", "keep-alive, X-Private, authorization")
        .header("x-private", "1")
        .header("authorization", "Bearer x")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("proxy-authorization", "Basic x")
        .header("te", "trailers, gzip")
        .header("trailer", "x-sum")
        .header("x-public", "1")
        .header("upgrade", "h2c")
        .body(Empty::new())
        .unwrap();
    let answer = client::send(gateway.address(), request).await;
    let table: [(&str, &[&str]); 10] = [
        ("connection", &[]),
        ("x-private", &[]),
        ("authorization", &["Bearer x"]),
        ("keep-alive", &[]),
        ("proxy-connection", &[]),
        ("proxy-authorization", &[]),
        ("te", &["trailers"]),
        ("trailer", &["x-sum"]),
        ("x-public", &["1"]),
        ("upgrade", &[]),
    ];
    for (name, expected) in table {
        assert_eq!(seen(&answer, name), expected, "{name}");
    }
    assert_eq!(seen(&answer, "via"), ["1.1 weir"]);
    assert_eq!(seen(&answer, "host"), ["test"]);
}

#[tokio::test]
async fn hop_by_hop_fields_of_responses_end_here() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let answer = client::get(gateway.address(), "/hop").await;
    for name in [
        "connection",
        "x-private",
        "keep-alive",
        "proxy-authenticate",
    ] {
        assert_eq!(answer.header(name), "", "{name}");
    }
    assert_eq!(answer.header("x-public"), "1");
    assert_eq!(answer.header("via"), "1.1 weir");
}

#[tokio::test]
async fn what_an_untrusted_client_says_about_itself_is_replaced() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let lies = |request: http::request::Builder| {
        request
            .header("x-forwarded-for", "198.51.100.1")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "evil")
            .header("forwarded", "for=198.51.100.1")
            .header("x-real-ip", "198.51.100.1")
    };
    let request = lies(client::request("/lies")).body(Empty::new()).unwrap();
    let answer = client::send(gateway.address(), request).await;
    assert_eq!(seen(&answer, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen(&answer, "x-forwarded-proto"), ["http"]);
    assert_eq!(seen(&answer, "x-forwarded-host"), ["test"]);
    assert_eq!(
        seen(&answer, "forwarded"),
        ["for=127.0.0.1;host=test;proto=http"]
    );
    assert!(seen(&answer, "x-real-ip").is_empty());
    assert_eq!(gateway.logged("/lies").await["client"], "127.0.0.1");
}

#[tokio::test]
async fn only_the_fields_that_are_asked_for_are_added() {
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         added_headers = [\"x-forwarded-for\", \"x-forwarded-proto\"]\n{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    );
    let gateway = Gateway::start_with(&configuration, &[]).await;
    let request = client::request("/few").header("forwarded", "for=198.51.100.1");
    let answer = client::send(gateway.address(), request.body(Empty::new()).unwrap()).await;
    assert_eq!(seen(&answer, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen(&answer, "x-forwarded-proto"), ["http"]);
    for name in ["x-forwarded-host", "forwarded", "via"] {
        assert!(seen(&answer, name).is_empty(), "{name}");
    }
    assert_eq!(answer.header("via"), "");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_kept() {
    let origin = Origin::start("one").await;
    let gateway = trusting(&origin, "").await;
    let request = client::request("/kept")
        .header("x-forwarded-for", "203.0.113.9, 198.51.100.1")
        .header("x-forwarded-proto", "https")
        .body(Empty::new())
        .unwrap();
    let answer = client::send(gateway.address(), request).await;
    assert_eq!(
        seen(&answer, "x-forwarded-for"),
        ["203.0.113.9, 198.51.100.1, 127.0.0.1"]
    );
    assert_eq!(seen(&answer, "x-forwarded-proto"), ["https"]);
    assert_eq!(gateway.logged("/kept").await["client"], "198.51.100.1");
}

/// A gateway that trusts its clients, with more of the configuration.
async fn trusting(origin: &Origin, more: &str) -> Gateway {
    let configuration = format!(
        "[listeners.public]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
         [access_log]\nto = \"file\"\npath = \"access.log\"\n{more}{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    );
    Gateway::start_with(&configuration, &[]).await
}

#[tokio::test]
async fn request_ids_of_trusted_peers_are_kept_and_tie_everything_together() {
    let origin = Origin::start("one").await;
    let gateway = trusting(&origin, "").await;
    let longest = "a".repeat(64);
    for (path, sent, kept) in [
        ("/id", "mine-1", true),
        ("/longest", longest.as_str(), true),
        ("/too-long", &"a".repeat(65), false),
        ("/space", "a b", false),
        ("/quote", "a\"b", false),
    ] {
        let request = client::request(path).header("x-request-id", sent);
        let request = request.body(Empty::new()).unwrap();
        let answer = client::send(gateway.address(), request).await;
        let id = answer.header("x-request-id");
        assert_eq!(id == sent, kept, "{sent}");
        assert!(kept || id.len() == 32, "{id}");
        assert_eq!(seen(&answer, "x-request-id"), [id], "{sent}");
        assert_eq!(gateway.logged(path).await["request_id"], id, "{sent}");
    }
}

#[tokio::test]
async fn request_ids_of_anybody_else_are_replaced() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let request = client::request("/id").header("x-request-id", "mine-1");
    let answer = client::send(gateway.address(), request.body(Empty::new()).unwrap()).await;
    let made = answer.header("x-request-id");
    assert_eq!(made.len(), 32, "{made}");
    assert_eq!(seen(&answer, "x-request-id"), [made]);
    assert_eq!(gateway.logged("/id").await["request_id"], made);
}

#[tokio::test]
async fn targets_reach_the_instance_in_normal_form() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    for (sent, arrives) in [
        ("/a?b=c&d=%2F", "/a?b=c&d=%2F"),
        ("/%61/%7e%c3%a9", "/a/~%C3%A9"),
        ("http://test/absolute?x", "/absolute?x"),
    ] {
        let request = Request::get(sent)
            .header("host", "test")
            .body(Empty::new())
            .unwrap();
        let answer = client::send(gateway.address(), request).await;
        assert_eq!(answer.json()["uri"], arrives, "{sent}");
    }
}

#[tokio::test]
async fn the_access_log_has_one_complete_line_per_request() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let request = Request::post("/logged?secret=1").header("host", "Test:80");
    let body = http_body_util::Full::from("hello");
    client::send(gateway.address(), request.body(body).unwrap()).await;
    let line = gateway.logged("/logged").await;
    let expected = [
        ("client", Value::from("127.0.0.1")),
        ("method", "POST".into()),
        ("host", "test".into()),
        ("path", "/logged".into()),
        ("route", "all".into()),
        ("service", "app".into()),
        ("instance", origin.address.to_string().into()),
        ("status", 200.into()),
        ("retries", 0.into()),
        ("bytes_in", 5.into()),
        ("protocol", "HTTP/1.1".into()),
    ];
    for (name, value) in expected {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert!(line["bytes_out"].as_u64().unwrap() > 0);
    assert!(line["duration_us"].as_u64() >= line["upstream_us"].as_u64());
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
    assert!(line.get("reason").is_none() && line.get("tls").is_none());
}

#[tokio::test]
async fn old_clients_are_served() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let answer = raw(
        gateway.address(),
        b"GET /old HTTP/1.0\r\nHost: test\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("chunked"), "{answer}");
    assert_eq!(gateway.logged("/old").await["protocol"], "HTTP/1.0");
}
