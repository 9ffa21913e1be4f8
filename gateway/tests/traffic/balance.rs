//! Requests are spread over the instances of a service.

use std::collections::BTreeMap;

use http_body_util::Empty;

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::origin::Origin;

async fn instances(count: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for index in 0..count {
        origins.push(Origin::start(&format!("instance-{index}")).await);
    }
    origins
}

async fn gateway(origins: &[Origin], settings: &str) -> Gateway {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    Gateway::in_front_of_with(&addresses, settings, "").await
}

/// Sends requests one by one on one connection; returns how many each instance took.
async fn spread(gateway: &Gateway, count: usize, user: Option<&str>) -> BTreeMap<String, usize> {
    let mut sender = client::connect(gateway.address()).await.unwrap();
    let mut spread = BTreeMap::new();
    for _ in 0..count {
        let mut request = client::request("/");
        if let Some(user) = user {
            request = request.header("x-user", user);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let answer = client::Answer::read(response).await.unwrap();
        let instance = answer.json()["instance"].as_str().unwrap().to_owned();
        *spread.entry(instance).or_default() += 1;
        sender.ready().await.unwrap();
    }
    spread
}

#[tokio::test]
async fn round_robin_is_exact() {
    let origins = instances(3).await;
    let gateway = gateway(&origins, "balance = \"round-robin\"").await;
    let spread = spread(&gateway, 30, None).await;
    assert_eq!(spread.into_values().collect::<Vec<_>>(), [10, 10, 10]);
    for origin in &origins {
        let series = format!(
            "weir_gateway_instance_requests_total{{service=\"app\",instance=\"{}\",status=\"2xx\"}}",
            origin.address
        );
        // A request is counted when it has ended, which its client may know first.
        eventually(&format!("10 are counted in {series}"), async || {
            ((gateway.metric(&series).await - 10.0).abs() < 0.1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn weights_and_priorities_are_kept() {
    let origins = instances(3).await;
    let [one, two, three] = &*origins else {
        panic!("three")
    };
    let service = format!(
        "[services.app]\nendpoints = [{{ address = \"{}\", weight = 2 }}, \"{}\", \
         {{ address = \"{}\", priority = 1 }}]\n",
        one.address, two.address, three.address
    );
    let route = crate::support::gateway::route("all", "/{*rest}", "app", "");
    let gateway = Gateway::start(&format!("{service}{route}")).await;
    let spread = spread(&gateway, 30, None).await;
    assert_eq!(spread.into_values().collect::<Vec<_>>(), [20, 10]);
    one.stop();
    two.stop();
    // Once connections to both have failed, the third takes over.
    eventually("the next priority", async || {
        let answer = client::get(gateway.address(), "/").await.json();
        (answer["instance"] == "instance-2").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cookie_brings_a_client_back_until_its_instance_is_gone() {
    let origins = instances(3).await;
    let gateway = gateway(&origins, "sticky = { cookie = \"id\", max_age = \"1h\" }").await;
    let first = client::get(gateway.address(), "/").await;
    let cookie = first.header("set-cookie").to_owned();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Max-Age=3600; SameSite=Lax; HttpOnly");
    let instance = first.json()["instance"].as_str().unwrap().to_owned();
    let again = async || {
        let request = client::request("/").header("cookie", format!("a=b; {pair}"));
        client::send(
            gateway.address(),
            request.body(Empty::<bytes::Bytes>::new()).unwrap(),
        )
        .await
    };
    for _ in 0..10 {
        let answer = again().await;
        assert_eq!(answer.json()["instance"], instance.as_str());
        assert_eq!(answer.header("set-cookie"), "", "the client knows it");
    }
    let index: usize = instance.strip_prefix("instance-").unwrap().parse().unwrap();
    origins[index].stop();
    let moved = again().await;
    assert_ne!(moved.json()["instance"], instance.as_str());
    assert!(
        moved.header("set-cookie").starts_with("id="),
        "another name is given out"
    );
    assert_ne!(moved.header("set-cookie"), cookie);
}

#[tokio::test]
async fn a_reload_keeps_connections_to_instances_that_stay() {
    let origins = instances(2).await;
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let configuration = |count: usize| {
        let service = crate::support::gateway::service("app", &addresses[..count], "");
        let route = crate::support::gateway::route("all", "/{*rest}", "app", "");
        format!("{}{service}{route}", crate::support::gateway::BASE)
    };
    let gateway = Gateway::start_with(&configuration(1), &[]).await;
    for _ in 0..20 {
        client::get(gateway.address(), "/").await;
    }
    let before = origins[0].connections();
    std::fs::write(gateway.file("gateway.toml"), configuration(2)).unwrap();
    gateway.signal("-HUP").await;
    eventually("both are used", async || {
        client::get(gateway.address(), "/").await;
        (origins[1].requests() > 0).then_some(())
    })
    .await;
    for _ in 0..20 {
        client::get(gateway.address(), "/").await;
    }
    // One for each worker at most: the reload has opened none anew.
    assert!(origins[0].connections() <= before.max(2), "{before} before");
}

#[tokio::test]
async fn least_request_avoids_the_instance_that_hangs() {
    let origins = instances(2).await;
    // In-flight counts are a worker's own, so there is one.
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let configuration = [
        BASE.replace("workers = 2", "workers = 1"),
        service("app", &addresses, "balance = \"least-request\""),
        route("all", "/{*rest}", "app", ""),
    ];
    let gateway = Gateway::start_with(&configuration.concat(), &[]).await;
    let held = tokio::spawn(client::get(gateway.address(), "/hold"));
    let busy = eventually("one is busy", async || {
        origins.iter().position(|origin| origin.requests() > 0)
    })
    .await;
    origins[busy].holds(1).await;
    let other = format!("instance-{}", 1 - busy);
    let taken = spread(&gateway, 30, None).await;
    assert_eq!(taken, BTreeMap::from([(other, 30)]));
    origins[busy].release();
    assert_eq!(held.await.unwrap().status, 200);
}

#[tokio::test]
async fn consistent_hash_keeps_a_key_on_its_instance() {
    let origins = instances(3).await;
    let settings = "balance = \"consistent-hash\"\nhash_by = \"header.x-user\"";
    let gateway = gateway(&origins, settings).await;
    let mut used = BTreeMap::new();
    for user in 0..12 {
        let user = format!("user-{user}");
        let spread = spread(&gateway, 5, Some(&user)).await;
        assert_eq!(spread.len(), 1, "{user} moved: {spread:?}");
        *used.entry(spread.into_keys().next().unwrap()).or_insert(0) += 1;
    }
    assert!(
        used.len() > 1,
        "twelve users cannot all share one of three instances: {used:?}"
    );
}
