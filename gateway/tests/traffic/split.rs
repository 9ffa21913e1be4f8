//! Requests shared out over services by weight, and what pins some of them.

use std::collections::BTreeMap;

use http_body_util::Empty;

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, service};
use crate::support::origin::Origin;

async fn gateway(split: &str) -> (Gateway, [Origin; 2]) {
    let origins = [Origin::start("stable").await, Origin::start("canary").await];
    let configuration = [
        service("stable", &[origins[0].address], ""),
        service("canary", &[origins[1].address], ""),
        format!("[routes.all]\nmatch = {{}}\n{split}\n"),
    ];
    (Gateway::start(&configuration.concat()).await, origins)
}

/// Sends requests one by one on one connection; returns how many each service took.
async fn spread(
    gateway: &Gateway,
    count: usize,
    field: impl Fn(usize) -> (&'static str, String),
) -> BTreeMap<String, usize> {
    let mut sender = client::connect(gateway.address()).await.unwrap();
    let mut spread = BTreeMap::new();
    for number in 0..count {
        let (name, value) = field(number);
        let request = client::request("/").header(name, value);
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let answer = client::Answer::read(response).await.unwrap();
        let instance = answer.json()["instance"].as_str().unwrap().to_owned();
        *spread.entry(instance).or_default() += 1;
        sender.ready().await.unwrap();
    }
    spread
}

/// Of 1000 requests at one in ten, the binomial's standard deviation is 9.5.
#[tokio::test]
async fn weights_are_shares() {
    let (gateway, _origins) = gateway("split = { stable = 90, canary = 10 }").await;
    let spread = spread(&gateway, 1000, |_| ("x-any", "1".to_owned())).await;
    assert!((50..150).contains(&spread["canary"]), "{spread:?}");
    for name in ["stable", "canary"] {
        let series = format!(
            "weir_gateway_requests_total{{route=\"all\",service=\"{name}\",status=\"2xx\"}}"
        );
        // A request is counted when it has ended, which its client may know first.
        let expected = spread[name] as f64;
        eventually(&format!("{expected} are counted in {series}"), async || {
            ((gateway.metric(&series).await - expected).abs() < 0.1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn headers_and_cookies_pin() {
    let split = "split = { stable = 1, canary = { weight = 0, when = [{ headers = { x-canary = \"always\" } }, { cookies = { canary = \"1\" } }] } }";
    let (gateway, _origins) = gateway(split).await;
    let cases = [
        (("x-canary", "always"), "canary"),
        (("x-canary", "never"), "stable"),
        (("cookie", "a=b; canary=1"), "canary"),
        (("cookie", "canary=0"), "stable"),
    ];
    for ((name, value), expected) in cases {
        let spread = spread(&gateway, 10, |_| (name, value.to_owned())).await;
        assert_eq!(
            spread.get(expected),
            Some(&10),
            "{name}: {value}: {spread:?}"
        );
    }
}

#[tokio::test]
async fn a_sender_stays_with_its_service() {
    let split = "split = { stable = 1, canary = 1 }\nsplit_by = \"header.x-user\"";
    let (gateway, _origins) = gateway(split).await;
    let mut used = BTreeMap::new();
    for user in 0..20 {
        let spread = spread(&gateway, 5, |_| ("x-user", format!("user-{user}"))).await;
        assert_eq!(spread.len(), 1, "user {user} moved: {spread:?}");
        *used.entry(spread.into_keys().next().unwrap()).or_insert(0) += 1;
    }
    // Fixed keys and a fixed hash: twenty users never all share one of two.
    assert_eq!(used.len(), 2, "{used:?}");
}
