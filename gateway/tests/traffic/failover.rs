//! Where requests go when instances are ill: other priorities, other zones, or all the same; and
//! how those come back that are well again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http_body_util::Empty;

use crate::support::checked::{Checked, OFTEN};
use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, route};

/// A gateway of one worker; `of_instances` is put into the table of each.
async fn gateway(
    instances: &[Checked],
    of_server: &str,
    of_service: &str,
    of_instances: &[&str],
) -> Gateway {
    let endpoint =
        |(one, more): (&Checked, &&str)| format!("{{ address = \"{}\"{more} }}", one.address);
    let endpoints: Vec<String> = instances.iter().zip(of_instances).map(endpoint).collect();
    let configuration = format!(
        "[server]\nworkers = 1\n{of_server}\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n\
         [services.app]\nendpoints = [{}]\n{of_service}\n{OFTEN}\n{}",
        endpoints.join(", "),
        route("all", "/{*rest}", "app", ""),
    );
    Gateway::start_with(&configuration, &[]).await
}

/// How many of so many requests each instance takes, by its number.
async fn spread(gateway: &Gateway, count: usize) -> BTreeMap<usize, usize> {
    let mut sender = client::connect(gateway.address()).await.unwrap();
    let mut spread = BTreeMap::new();
    for _ in 0..count {
        let request = client::request("/")
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let answer = client::Answer::read(response).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        *spread.entry(answer.text().parse().unwrap()).or_default() += 1;
        sender.ready().await.unwrap();
    }
    spread
}

#[tokio::test]
async fn the_next_priority_takes_over_by_parts_and_gives_back() {
    let instances = Checked::several(4).await;
    let priorities = ["", "", ", priority = 1", ", priority = 2"];
    let gateway = gateway(&instances, "", "", &priorities).await;
    assert_eq!(
        spread(&gateway, 20).await,
        BTreeMap::from([(0, 10), (1, 10)])
    );

    // One of two, which bears 1.4 times its load: 70 % stay.
    instances[0].set_well(false);
    instances[0].is_found(&gateway, false).await;
    let parts = spread(&gateway, 1000).await;
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert!(parts[&2].abs_diff(300) < 100, "{parts:?}");

    instances[1].set_well(false);
    instances[1].is_found(&gateway, false).await;
    assert_eq!(spread(&gateway, 20).await, BTreeMap::from([(2, 20)]));
    instances[2].set_well(false);
    instances[2].is_found(&gateway, false).await;
    assert_eq!(spread(&gateway, 20).await, BTreeMap::from([(3, 20)]));

    for instance in &instances {
        instance.set_well(true);
        instance.is_found(&gateway, true).await;
    }
    assert_eq!(
        spread(&gateway, 20).await,
        BTreeMap::from([(0, 10), (1, 10)])
    );
}

#[tokio::test]
async fn the_own_zone_is_used_for_as_long_as_it_bears_the_load() {
    let instances = Checked::several(4).await;
    let zones = [", zone = \"a\"", ", zone = \"b\"", ", zone = \"a\"", ""];
    let gateway = gateway(&instances, "zone = \"a\"", "", &zones).await;
    assert_eq!(
        spread(&gateway, 20).await,
        BTreeMap::from([(0, 10), (2, 10)])
    );

    instances[0].set_well(false);
    instances[0].is_found(&gateway, false).await;
    let parts = spread(&gateway, 1000).await;
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(parts[&2].abs_diff(700) < 100, "{parts:?}");
    assert!(parts[&1].abs_diff(parts[&3]) <= 1, "turns: {parts:?}");

    instances[2].set_well(false);
    instances[2].is_found(&gateway, false).await;
    assert_eq!(
        spread(&gateway, 20).await,
        BTreeMap::from([(1, 10), (3, 10)])
    );
    instances[0].set_well(true);
    instances[2].set_well(true);
    instances[0].is_found(&gateway, true).await;
    instances[2].is_found(&gateway, true).await;
    assert_eq!(
        spread(&gateway, 20).await,
        BTreeMap::from([(0, 10), (2, 10)])
    );
}

#[tokio::test]
async fn below_the_panic_threshold_all_are_used() {
    let instances = Checked::several(4).await;
    let settings = "failover = { panic_percent = 50 }";
    let gateway = gateway(&instances, "", settings, &["", "", "", ""]).await;
    for ill in &instances[..2] {
        ill.set_well(false);
        ill.is_found(&gateway, false).await;
    }
    // Half are well, which is not below.
    assert_eq!(
        spread(&gateway, 20).await,
        BTreeMap::from([(2, 10), (3, 10)])
    );
    instances[2].set_well(false);
    instances[2].is_found(&gateway, false).await;
    let all = spread(&gateway, 20).await;
    assert_eq!(all, BTreeMap::from([(0, 5), (1, 5), (2, 5), (3, 5)]));
    instances[3].set_well(false);
    instances[3].is_found(&gateway, false).await;
    assert_eq!(spread(&gateway, 20).await.len(), 4);
    instances[1].set_well(true);
    instances[1].is_found(&gateway, true).await;
    instances[3].set_well(true);
    instances[3].is_found(&gateway, true).await;
    assert_eq!(
        spread(&gateway, 20).await,
        BTreeMap::from([(1, 10), (3, 10)])
    );
}

#[tokio::test]
async fn without_a_threshold_nobody_is_used_who_is_ill() {
    let instances = Checked::several(2).await;
    let gateway = gateway(&instances, "", "", &["", ""]).await;
    for instance in &instances {
        instance.set_well(false);
        instance.is_found(&gateway, false).await;
    }
    let answer = client::get(gateway.address(), "/").await;
    assert_eq!(answer.refusal(), (503, "no-instance".to_owned()));
}

#[tokio::test]
async fn an_instance_that_is_well_again_comes_to_its_share_slowly() {
    // Over hours: what it takes is the least share for all of the test.
    let instances = Checked::several(2).await;
    let slow = gateway(&instances, "", "slow_start = \"10h\"", &["", ""]).await;
    let even = BTreeMap::from([(0, 11), (1, 11)]);
    assert_eq!(spread(&slow, 22).await, even, "from the start: in full");
    instances[1].set_well(false);
    instances[1].is_found(&slow, false).await;
    instances[1].set_well(true);
    instances[1].is_found(&slow, true).await;
    let parts = spread(&slow, 220).await;
    assert!(parts[&1].abs_diff(20) <= 2, "one of eleven: {parts:?}");
    drop(slow);

    // Over a second: it grows to the full share, and not before.
    let quick = gateway(&instances, "", "slow_start = \"1s\"", &["", ""]).await;
    instances[1].set_well(false);
    instances[1].is_found(&quick, false).await;
    let back = Instant::now();
    instances[1].set_well(true);
    instances[1].is_found(&quick, true).await;
    eventually("the full share", async || {
        (spread(&quick, 22).await == even).then_some(())
    })
    .await;
    assert!(
        back.elapsed() >= Duration::from_millis(900),
        "{:?}",
        back.elapsed()
    );
}
