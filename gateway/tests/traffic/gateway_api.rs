//! The Kubernetes Gateway API's extended features of HTTP gateways, as far as they concern a data
//! plane.
//!
//! These are the 38 of the conformance profile `GATEWAY-HTTP` in v1.6 of the API: 26 of HTTPRoute,
//! ten of Gateway and its listeners, two of TLS towards services. The suite itself wants a
//! cluster; here is a test for each feature, or the reason why there is none.
//!
//! HTTPRoute (`HTTPRoute` is left out of the names):
//!
//! | feature | written as | test |
//! |---|---|---|
//! | `303RedirectStatusCode` | `redirect.status` | `redirects_have_the_status_asked_for` |
//! | `307RedirectStatusCode` | `redirect.status` | `redirects_have_the_status_asked_for` |
//! | `308RedirectStatusCode` | `redirect.status` | `redirects_have_the_status_asked_for` |
//! | `BackendProtocolH2C` | `services.protocol` | `a_service_may_speak_http2` |
//! | `BackendProtocolWebSocket` | nothing | `upgrade::bytes_pass_both_ways_after_an_upgrade` |
//! | `BackendRequestHeaderModification` | `split.NAME.request_headers` | `each_service_of_a_split_has_its_own_headers` |
//! | `BackendTimeout` | `retry.per_try_timeout` | `a_try_ends_before_the_request_does` |
//! | `CORS` | `cors` | `preflights_are_answered_here`, `answers_carry_the_policy`, `credentials_need_the_origin_by_name` |
//! | `DestinationPortMatching` | `match.listeners` | `routes_belong_to_listeners` |
//! | `HostRewrite` | `rewrite.host` | `hosts_and_paths_are_rewritten` |
//! | `MethodMatching` | `match.methods` | `requests_match_by_method_query_header_and_cookie` |
//! | `NamedRouteRule` | the route's name | `requests_match_by_method_query_header_and_cookie` |
//! | `ParentRefPort` | `match.listeners` | `routes_belong_to_listeners` |
//! | `PathRedirect` | `redirect.path`, `.prefix` | `redirects_change_what_they_name` |
//! | `PathRewrite` | `rewrite.path`, `.prefix` | `hosts_and_paths_are_rewritten` |
//! | `PortRedirect` | `redirect.port` | `redirects_change_what_they_name` |
//! | `QueryParamMatching` | `match.query` | `requests_match_by_method_query_header_and_cookie` |
//! | `RequestMirror` | `mirror` | `mirror::a_mirror_gets_what_the_service_gets_and_is_not_waited_for` |
//! | `RequestMultipleMirrors` | `mirror` | `mirror::a_mirror_that_fails_is_counted_and_hurts_nobody` |
//! | `RequestPercentageMirror` | `mirror.percent`, `.fraction` | `mirror::a_share_of_the_requests_is_copied` |
//! | `RequestTimeout` | `timeout` | `a_request_ends_at_its_timeout` |
//! | `ResponseHeaderModification` | `response_headers` | `header_fields_are_set_added_and_removed` |
//! | `Retry` | `retry.on`, `.attempts`, `.backoff` | `retry::answers_are_tried_again_as_configured`, `retry::attempts_end_with_the_last_answer` |
//! | `RetryBackendTimeout` | `retry.per_try_timeout` | `retry::an_attempt_has_a_time_of_its_own` |
//! | `RetryConnectionError` | `retry.on = ["connect", "reset"]` | `retry::only_what_is_safe_is_tried_again`, `retry::causes_that_are_not_listed_are_not_tried_again` |
//! | `SchemeRedirect` | `redirect.scheme` | `redirects_change_what_they_name` |
//!
//! Gateway, and TLS towards services:
//!
//! | feature | written as | test, or why there is none |
//! |---|---|---|
//! | `BackendTLSPolicy` | `services.NAME.tls` | `service_tls::the_certificate_must_be_the_right_one`, `service_tls::what_is_asked_for_follows_the_section` |
//! | `BackendTLSPolicySANValidation` | `services.NAME.tls.names` | `service_tls::the_certificate_must_be_the_right_one` |
//! | `GatewayAddressEmpty` | - | a controller picks an address, and writes it into `bind` |
//! | `GatewayBackendClientCertificate` | `services.NAME.tls.certificate` | `service_tls::instances_that_ask_are_shown_the_gateways_certificate` |
//! | `GatewayFrontendClientCertificateValidation` | `listeners.NAME.tls.client_ca` | `client_certificates::clients_come_in_by_what_they_show` |
//! | `GatewayFrontendClientCertificateValidationInsecureFallback` | `client_certificate = "insecure-fallback"` beside it | `client_certificates::clients_come_in_by_what_they_show` |
//! | `GatewayHTTPListenerIsolation` | `match.listeners`, or a route that closes a host | `routes_belong_to_listeners`, `a_host_may_be_closed_to_routes_of_wider_ones` |
//! | `GatewayHTTPSListenerDetectMisdirectedRequests` | nothing | `tls::a_request_for_another_certificate_is_misdirected` |
//! | `GatewayInfrastructurePropagation` | - | labels of Kubernetes objects, which no request meets |
//! | `GatewayPort8080` | `bind` | any port: that of each test is another |
//! | `GatewayStaticAddresses` | `bind` | always so: each test binds 127.0.0.1 |
//! | `ListenerSet` | - | a controller joins its objects; `[listeners]` is one table |
//!
//! Of core features, `RequestHeaderModifier` and `RequestRedirect` are tested along, weights and
//! their pins in `split::…`.

