//! Instances that are found: by DNS, in a file; and what stays when they change.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, route};
use crate::support::names::Names;
use crate::support::origin::Origin;

/// A gateway with one service whose instances are found.
async fn gateway(discover: &str, files: &[(&str, &str)]) -> Gateway {
    let base = crate::support::gateway::BASE;
    let service = format!("[services.app]\ndiscover = {{ {discover} }}\n");
    let route = route("all", "/{*rest}", "app", "");
    Gateway::start_with(&format!("{base}{service}{route}"), files).await
}

/// The instances that answer ten requests, or the reasons of refusals.
async fn answering(gateway: &Gateway) -> BTreeSet<String> {
    let mut answering = BTreeSet::new();
    for _ in 0..10 {
        let answer = client::get(gateway.address(), "/").await.json();
        let name = answer["instance"].as_str().or(answer["reason"].as_str());
        answering.insert(name.unwrap().to_owned());
    }
    answering
}

async fn until(gateway: &Gateway, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    eventually(&format!("{expected:?} answer"), async || {
        (answering(gateway).await == expected).then_some(())
    })
    .await;
}

fn listed(addresses: &[SocketAddr]) -> String {
    let listed: Vec<String> = addresses.iter().map(|one| format!("\"{one}\"")).collect();
    format!("endpoints = [{}]\n", listed.join(", "))
}

/// Puts a new file in the place of another, as a whole.
fn replace(gateway: &Gateway, name: &str, text: &str) {
    let fresh = gateway.file("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, gateway.file(name)).unwrap();
}

#[tokio::test]
async fn a_file_is_followed_and_a_bad_one_changes_nothing() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let file = listed(&[one.address]);
    let gateway = gateway("file = \"app.toml\"", &[("app.toml", &file)]).await;
    assert_eq!(
        answering(&gateway).await,
        BTreeSet::from(["one".to_owned()]),
        "from the start"
    );
    let connections = one.connections();

    replace(&gateway, "app.toml", &listed(&[one.address, two.address]));
    until(&gateway, &["one", "two"]).await;
    assert!(
        one.connections() <= connections + 2,
        "an instance that stays keeps its connections: {connections} before, {} after",
        one.connections()
    );

    replace(&gateway, "app.toml", "endpoints = [\"nonsense\"]");
    eventually("the bad file is counted", async || {
        let series = "weir_gateway_discovery_stale{service=\"app\"}";
        (gateway.metric(series).await > 0.5).then_some(())
    })
    .await;
    until(&gateway, &["one", "two"]).await;

    replace(&gateway, "app.toml", &listed(&[two.address]));
    until(&gateway, &["two"]).await;
    replace(&gateway, "app.toml", "endpoints = []");
    until(&gateway, &["no-instance"]).await;
    std::fs::remove_file(gateway.file("app.toml")).unwrap();
    replace(&gateway, "app.toml", &listed(&[one.address]));
    until(&gateway, &["one"]).await;
}

#[tokio::test]
async fn a_name_is_followed_and_its_last_addresses_are_kept() {
    let origin = Origin::start("one").await;
    let names = Names::start(1).await;
    let host = "app.test";
    names.set(host, &[origin.address.ip()]);
    let discover = format!(
        "dns = \"{host}:{}\", servers = [\"{}\"], refresh_min = \"100ms\", hold = \"500ms\"",
        origin.address.port(),
        names.address
    );
    let gateway = gateway(&discover, &[]).await;
    assert_eq!(
        answering(&gateway).await,
        BTreeSet::from(["one".to_owned()]),
        "from the start"
    );

    names.fail(true);
    eventually("failures are counted", async || {
        let failed = "weir_gateway_discovery_answers_total{service=\"app\",result=\"failed\"}";
        (gateway.metric(failed).await > 1.5).then_some(())
    })
    .await;
    until(&gateway, &["one"]).await;

    // A name that is gone is believed to be, after a while.
    names.fail(false);
    names.forget(host);
    until(&gateway, &["no-instance"]).await;
    names.set(host, &[origin.address.ip()]);
    until(&gateway, &["one"]).await;
}

#[tokio::test]
async fn service_records_bring_ports_and_priorities() {
    let (first, second) = (Origin::start("first").await, Origin::start("second").await);
    let names = Names::start(1).await;
    names.set("host.test", &[first.address.ip()]);
    let service = "_http._tcp.app.test";
    let records = |of_first: u16| {
        let first = (of_first, 5, first.address.port(), "host.test.");
        names.set_services(
            service,
            &[first, (1, 5, second.address.port(), "host.test.")],
        );
    };
    records(0);
    let servers = names.address;
    let discover =
        format!("srv = \"{service}\", servers = [\"{servers}\"], refresh_min = \"100ms\"");
    let gateway = gateway(&discover, &[]).await;
    assert_eq!(
        answering(&gateway).await,
        BTreeSet::from(["first".to_owned()])
    );
    records(2);
    until(&gateway, &["second"]).await;
    records(1);
    until(&gateway, &["first", "second"]).await;
    assert!(names.questions() > 3);
}
