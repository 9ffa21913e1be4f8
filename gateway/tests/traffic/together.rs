//! Limits of an instance hold for all workers together: exactly so many, whoever comes where.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

async fn gateway(origin: SocketAddr, of_service: &str) -> Gateway {
    let configuration = format!(
        "[server]\nworkers = 3\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n{}{}",
        service("app", &[origin], of_service),
        route(
            "all",
            "/{*rest}",
            "app",
            "timeout = \"60s\"\nretry = { attempts = 0 }"
        ),
    );
    Gateway::start_with(&configuration, &[]).await
}

/// What becomes of one request: `ok`, or the reason of its refusal.
async fn outcome(gateway: SocketAddr, path: &'static str) -> String {
    let answer = client::get(gateway, path).await;
    match answer.status.as_u16() {
        200 => "ok".to_owned(),
        _ => answer.refusal().1,
    }
}

#[tokio::test]
async fn exactly_so_many_requests_are_admitted_and_wait() {
    // The limit; requests under way, and requests that wait.
    let table = [
        ("connections_max = 5\nwaiting_max = 0", 5, 0),
        ("requests_max = 4\nwaiting_max = 7", 4, 7),
        (
            "protocol = \"http2\"\nrequests_max = 5\nwaiting_max = 3",
            5,
            3,
        ),
        ("connections_max = 1\nwaiting_max = 1", 1, 1),
    ];
    for (limit, admitted, waiting) in table {
        let origin = Origin::start("one").await;
        let settings = format!("{limit}\nwaiting_timeout = \"50s\"");
        let gateway = gateway(origin.address, &settings).await;
        // Connections of their own, so that the kernel spreads them over the workers.
        let all = (0..40).map(|_| tokio::spawn(outcome(gateway.address(), "/hold")));
        let all: Vec<_> = all.collect();
        origin.holds(admitted).await;
        let refused = || all.iter().filter(|one| one.is_finished()).count() as u64;
        let expected = 40 - admitted - waiting;
        eventually(&format!("{limit}: {expected} are refused"), async || {
            (refused() == expected).then_some(())
        })
        .await;
        assert_eq!(origin.requests(), admitted, "{limit}");
        for _ in 0..admitted + waiting {
            origin.release();
        }
        let mut outcomes = BTreeMap::new();
        for one in all {
            *outcomes.entry(one.await.unwrap()).or_insert(0) += 1;
        }
        let expected = [("ok", admitted + waiting), ("upstream-busy", expected)];
        let expected = expected.map(|(outcome, count)| (outcome.to_owned(), count));
        assert_eq!(outcomes, BTreeMap::from(expected), "{limit}");
    }
}

#[tokio::test]
async fn a_worker_gets_the_place_of_a_connection_idle_at_another() {
    let origin = Origin::start("one").await;
    let gateway = gateway(
        origin.address,
        "connections_max = 1\nwaiting_timeout = \"9s\"",
    )
    .await;
    // One at a time, each with whatever worker: the only connection is always idle somewhere.
    for _ in 0..40 {
        assert_eq!(outcome(gateway.address(), "/").await, "ok");
    }
    assert!(origin.connections() > 1, "another worker has needed it");
    eventually("one is left", async || (origin.open() == 1).then_some(())).await;
}

#[tokio::test]
async fn many_more_than_there_is_room_for_are_all_served_in_turn() {
    let origin = Origin::start("one").await;
    let settings = "connections_max = 2\nwaiting_max = 1000\nwaiting_timeout = \"50s\"";
    let gateway = gateway(origin.address, settings).await;
    let load = (0..24).map(|_| {
        let address = gateway.address();
        tokio::spawn(async move {
            for _ in 0..25 {
                assert_eq!(outcome(address, "/").await, "ok");
            }
        })
    });
    for one in futures_util::future::join_all(load).await {
        one.unwrap();
    }
    assert_eq!(origin.requests(), 600);
    eventually("two are left", async || (origin.open() <= 2).then_some(())).await;
}
