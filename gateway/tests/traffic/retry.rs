//! Attempts after the first: when there are any, where they go, and what bounds them.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;

use crate::support::client::{self, Answer};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::hostile::{Connection, End, Hostile};
use crate::support::origin::Origin;

/// A response of the instance's own with this status.
fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} Oh\r\nContent-Length: 3\r\n\r\nbad")
}

async fn send(gateway: &Gateway, method: &Method, body: &'static str) -> Answer {
    let request = Request::builder().method(method).uri("/x");
    let request = request.header("host", "test");
    client::send(
        gateway.address(),
        request.body(Full::<Bytes>::from(body)).unwrap(),
    )
    .await
}

/// A service of which every second request goes to the bad instance first.
async fn with_bad(bad: &Hostile, of_route: &str) -> (Origin, Gateway) {
    let origin = Origin::start("good").await;
    let budget = "retry_budget = { percent = 1000 }";
    let endpoints = [bad.address, origin.address];
    let gateway = Gateway::in_front_of_with(&endpoints, budget, of_route).await;
    (origin, gateway)
}

#[tokio::test]
async fn answers_are_tried_again_as_configured() {
    // The status of the bad instance, what the route tries again on, and whether it is.
    let table = [
        (503, "\"gateway-error\"", true),
        (500, "\"gateway-error\"", false),
        (500, "\"5xx\"", true),
        (429, "\"retriable-status\"", true),
        (500, "\"retriable-status\"", false),
        (409, "409", true),
        (409, "\"409\"", true),
        (503, "\"connect\", \"reset\"", false),
    ];
    for (bad_status, on, again) in table {
        let bad = Hostile::answering(status(bad_status)).await;
        let retry = format!("retry = {{ on = [{on}], backoff = \"1ms\" }}");
        let (_origin, gateway) = with_bad(&bad, &retry).await;
        let mut seen = Vec::new();
        for _ in 0..8 {
            seen.push(send(&gateway, &Method::GET, "").await.status.as_u16());
        }
        let expected = if again { 200 } else { bad_status };
        assert!(bad.requests() > 0, "{bad_status} {on}");
        let fitting = |status: &&u16| **status == 200 || **status == expected;
        assert_eq!(
            seen.iter().filter(fitting).count(),
            8,
            "{bad_status} {on}: {seen:?}"
        );
        assert_eq!(
            seen.contains(&bad_status),
            !again,
            "{bad_status} {on}: {seen:?}"
        );
    }
}

#[tokio::test]
async fn only_what_is_safe_is_tried_again() {
    // Method, body, further settings, whether it is tried again after an answer of 503, and
    // whether after a connection that ended without one.
    let table = [
        (Method::GET, "", "", true),
        (Method::PUT, "", "", true),
        (Method::PUT, "body", "", false),
        (Method::PUT, "body", "body_bytes_max = \"4B\", ", true),
        (Method::PUT, "more body", "body_bytes_max = \"4B\", ", false),
        (Method::POST, "", "", false),
        (Method::POST, "", "non_idempotent = true, ", true),
        (Method::POST, "body", "non_idempotent = true, ", false),
        (
            Method::POST,
            "body",
            "non_idempotent = true, body_bytes_max = \"1KiB\", ",
            true,
        ),
    ];
    for (method, body, settings, again) in table {
        for ends in [false, true] {
            let bad = if ends {
                Hostile::ending("", End::Close).await
            } else {
                Hostile::answering(status(503)).await
            };
            let retry = format!("retry = {{ {settings}on = [\"reset\", 503], backoff = \"1ms\" }}");
            let (origin, gateway) = with_bad(&bad, &retry).await;
            let mut failed = 0;
            for _ in 0..8 {
                let answer = send(&gateway, &method, body).await;
                if answer.status == 200 {
                    assert_eq!(answer.json()["body"], body, "{method} {body:?} whole");
                } else {
                    failed += 1;
                }
            }
            let what = format!("{method} {body:?} {settings} {ends}");
            assert!(bad.requests() > 0, "{what}");
            assert_eq!(failed == 0, again, "{what}");
            assert_eq!(
                origin.requests() + failed,
                8,
                "{what}: none has arrived twice"
            );
        }
    }
}

