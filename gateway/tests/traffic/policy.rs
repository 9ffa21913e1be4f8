//! Refusals of the filters, as a client sees them; the filters' own rules are tested with them.

use http_body_util::Empty;
use serde_json::json;

use crate::support::client;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::{Origin, nobody};

#[tokio::test]
async fn refusals_are_problem_documents() {
    let origin = Origin::start("one").await;
    let configuration = [
        service("app", &[origin.address], ""),
        "[auth.partners]\ntype = \"api-key\"\nkeys = { demo = \"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\" }\n".into(),
        "[limits.slow]\nrate = \"1/h\"\nburst = 2\nkey = \"client-ip\"\n".into(),
        route("guarded", "/guarded", "app", "use = [\"partners\"]"),
        route("limited", "/limited", "app", "use = [\"slow\"]"),
    ];
    let gateway = Gateway::start(&configuration.concat()).await;

    let answer = client::get(gateway.address(), "/guarded").await;
    assert_eq!(answer.refusal(), (401, "api-key-missing".to_owned()));
    assert!(!answer.header("www-authenticate").is_empty());
    assert_eq!(
        answer.json()["request_id"],
        json!(answer.header("x-request-id"))
    );
    for (key, status) in [("wrong", 401), ("foo", 200)] {
        let request = client::request("/guarded")
            .header("x-api-key", key)
            .body(Empty::new());
        let answer = client::send(gateway.address(), request.unwrap()).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }

    for _ in 0..2 {
        let answer = client::get(gateway.address(), "/limited").await;
        assert_eq!(answer.status, 200);
        assert!(!answer.header("ratelimit").is_empty(), "{answer:?}");
    }
    let answer = client::get(gateway.address(), "/limited").await;
    assert_eq!(answer.refusal(), (429, "rate-limited".to_owned()));
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    let line = gateway.logged("/limited").await;
    assert_eq!(line["route"], "limited");
    let refused = gateway
        .metric("weir_gateway_refusals_total{reason=\"rate-limited\"}")
        .await;
    assert!((refused - 1.0).abs() < 0.1, "{refused}");
}

#[tokio::test]
async fn what_a_route_says_of_its_answers_holds_for_refusals_too() {
    let origin = Origin::start("one").await;
    let gone = nobody();
    let says = "cors = { origins = [\"https://a.test\"] }\n\
        response_headers = { set = { x-route = \"{route}\" } }\n";
    let configuration = [
        service("app", &[origin.address], ""),
        service("gone", &[gone], ""),
        "[auth.partners]\ntype = \"api-key\"\nkeys = { demo = \"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\" }\n".into(),
        "[limits.once]\nrate = \"1/h\"\nburst = 1\nkey = \"route\"\n".into(),
        route("guarded", "/guarded", "app", &format!("{says}use = [\"partners\"]")),
        route("limited", "/limited", "app", &format!("{says}use = [\"once\"]")),
        route("small", "/small", "app", &format!("{says}body_bytes_max = \"1B\"")),
        route("broken", "/broken", "gone", says),
        route("late", "/hang", "app", &format!("{says}timeout = \"100ms\"")),
        "[routes.get]\nmatch = { path = \"/get\", methods = [\"GET\"] }\nservice = \"app\"\n".to_owned() + says,
    ];
    let gateway = Gateway::start(&configuration.concat()).await;
    assert_eq!(client::get(gateway.address(), "/limited").await.status, 200);
    let table = [
        ("/guarded", 401, "guarded"),
        ("/limited", 429, "limited"),
        ("/small", 413, "small"),
        ("/broken", 502, "broken"),
        ("/hang", 504, "late"),
        // No route is known yet, or none at all.
        ("/get", 405, ""),
        ("/nothing", 404, ""),
    ];
    for (path, status, route) in table {
        let request = http::Request::post(path)
            .header("host", "test")
            .header("origin", "https://a.test")
            .body(http_body_util::Full::from("body"));
        let answer = client::send(gateway.address(), request.unwrap()).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(answer.header("x-route"), route, "{path}");
        let allowed = if route.is_empty() {
            ""
        } else {
            "https://a.test"
        };
        assert_eq!(
            answer.header("access-control-allow-origin"),
            allowed,
            "{path}"
        );
    }
}
