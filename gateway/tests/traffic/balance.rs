//! Requests are spread over the instances of a service.

use std::collections::BTreeMap;

use http_body_util::Empty;

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::Gateway;
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
        assert!(
            (gateway.metric(&series).await - 10.0).abs() < 0.1,
            "{series}"
        );
    }
}

#[tokio::test]
async fn least_request_avoids_the_instance_that_hangs() {
    let origins = instances(2).await;
    let gateway = gateway(&origins, "balance = \"least-request\"").await;
    let held = tokio::spawn(client::get(gateway.address(), "/hold"));
    let busy = eventually("one is busy", async || {
        origins.iter().position(|origin| origin.requests() > 0)
    })
    .await;
    origins[busy].holds(1).await;
    // In-flight counts are a worker's own: the requests of the worker that holds one must all go
    // to the other instance; those of the other worker see two idle ones.
    let mut taken = vec![];
    for _ in 0..8 {
        taken.push(spread(&gateway, 10, None).await);
    }
    let other = format!("instance-{}", 1 - busy);
    let avoided = taken
        .iter()
        .filter(|spread| spread.get(&other) == Some(&10))
        .count();
    assert!(
        avoided > 0,
        "no connection avoided the busy instance: {taken:?}"
    );
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