#[tokio::test]
async fn attempts_end_with_the_last_answer() {
    let bad = Hostile::answering(status(503)).await;
    let of_route = "retry = { attempts = 3, on = [503], backoff = \"1ms\" }";
    let gateway = Gateway::in_front_of_with(&[bad.address], "", of_route).await;
    let answer = send(&gateway, &Method::GET, "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (503, "bad".into()));
    assert_eq!(bad.requests(), 4, "the only instance is asked again");
    assert_eq!(gateway.logged("/x").await["retries"], 3);
    assert_eq!(
        bad.connections(),
        1,
        "answers nobody gets are read to their end"
    );
}

/// So many requests arrive, which may be noticed later than the answer to the last.
async fn asked(instance: &Hostile, count: u64) {
    eventually(&format!("{count} have arrived"), async || {
        (instance.requests() >= count).then_some(())
    })
    .await;
    assert_eq!(instance.requests(), count);
}

#[tokio::test]
async fn an_attempt_has_a_time_of_its_own() {
    let hangs = Hostile::ending("", End::Hang).await;
    let of_route = "retry = { attempts = 2, per_try_timeout = \"100ms\", backoff = \"1ms\" }";
    let gateway = Gateway::in_front_of_with(&[hangs.address], "", of_route).await;
    let answer = send(&gateway, &Method::GET, "").await;
    assert_eq!(answer.refusal(), (504, "upstream-try-timeout".to_owned()));
    asked(&hangs, 3).await;
    let answer = send(&gateway, &Method::POST, "once").await;
    assert_eq!(answer.refusal(), (504, "upstream-try-timeout".to_owned()));
    // Not once more: a POST may have had its effect.
    asked(&hangs, 4).await;
}

#[tokio::test]
async fn the_time_of_the_route_bounds_all_attempts() {
    let hangs = Hostile::ending("", End::Hang).await;
    let of_route = "timeout = \"500ms\"\n\
        retry = { attempts = 10, per_try_timeout = \"200ms\", backoff = \"1ms\" }";
    let gateway = Gateway::in_front_of_with(&[hangs.address], "", of_route).await;
    let answer = send(&gateway, &Method::GET, "").await;
    assert_eq!(answer.refusal(), (504, "upstream-timeout".to_owned()));
    assert!(hangs.requests() <= 3, "{}", hangs.requests());

    // Where waiting would use up the rest of the time, the answer at hand is given at once.
    let bad = Hostile::answering(status(503)).await;
    let of_route = "timeout = \"2s\"\n\
        retry = { attempts = 10, on = [503], backoff = \"1h\", backoff_max = \"1h\" }";
    let gateway = Gateway::in_front_of_with(&[bad.address], "", of_route).await;
    assert_eq!(send(&gateway, &Method::GET, "").await.status, 503);
}

#[tokio::test]
async fn a_budget_that_is_spent_leaves_the_first_answer() {
    let bad = Hostile::answering(status(503)).await;
    // Of each worker's requests every fifth pays for one more; nothing is free.
    let budget = "retry_budget = { percent = 20, min_per_second = 0 }";
    let of_route = "retry = { attempts = 5, on = [503], backoff = \"1ms\" }";
    let gateway = Gateway::in_front_of_with(&[bad.address], budget, of_route).await;
    let mut sender = client::connect(gateway.address()).await.unwrap();
    for _ in 0..100 {
        let request = client::request("/x")
            .body(Full::<Bytes>::default())
            .unwrap();
        let answer = Answer::read(sender.send_request(request).await.unwrap()).await;
        assert_eq!(answer.unwrap().status, 503);
        sender.ready().await.unwrap();
    }
    assert_eq!(bad.requests(), 120, "one connection is one worker's");
    assert_eq!(gateway.metric("weir_gateway_retries_total").await, 20.0);
    let refused = "weir_gateway_retries_refused_total{reason=\"budget\"}";
    assert_eq!(gateway.metric(refused).await, 100.0);
}

#[tokio::test]
async fn causes_that_are_not_listed_are_not_tried_again() {
    let origin = Origin::start("good").await;
    let nobody = crate::support::origin::nobody();
    let endpoints = [nobody, origin.address];
    let gateway = Gateway::in_front_of_with(&endpoints, "", "retry = { on = [\"reset\"] }").await;
    let mut refusals = 0;
    for _ in 0..4 {
        let answer = send(&gateway, &Method::GET, "").await;
        if answer.status != 200 {
            assert_eq!(answer.refusal(), (502, "upstream-connect".to_owned()));
            refusals += 1;
        }
    }
    assert!(refusals > 0, "each worker begins with one of the two");
}

#[tokio::test]
async fn an_instance_that_is_back_answers_the_next_attempt() {
    // The first connection ends without an answer.
    let instance = Hostile::start(|mut connection: Connection| async move {
        while connection.request().await.is_some() {
            if connection.number == 0 || !connection.answer("ok").await {
                return;
            }
        }
    })
    .await;
    let gateway = Gateway::in_front_of(&[instance.address]).await;
    let answer = send(&gateway, &Method::GET, "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "ok".into()));
    assert_eq!(instance.connections(), 2);
}
