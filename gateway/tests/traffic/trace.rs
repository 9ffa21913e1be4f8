//! `traceparent` and `tracestate`: whose are believed, what instances see, what the log says.

use http_body_util::Empty;

use crate::support::client::{self, Answer};
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TOLD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn start(origin: &Origin, trusted: bool, tracing: &str) -> Gateway {
    let trusted = if trusted {
        "127.0.0.0/8"
    } else {
        "192.0.2.0/24"
    };
    let configuration = format!(
        "{tracing}\n[listeners.public]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"{trusted}\"]\n\
         [access_log]\nto = \"file\"\npath = \"access.log\"\n\
         fields = [\"path\", \"trace_id\", \"span_id\"]\n{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    );
    Gateway::start_with(&configuration, &[]).await
}

/// What the instance saw of a field.
fn seen(answer: &Answer, name: &str) -> String {
    let fields = answer.json()["headers"].as_array().unwrap().clone();
    let values = fields.iter().filter(|field| field[0] == name);
    let values: Vec<&str> = values.map(|field| field[1].as_str().unwrap()).collect();
    values.join(" and ")
}

/// Sends a request that belongs to a trace and returns what the instance saw: `traceparent`,
/// `tracestate`.
async fn traced(gateway: &Gateway, path: &str, parent: &str) -> [String; 2] {
    let request = client::request(path)
        .header("traceparent", parent)
        .header("tracestate", "vendor=1")
        .body(Empty::new());
    let answer = client::send(gateway.address(), request.unwrap()).await;
    ["traceparent", "tracestate"].map(|name| seen(&answer, name))
}

#[tokio::test]
async fn the_trace_of_a_trusted_peer_is_joined() {
    let origin = Origin::start("one").await;
    let gateway = start(&origin, true, "").await;
    let [parent, state] = traced(&gateway, "/joined", TOLD).await;
    let (start, rest) = parent.split_at(36);
    let (span, flags) = rest.split_at(16);
    assert_eq!((start, flags), (&*format!("00-{ID}-"), "-01"));
    assert_ne!(span, "00f067aa0ba902b7", "it is the gateway's own");
    assert_eq!(state, "vendor=1");
    let line = gateway.logged("/joined").await;
    assert_eq!(
        (&line["trace_id"], &line["span_id"]),
        (&ID.into(), &span.into())
    );

    let broken = TOLD.replace("4736-", "473-");
    assert_eq!(traced(&gateway, "/broken", &broken).await, ["", ""]);
    let line = gateway.logged("/broken").await;
    assert!(line.get("trace_id").is_none(), "{line}");
}

#[tokio::test]
async fn the_trace_of_anybody_else_is_taken_out() {
    let origin = Origin::start("one").await;
    let gateway = start(&origin, false, "").await;
    assert_eq!(traced(&gateway, "/taken", TOLD).await, ["", ""]);
    assert!(gateway.logged("/taken").await.get("span_id").is_none());
}

#[tokio::test]
async fn traces_are_begun_where_that_is_configured() {
    let origin = Origin::start("one").await;
    let begin = "[tracing]\ntraceparent = \"begin\"\nsample = \"0%\"\n";
    let gateway = start(&origin, false, begin).await;
    let mut begun = Vec::new();
    for path in ["/first", "/second"] {
        let [parent, state] = traced(&gateway, path, TOLD).await;
        assert_eq!(
            (parent.len(), &parent[..3], &parent[52..]),
            (55, "00-", "-00")
        );
        assert_eq!(state, "", "it belongs to another trace");
        let line = gateway.logged(path).await;
        assert_eq!(line["trace_id"], parent[3..35]);
        assert_eq!(line["span_id"], parent[36..52]);
        begun.extend([ID.to_owned(), parent[3..35].to_owned()]);
    }
    begun.sort();
    begun.dedup();
    assert_eq!(begun.len(), 3, "each is a trace of its own: {begun:?}");
}

#[tokio::test]
async fn without_a_part_in_traces_the_fields_pass() {
    let origin = Origin::start("one").await;
    let gateway = start(&origin, false, "[tracing]\ntraceparent = \"off\"\n").await;
    assert_eq!(traced(&gateway, "/off", TOLD).await, [TOLD, "vendor=1"]);
    assert!(gateway.logged("/off").await.get("trace_id").is_none());
}
