//! A worker that may stay awake after a read does not sleep between requests that follow closely.

use crate::support::client;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

const REQUESTS: usize = 200;

fn configuration(origin: &Origin, busy_poll: &str) -> String {
    format!(
        "[server]\nworkers = 1\nbusy_poll = \"{busy_poll}\"\n\
         [listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\nsocket = \"gateway.sock\"\n{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    )
}

/// How often threads of the gateway went to sleep while it answered `REQUESTS`, one by one.
async fn sleeps(gateway: &Gateway) -> u64 {
    let before = gateway.sleeps();
    for _ in 0..REQUESTS {
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    }
    gateway.sleeps() - before
}

#[tokio::test]
async fn a_worker_stays_awake_if_it_may_and_a_reload_says_whether_it_may() {
    let origin = Origin::start("app").await;
    let gateway = Gateway::start_with(&configuration(&origin, "0s"), &[]).await;
    let (at_first, awake) = (sleeps(&gateway).await, async |busy_poll| {
        let text = configuration(&origin, busy_poll);
        std::fs::write(gateway.file("gateway.toml"), text).unwrap();
        let reloaded = gateway.command(&["reload"]).await;
        assert_eq!(reloaded.code, Some(0), "{}", reloaded.stderr);
        sleeps(&gateway).await
    });
    assert!(
        at_first >= REQUESTS as u64,
        "{at_first}: one for each at least"
    );
    // Half, because other threads sleep as ever, and a busy machine may let 10 ms pass.
    let busy = awake("10ms").await;
    assert!(busy < at_first / 2, "{busy} of {at_first}");
    let again = awake("0s").await;
    assert!(again > at_first / 2, "{again} of {at_first}");
}