use http::Request;
use http_body_util::Empty;
use serde_json::Value;

use crate::support::client::{self, Answer};
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::origin::Origin;

type Fields<'f> = &'f [(&'f str, &'f str)];

/// Sends a request without body: `GET /path`, with header fields.
async fn ask(gateway: &Gateway, line: &str, fields: Fields<'_>) -> Answer {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    if !fields.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "test");
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    client::send(gateway.address(), request).await
}

/// The values of a field as the instance saw them.
fn seen(answer: &Answer, name: &str) -> Vec<String> {
    let fields = answer.json()["headers"].as_array().unwrap().clone();
    let values = fields.into_iter().filter(|field| field[0] == name);
    values
        .map(|field| field[1].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn requests_match_by_method_query_header_and_cookie() {
    let origin = Origin::start("one").await;
    let rule = |name: &str, matches: &str| {
        format!(
            "[routes.{name}]\nmatch = {{ path = \"/a\", {matches} }}\nservice = \"app\"\nrequest_headers = {{ set = {{ x-route = \"{{route}}\" }} }}\n"
        )
    };
    let configuration = [
        service("app", &[origin.address], ""),
        rule("plain", ""),
        rule("post", "methods = [\"POST\"]"),
        rule("query", "query = { page = \"2\" }"),
        rule("queries", "query = { page = \"2\", sort = { present = true } }"),
        rule("pattern", "query = { page = { regex = \"[a-z]+\" } }"),
        rule("header", "headers = { x-version = \"2\" }"),
        rule("cookie", "cookies = { beta = \"yes\" }"),
        "[routes.number]\nmatch = { path = { regex = \"/users/(?<id>[0-9]+)\" } }\nservice = \"app\"\n\
         request_headers = { set = { x-route = \"user {path.id}\" } }\n".to_owned(),
    ];
    let gateway = Gateway::start(&configuration.concat()).await;
    let cases: [(&str, Fields<'_>, &str); 13] = [
        ("GET /a", &[], "plain"),
        ("POST /a", &[], "post"),
        ("POST /a?page=2", &[("x-version", "2")], "post"),
        ("GET /a?page=2", &[], "query"),
        ("GET /a?x=1&page=%32", &[], "query"),
        ("GET /a?page=1&page=2", &[], "plain"),
        ("GET /a?sort=name&page=2", &[], "queries"),
        ("GET /a?page=two", &[], "pattern"),
        ("GET /a?page=two3", &[], "plain"),
        ("GET /a?page=2&sort", &[("x-version", "2")], "header"),
        ("GET /a", &[("cookie", "a=1; beta=yes")], "cookie"),
        ("GET /a", &[("cookie", "beta=no")], "plain"),
        ("GET /users/42", &[], "user 42"),
    ];
    for (line, fields, expected) in cases {
        let answer = ask(&gateway, line, fields).await;
        assert_eq!(seen(&answer, "x-route"), [expected], "{line} {fields:?}");
    }
    assert_eq!(ask(&gateway, "GET /users/me", &[]).await.status, 404);
}

#[tokio::test]
async fn routes_belong_to_listeners() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let on = |name: &str, listener: &str| {
        format!(
            "[routes.{name}]\nmatch = {{ listeners = [\"{listener}\"] }}\nservice = \"{name}\"\n"
        )
    };
    let configuration = [
        BASE.to_owned(),
        "[listeners.internal]\nbind = \"127.0.0.1:0\"\n".to_owned(),
        service("one", &[one.address], ""),
        service("two", &[two.address], ""),
        on("one", "public"),
        on("two", "internal"),
    ];
    let gateway = Gateway::start_with(&configuration.concat(), &[]).await;
    for (listener, instance) in [("public", "one"), ("internal", "two")] {
        let answer = client::get(gateway.listener(listener), "/").await;
        assert_eq!(answer.json()["instance"], instance);
    }
}

/// Listeners that share a port differ by host alone. A request belongs to the most specific one,
/// and no other listener's routes may take it: each ends with a route for all of its host.
#[tokio::test]
async fn a_host_may_be_closed_to_routes_of_wider_ones() {
    let hosts = [
        ("any", "*"),
        ("wide", "*.example.com"),
        ("narrow", "*.foo.example.com"),
        ("exact", "abc.foo.example.com"),
    ];
    let routes = hosts.map(|(name, host)| {
        format!(
            "[routes.{name}]\nmatch = {{ host = \"{host}\", path = \"/{name}\" }}\nrespond = {{ body = \"{name}\" }}\n\
             [routes.{name}-else]\nmatch = {{ host = \"{host}\" }}\nrespond = {{ status = 404 }}\n"
        )
    });
    let gateway = Gateway::start(&routes.concat()).await;
    let table = [
        ("bar.com", "any"),
        ("example.com", "any"),
        ("bar.example.com", "wide"),
        ("foo.example.com", "wide"),
        ("bar.foo.example.com", "narrow"),
        ("x.abc.foo.example.com", "narrow"),
        ("abc.foo.example.com", "exact"),
    ];
    for (host, expected) in table {
        for (name, _) in hosts {
            let answer = ask(&gateway, &format!("GET /{name}"), &[("host", host)]).await;
            let status = if name == expected { 200 } else { 404 };
            assert_eq!(answer.status, status, "{host}/{name}");
        }
    }
}

fn redirecting(name: &str, path: &str, redirect: &str) -> String {
    format!("[routes.{name}]\nmatch = {{ path = \"{path}\" }}\nredirect = {{ {redirect} }}\n")
}

#[tokio::test]
async fn redirects_have_the_status_asked_for() {
    let statuses = [301, 302, 303, 307, 308];
    let routes = statuses.map(|status| {
        let redirect = format!("status = {status}, path = \"/new\"");
        redirecting(&format!("r{status}"), &format!("/{status}"), &redirect)
    });
    let usual = redirecting("usual", "/usual", "path = \"/new\"");
    let gateway = Gateway::start(&(routes.concat() + &usual)).await;
    for status in statuses {
        let answer = ask(&gateway, &format!("POST /{status}"), &[]).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("location"), "http://test/new");
        assert!(answer.body.is_empty());
    }
    assert_eq!(ask(&gateway, "GET /usual", &[]).await.status, 302);
    let line = gateway.logged("/308").await;
    assert_eq!(
        (&line["status"], &line["route"]),
        (&308.into(), &"r308".into())
    );
    assert!(
        line.get("reason").is_none() && line.get("service").is_none(),
        "{line}"
    );
    let series = "weir_gateway_requests_total{route=\"r308\",service=\"\",status=\"3xx\"}";
    assert!((gateway.metric(series).await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn redirects_change_what_they_name() {
    let configuration = [
        redirecting("scheme", "/scheme/{*rest}", "scheme = \"https\""),
        redirecting("host", "/host/{*rest}", "host = \"b.test\""),
        redirecting("port", "/port/{*rest}", "port = 8443"),
        redirecting("both", "/both/{*rest}", "scheme = \"https\", port = 8443"),
        redirecting("full", "/full/{id}", "path = \"/x/{id}/y\""),
        redirecting("prefix", "/prefix/{*rest}", "prefix = \"/\""),
        redirecting("query", "/query", "path = \"/x\", query = \"drop\""),
    ];
    let gateway = Gateway::start(&configuration.concat()).await;
    let cases = [
        ("/scheme/a?b=1", "test:8080", "https://test/scheme/a?b=1"),
        ("/host/a", "test:8080", "http://b.test:8080/host/a"),
        ("/host/a", "test:80", "http://b.test/host/a"),
        ("/port/a", "test", "http://test:8443/port/a"),
        ("/both/a", "test", "https://test:8443/both/a"),
        ("/full/7?q=%20", "test", "http://test/x/7/y?q=%20"),
        ("/prefix/a/b", "test", "http://test/a/b"),
        ("/prefix", "test", "http://test/"),
        ("/query?a=1", "test", "http://test/x"),
        ("/prefix/a", "[::1]:8080", "http://[::1]:8080/a"),
    ];
    for (target, host, expected) in cases {
        let answer = ask(&gateway, &format!("GET {target}"), &[("host", host)]).await;
        assert_eq!(answer.header("location"), expected, "{target} on {host}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_redirects_keep_the_scheme_clients_use() {
    let base = BASE.replace(
        "[admin]",
        "[listeners.trusting]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n[admin]",
    );
    let route = redirecting("moved", "/old", "path = \"/new\"");
    let gateway = Gateway::start_with(&(base + &route), &[]).await;
    let location = async |listener: &str, proto: &'static str| {
        let request = client::request("/old").header("x-forwarded-proto", proto);
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = client::send(gateway.listener(listener), request).await;
        answer.header("location").to_owned()
    };
    assert_eq!(location("trusting", "https").await, "https://test/new");
    assert_eq!(location("trusting", "gopher").await, "http://test/new");
    assert_eq!(location("public", "https").await, "http://test/new");
}

#[tokio::test]
async fn the_gateway_answers_itself() {
    let configuration = "
        [routes.text]\nmatch = { path = \"/text\" }\nrespond = { body = \"hello\" }
        [routes.gone]\nmatch = { path = \"/gone/{*rest}\" }\nrespond = { status = 410 }
        [routes.page]\nmatch = { path = \"/page\" }
        respond = { status = 503, body = { file = \"down.html\" }, content_type = \"text/html\" }
        response_headers = { set = { retry-after = \"60\" } }
    ";
    let files = [("down.html", "<p>back soon")];
    let gateway = Gateway::start_with(&format!("{BASE}{configuration}"), &files).await;
    let text = ask(&gateway, "GET /text", &[]).await;
    assert_eq!(
        (text.status.as_u16(), text.text()),
        (200, "hello".to_owned())
    );
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    let head = ask(&gateway, "HEAD /text", &[]).await;
    assert_eq!(
        (head.header("content-length"), head.text()),
        ("5", String::new())
    );
    let gone = ask(&gateway, "POST /gone/x", &[]).await;
    assert_eq!((gone.status.as_u16(), gone.text()), (410, String::new()));
    assert_eq!(gone.header("content-type"), "");
    let page = ask(&gateway, "GET /page", &[]).await;
    assert_eq!(
        (page.status.as_u16(), page.text()),
        (503, "<p>back soon".to_owned())
    );
    assert_eq!(
        (page.header("content-type"), page.header("retry-after")),
        ("text/html", "60")
    );
    assert!(!page.header("x-request-id").is_empty());
}

#[tokio::test]
async fn hosts_and_paths_are_rewritten() {
    let (h1, h2) = (Origin::start("h1").await, Origin::start("h2").await);
    let configuration = [
        service("h1", &[h1.address], ""),
        service("h2", &[h2.address], "protocol = \"http2\""),
        route(
            "host",
            "/host/{*rest}",
            "h1",
            "rewrite = { host = \"in.test:81\" }",
        ),
        route(
            "host2",
            "/host2",
            "h2",
            "rewrite = { host = \"in.test\", path = \"/two\" }",
        ),
        route(
            "full",
            "/full/{a}/{b}",
            "h1",
            "rewrite = { path = \"/{b}/x/{a}\" }",
        ),
        route(
            "prefix",
            "/prefix/{*rest}",
            "h1",
            "rewrite = { prefix = \"/v1/x\" }",
        ),
        route(
            "root",
            "/base/{*rest}",
            "h1",
            "rewrite = { prefix = \"/\" }",
        ),
    ];
    let gateway = Gateway::start(&configuration.concat()).await;
    let cases = [
        ("/host/a?b=1", "/host/a?b=1", "in.test:81"),
        ("/full/1/2%20?b=1", "/2%20/x/1?b=1", "test"),
        ("/prefix/a/b?c", "/v1/x/a/b?c", "test"),
        ("/prefix", "/v1/x", "test"),
        ("/prefix/", "/v1/x/", "test"),
        ("/base/a", "/a", "test"),
        ("/base", "/", "test"),
    ];
    for (target, path, host) in cases {
        let answer = ask(&gateway, &format!("GET {target}"), &[]).await;
        assert_eq!(answer.json()["uri"], path, "{target}");
        assert_eq!(seen(&answer, "host"), [host], "{target}");
        assert_eq!(seen(&answer, "x-forwarded-host"), ["test"], "{target}");
    }
    let answer = ask(&gateway, "GET /host2?q=1", &[]).await;
    assert_eq!(answer.json()["uri"], "http://in.test/two?q=1");
    // The log has what the client asked for.
    assert_eq!(gateway.logged("/full/1/2%20").await["route"], "full");
}

#[tokio::test]
async fn a_service_may_speak_http2() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of_with(&[origin.address], "protocol = \"http2\"", "").await;
    let answer = client::get(gateway.address(), "/a").await;
    assert_eq!(answer.json()["version"], "HTTP/2.0");
}

#[tokio::test]
async fn header_fields_are_set_added_and_removed() {
    let origin = Origin::start("one").await;
    let changes = "use = [\"keys\"]
        request_headers = { set = { x-set = \"new\", x-who = \"{api-key} at {client-ip}\", x-claim = \"{jwt.sub}\", x-forwarded-proto = \"https\" }, add = { x-add = \"two\" }, remove = [\"x-gone\", \"x-api-key\"] }
        response_headers = { set = { x-public = \"2\", x-path = \"{method} {path}?{query}\" }, add = { via = \"test\" }, remove = [\"x-private\", \"content-type\"] }";
    let configuration = [
        service("app", &[origin.address], ""),
        // Of `printf abc | sha256sum`.
        "[auth.keys]\ntype = \"api-key\"\nkeys = { ci = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\" }\n".to_owned(),
        route("all", "/{*rest}", "app", changes),
    ];
    let gateway = Gateway::start(&configuration.concat()).await;
    let fields = [
        ("x-api-key", "abc"),
        ("x-set", "old"),
        ("x-claim", "spoofed"),
        ("x-add", "one"),
        ("x-gone", "1"),
        ("x-kept", "1"),
    ];
    let answer = ask(&gateway, "GET /a", &fields).await;
    let table: [(&str, &[&str]); 8] = [
        ("x-set", &["new"]),
        ("x-who", &["ci at 127.0.0.1"]),
        ("x-claim", &[]),
        ("x-forwarded-proto", &["https"]),
        ("x-add", &["one", "two"]),
        ("x-gone", &[]),
        ("x-api-key", &[]),
        ("x-kept", &["1"]),
    ];
    for (name, expected) in table {
        assert_eq!(seen(&answer, name), expected, "{name}");
    }
    let answer = ask(&gateway, "GET /hop?q=1", &[("x-api-key", "abc")]).await;
    assert_eq!(answer.header("x-public"), "2");
    assert_eq!(answer.header("x-path"), "GET /hop?q=1");
    assert_eq!(answer.headers.get_all("via").iter().count(), 2);
    // Refusals are answers of the route too.
    let refused = ask(&gateway, "GET /secret", &[]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("x-public")),
        (401, "2")
    );
    assert_eq!(refused.header("content-type"), "");
}

#[tokio::test]
async fn each_service_of_a_split_has_its_own_headers() {
    let (blue, green) = (Origin::start("blue").await, Origin::start("green").await);
    let configuration = [
        service("blue", &[blue.address], ""),
        service("green", &[green.address], ""),
        "[routes.all]\nmatch = {}\nrequest_headers = { set = { x-color = \"none\", x-all = \"1\" } }\nrewrite = { host = \"all.test\" }\n\
         [routes.all.split]\nblue = 1\n\
         green = { weight = 0, when = [{ query = { c = \"g\" } }], request_headers = { set = { x-color = \"green\" } }, response_headers = { set = { x-from = \"green\" } }, rewrite = { host = \"green.test\", path = \"/green\" } }\n".to_owned(),
    ];
    let gateway = Gateway::start(&configuration.concat()).await;
    let cases = [
        ("/a", "blue", "none", "", "all.test", "/a"),
        (
            "/a?c=g",
            "green",
            "green",
            "green",
            "green.test",
            "/green?c=g",
        ),
    ];
    for (target, instance, color, from, host, uri) in cases {
        let answer = ask(&gateway, &format!("GET {target}"), &[]).await;
        assert_eq!(answer.json()["instance"], instance);
        assert_eq!(seen(&answer, "x-color"), [color]);
        assert_eq!(seen(&answer, "x-all"), ["1"]);
        assert_eq!(seen(&answer, "host"), [host]);
        assert_eq!(answer.header("x-from"), from);
        assert_eq!(answer.json()["uri"], uri);
    }
}

#[tokio::test]
async fn a_request_ends_at_its_timeout() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of_with(&[origin.address], "", "timeout = \"100ms\"").await;
    let answer = client::get(gateway.address(), "/hang").await;
    assert_eq!(answer.refusal(), (504, "upstream-timeout".to_owned()));
    origin.sees_cancellation().await;
}

#[tokio::test]
async fn a_try_ends_before_the_request_does() {
    let origin = Origin::start("one").await;
    let retry = "timeout = \"1h\"\nretry = { attempts = 0, per_try_timeout = \"100ms\" }";
    let gateway = Gateway::in_front_of_with(&[origin.address], "", retry).await;
    let answer = client::get(gateway.address(), "/hang").await;
    assert_eq!(answer.status, 504, "{answer:?}");
}

const CORS: &str = "use = [\"keys\"]
    cors = { origins = [\"https://a.test\", \"https://*.b.test\"], methods = [\"PUT\", \"DELETE\"], headers = [\"x-a\"], expose = [\"x-public\"], max_age = \"1m\" }";

async fn with_cors(cors: &str) -> (Gateway, Origin) {
    let origin = Origin::start("one").await;
    let configuration = [
        service("app", &[origin.address], ""),
        "[auth.keys]\ntype = \"api-key\"\nkeys = { ci = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\" }\n".to_owned(),
        format!("[routes.put]\nmatch = {{ path = \"/{{*rest}}\", methods = [\"PUT\", \"GET\"] }}\nservice = \"app\"\n{cors}\n"),
        "[routes.other]\nmatch = { path = \"/{*rest}\" }\nservice = \"app\"\n".to_owned(),
    ];
    (Gateway::start(&configuration.concat()).await, origin)
}

#[tokio::test]
async fn preflights_are_answered_here() {
    let (gateway, origin) = with_cors(CORS).await;
    let preflight = async |from, method| {
        let fields = [
            ("origin", from),
            ("access-control-request-method", method),
            ("access-control-request-headers", "x-a"),
        ];
        ask(&gateway, "OPTIONS /a", &fields).await
    };
    for from in ["https://a.test", "https://x.b.test"] {
        let answer = preflight(from, "PUT").await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), from);
        assert_eq!(answer.header("access-control-allow-methods"), "PUT, DELETE");
        assert_eq!(answer.header("access-control-allow-headers"), "x-a");
        assert_eq!(answer.header("access-control-max-age"), "60");
        assert!(answer.header("vary").contains("origin"));
    }
    let stranger = preflight("https://evil.test", "PUT").await;
    assert_eq!(stranger.status, 204);
    assert_eq!(stranger.header("access-control-allow-origin"), "");
    assert_eq!(origin.requests(), 0);
    // For a route without CORS, and for OPTIONS that is no preflight, the instance answers.
    assert_eq!(
        preflight("https://a.test", "POST").await.json()["instance"],
        "one"
    );
    assert_eq!(
        ask(&gateway, "OPTIONS /a", &[]).await.json()["method"],
        "OPTIONS"
    );
}

#[tokio::test]
async fn answers_carry_the_policy() {
    let (gateway, _origin) = with_cors(CORS).await;
    let key = ("x-api-key", "abc");
    let answer = ask(&gateway, "GET /hop", &[key, ("origin", "https://a.test")]).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://a.test"
    );
    assert_eq!(answer.header("access-control-expose-headers"), "x-public");
    assert_eq!(answer.header("vary"), "origin");
    let stranger = ask(
        &gateway,
        "GET /hop",
        &[key, ("origin", "https://evil.test")],
    )
    .await;
    assert_eq!(
        (stranger.status.as_u16(), stranger.text()),
        (200, "hop".to_owned())
    );
    assert_eq!(stranger.header("access-control-allow-origin"), "");
    // Without it, a page could not even see why it was refused.
    let refused = ask(&gateway, "GET /hop", &[("origin", "https://a.test")]).await;
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("access-control-allow-origin"),
        "https://a.test"
    );
}

#[tokio::test]
async fn credentials_need_the_origin_by_name() {
    let cases = [
        ("cors = { origins = [\"*\"] }", "*", ""),
        (
            "cors = { origins = [\"*\"], credentials = true }",
            "https://a.test",
            "true",
        ),
    ];
    for (cors, allowed, credentials) in cases {
        let (gateway, _origin) = with_cors(cors).await;
        let answer = ask(&gateway, "GET /a", &[("origin", "https://a.test")]).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            credentials
        );
    }
}

/// The log names the service that took the request, and none where there was a choice that was
/// never made.
#[tokio::test]
async fn the_log_names_the_service_chosen() {
    let origin = Origin::start("one").await;
    let configuration = [
        service("blue", &[origin.address], ""),
        service("green", &[origin.address], ""),
        "[limits.never]\nrate = \"1/d\"\nkey = \"route\"\n".to_owned(),
        "[routes.all]\nmatch = {}\nuse = [\"never\"]\nsplit = { blue = 1, green = 0 }\n".to_owned(),
    ];
    let gateway = Gateway::start(&configuration.concat()).await;
    assert_eq!(ask(&gateway, "GET /first", &[]).await.status, 200);
    assert_eq!(ask(&gateway, "GET /second", &[]).await.status, 429);
    assert_eq!(gateway.logged("/first").await["service"], "blue");
    let refused = gateway.logged("/second").await;
    assert_eq!(refused.get("service"), None::<&Value>, "{refused}");
}
