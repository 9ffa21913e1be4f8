//! A second instance is asked when the first is slow.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;

use crate::support::client::{self, Answer};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::hostile::{End, Hostile};
use crate::support::origin::Origin;

const QUICK: &str = "hedge = { after = \"50ms\" }\ntimeout = \"5s\"";

async fn send(gateway: &Gateway, method: &Method, body: &'static str) -> Answer {
    let request = Request::builder().method(method).uri("/x");
    let request = request.header("host", "test");
    client::send(
        gateway.address(),
        request.body(Full::<Bytes>::from(body)).unwrap(),
    )
    .await
}

#[tokio::test]
async fn the_first_good_answer_is_taken() {
    let quick = Origin::start("quick").await;
    let hangs = Hostile::ending("", End::Hang).await;
    let endpoints = [hangs.address, quick.address];
    let gateway = Gateway::in_front_of_with(&endpoints, "", QUICK).await;
    for round in 0..6 {
        let answer = send(&gateway, &Method::GET, "").await;
        assert_eq!(answer.status, 200, "{round}: {}", answer.text());
        assert_eq!(answer.json()["instance"], "quick", "{round}");
    }
    // Wherever both were asked, one of them was so by a hedge.
    let hedges = gateway.metric("weir_gateway_hedges_total").await;
    eventually("all that were asked have noticed", async || {
        (hangs.requests() as f64 == hedges).then_some(())
    })
    .await;
    // It was asked first half of the time; and after the quick one where the machine was slow.
    let won = gateway.metric("weir_gateway_hedges_won_total").await;
    assert!(won > 0.5 && won <= hedges, "{won} of {hedges}");
}

#[tokio::test]
async fn a_loser_is_cancelled() {
    let (first, second) = (Origin::start("first").await, Origin::start("second").await);
    let endpoints = [first.address, second.address];
    let gateway = Gateway::in_front_of_with(&endpoints, "", QUICK).await;
    // Both hold the request; one of them is let go.
    let answer = tokio::spawn(client::get(gateway.address(), "/hold"));
    first.holds(1).await;
    second.holds(1).await;
    second.release();
    assert_eq!(answer.await.unwrap().json()["instance"], "second");
    eventually("the loser's connection is closed", async || {
        (first.open() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn only_idempotent_requests_without_a_body_are_hedged() {
    let table = [
        (Method::POST, ""),
        (Method::PUT, "body"),
        (Method::PATCH, ""),
    ];
    for (method, body) in table {
        let hangs = [
            Hostile::ending("", End::Hang).await,
            Hostile::ending("", End::Hang).await,
        ];
        let endpoints = [hangs[0].address, hangs[1].address];
        let of_route = "hedge = { after = \"20ms\" }\ntimeout = \"300ms\"";
        let gateway = Gateway::in_front_of_with(&endpoints, "", of_route).await;
        let answer = send(&gateway, &method, body).await;
        assert_eq!(answer.refusal(), (504, "upstream-timeout".to_owned()));
        let asked = || hangs.iter().map(Hostile::requests).sum::<u64>();
        eventually("one is asked", async || (asked() > 0).then_some(())).await;
        assert_eq!(asked(), 1, "{method} {body:?}");
    }
}

#[tokio::test]
async fn hedges_are_bounded_by_attempts_and_budget() {
    // Further instances allowed, the budget, instances asked in the end.
    let table = [
        (1, "", 2),
        (3, "", 4),
        (5, "", 4),
        (3, "retry_budget = { percent = 0, min_per_second = 0 }", 1),
        (3, "retry_budget = { in_flight_max = 2 }", 3),
    ];
    let cases = table.map(async |(attempts, budget, expected)| {
        let mut hangs = Vec::new();
        for _ in 0..4 {
            hangs.push(Hostile::ending("", End::Hang).await);
        }
        let endpoints: Vec<_> = hangs.iter().map(|one| one.address).collect();
        let of_route =
            format!("hedge = {{ after = \"20ms\", attempts = {attempts} }}\ntimeout = \"3s\"");
        let gateway = Gateway::in_front_of_with(&endpoints, budget, &of_route).await;
        let answer = send(&gateway, &Method::GET, "").await;
        assert_eq!(answer.refusal(), (504, "upstream-timeout".to_owned()));
        let asked = || hangs.iter().map(Hostile::requests).sum::<u64>();
        let what = format!("{expected} are asked: {attempts} {budget}");
        eventually(&what, async || (asked() >= expected).then_some(())).await;
        assert_eq!(asked(), expected, "{attempts} {budget}");
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn a_bad_answer_waits_for_a_better_one() {
    // One answers 503 at once, the other well, but only after the hedge is sent.
    let bad = Hostile::answering("HTTP/1.1 503 Oh\r\nContent-Length: 0\r\n\r\n").await;
    let good = Hostile::start(|mut connection| async move {
        while connection.request().await.is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            if !connection.answer("ok").await {
                return;
            }
        }
    })
    .await;
    let endpoints = [bad.address, good.address];
    let of_route = format!("{QUICK}\nretry = {{ on = [503], backoff = \"1ms\" }}");
    let gateway = Gateway::in_front_of_with(&endpoints, "", &of_route).await;
    for round in 0..6 {
        let answer = send(&gateway, &Method::GET, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "ok".into()),
            "{round}"
        );
    }
    assert!(bad.requests() > 0 && good.requests() >= 6);
}
