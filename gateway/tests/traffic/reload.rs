//! SIGHUP: a new configuration takes effect without losing a request; a bad one changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::failure::load;
use crate::support::client::{self, read_until};
use crate::support::eventually;
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::origin::Origin;

/// The configuration with one service at `origin`, a route for everything, and `more`.
fn configuration(origin: &Origin, more: &str) -> String {
    let service = service("app", &[origin.address], "");
    format!(
        "{BASE}{service}{}{more}",
        route("all", "/{*rest}", "app", "")
    )
}

async fn reload(gateway: &Gateway, configuration: &str, result: &str) {
    let series = format!("weir_gateway_reloads_total{{result=\"{result}\"}}");
    let before = gateway.metric(&series).await;
    std::fs::write(gateway.file("gateway.toml"), configuration).unwrap();
    gateway.signal("-HUP").await;
    eventually(result, async || {
        (gateway.metric(&series).await > before + 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reloads_under_load_lose_nothing() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let gateway = Gateway::start_with(&configuration(&old, ""), &[]).await;
    let mut tunnel = TcpStream::connect(gateway.address()).await.unwrap();
    let ask =
        b"GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    tunnel.write_all(ask).await.unwrap();
    read_until(&mut tunnel, "\r\n\r\n").await;
    let held = tokio::spawn(client::get(gateway.address(), "/hold"));
    old.holds(1).await;

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(load(gateway.address(), Arc::clone(&stop))))
        .collect();
    for round in 0..20 {
        let origin = if round % 2 == 0 { &new } else { &old };
        reload(&gateway, &configuration(origin, ""), "applied").await;
    }
    reload(&gateway, &configuration(&new, ""), "applied").await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (sent, failed) = client.await.unwrap();
        assert_eq!(failed, Vec::<String>::new(), "of {sent}");
    }
    assert_eq!(
        client::get(gateway.address(), "/").await.json()["instance"],
        "new"
    );

    old.release();
    assert_eq!(
        held.await.unwrap().json()["instance"],
        "old",
        "a request keeps what it began with"
    );
    tunnel.write_all(b"still here!").await.unwrap();
    read_until(&mut tunnel, "still here!").await;
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::start_with(&configuration(&origin, ""), &[]).await;
    let table = [
        "nonsense".to_owned(),
        configuration(
            &origin,
            "[routes.other]\nmatch = { path = \"/x\" }\nservice = \"unknown\"\n",
        ),
        configuration(&origin, "").replace("workers = 2", "workers = 3"),
        // Nobody has this address (RFC 5737), so it cannot be bound.
        configuration(&origin, "").replace("127.0.0.1:0", "192.0.2.1:0"),
        configuration(
            &origin,
            "[listeners.other]\nbind = \"127.0.0.1:0\"\n[listeners.third]\nbind = \"192.0.2.1:80\"\n",
        ),
    ];
    for bad in table {
        reload(&gateway, &bad, "refused").await;
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    }
    let other = route("other", "/other", "app", "timeout = \"1s\"");
    reload(&gateway, &configuration(&origin, &other), "applied").await;
    client::get(gateway.address(), "/other").await;
    assert_eq!(gateway.logged("/other").await["route"], "other");
}

#[tokio::test]
async fn counters_go_on_across_a_reload() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::start_with(&configuration(&origin, ""), &[]).await;
    client::get(gateway.address(), "/").await;
    let more = route("more", "/more", "app", "");
    reload(&gateway, &configuration(&origin, &more), "applied").await;
    client::get(gateway.address(), "/").await;
    let labels = r#"route="all",service="app""#;
    let series = format!("weir_gateway_requests_total{{{labels},status=\"2xx\"}}");
    eventually("both are counted", async || {
        (gateway.metric(&series).await > 1.5).then_some(())
    })
    .await;
}
