//! A worker that may stay awake after a read does, and a reload says whether it may.

use crate::support::client;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

fn configuration(origin: &Origin, busy_poll: &str) -> String {
    format!(
        "[server]\nworkers = 1\nbusy_poll = \"{busy_poll}\"\n\
         [listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\nsocket = \"gateway.sock\"\n{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    )
}

/// How often the worker stays awake while a few requests are answered.
async fn busy_polls(gateway: &Gateway) -> f64 {
    const SERIES: &str = "weir_gateway_busy_polls_total";
    let before = gateway.metric(SERIES).await;
    for _ in 0..5 {
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    }
    gateway.metric(SERIES).await - before
}

#[tokio::test]
async fn a_worker_stays_awake_where_the_configuration_in_force_says_so() {
    let origin = Origin::start("app").await;
    let gateway = Gateway::start_with(&configuration(&origin, "0s"), &[]).await;
    assert_eq!(busy_polls(&gateway).await, 0.0);
    // Ten milliseconds are the most there may be.
    for (busy_poll, stays_awake) in [("10ms", true), ("0s", false), ("50us", true)] {
        let text = configuration(&origin, busy_poll);
        std::fs::write(gateway.file("gateway.toml"), text).unwrap();
        let reloaded = gateway.command(&["reload"]).await;
        assert_eq!(reloaded.code, Some(0), "{}", reloaded.stderr);
        assert_eq!(busy_polls(&gateway).await > 0.0, stays_awake, "{busy_poll}");
    }
}
