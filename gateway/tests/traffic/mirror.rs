//! Copies of requests for services whose answers nobody waits for.

use bytes::Bytes;
use http::Request;
use http_body_util::{Empty, Full};

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::{Origin, nobody};

async fn gateway(shadow: &Origin, mirror: &str) -> (Gateway, Origin) {
    let live = Origin::start("live").await;
    let configuration = [
        service("live", &[live.address], ""),
        service("shadow", &[shadow.address], ""),
        service("nobody", &[nobody()], ""),
        route("all", "/{*rest}", "live", mirror),
    ];
    (Gateway::start(&configuration.concat()).await, live)
}

async fn post(gateway: &Gateway, path: &str, bytes: usize) -> client::Answer {
    let request = Request::post(path).header("host", "test");
    let request = request.body(Full::new(Bytes::from(vec![b'x'; bytes])));
    client::send(gateway.address(), request.unwrap()).await
}

async fn counted(gateway: &Gateway, service: &str, result: &str, count: f64) {
    let series =
        format!("weir_gateway_mirrored_total{{service=\"{service}\",result=\"{result}\"}}");
    eventually(&format!("{series} {count}"), async || {
        ((gateway.metric(&series).await - count).abs() < 0.1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_mirror_gets_what_the_service_gets_and_is_not_waited_for() {
    let shadow = Origin::start("shadow").await;
    let (gateway, live) = gateway(&shadow, "mirror = [{ service = \"shadow\" }]").await;
    for path in ["/hold", "/a"] {
        // The one held at the mirror must not hold up the client, who asks the service for more.
        let asked = tokio::spawn(client::get(gateway.address(), path));
        if path == "/hold" {
            shadow.holds(1).await;
            live.release();
        }
        assert_eq!(asked.await.unwrap().status, 200, "{path}");
    }
    shadow.release();
    counted(&gateway, "shadow", "answered", 2.0).await;
    assert_eq!((live.requests(), shadow.requests()), (2, 2));
}

#[tokio::test]
async fn bodies_are_copied_up_to_their_limit() {
    let shadow = Origin::start("shadow").await;
    let mirror = "mirror = [{ service = \"shadow\", body_bytes_max = \"1KiB\" }]";
    let (gateway, _live) = gateway(&shadow, mirror).await;
    for bytes in [1024, 1025] {
        assert_eq!(post(&gateway, "/sink", bytes).await.json()["bytes"], bytes);
    }
    counted(&gateway, "shadow", "answered", 1.0).await;
    counted(&gateway, "shadow", "too-large", 1.0).await;
    assert_eq!(shadow.requests(), 1);
}

#[tokio::test]
async fn a_mirror_that_fails_is_counted_and_hurts_nobody() {
    let shadow = Origin::start("shadow").await;
    let mirror = "mirror = [{ service = \"nobody\" }, { service = \"shadow\", percent = 0.0 }, { service = \"shadow\", fraction = \"1/1\" }]";
    let (gateway, _live) = gateway(&shadow, mirror).await;
    for _ in 0..5 {
        assert_eq!(client::get(gateway.address(), "/a").await.status, 200);
    }
    counted(&gateway, "nobody", "failed", 5.0).await;
    counted(&gateway, "shadow", "answered", 5.0).await;
    assert_eq!(shadow.requests(), 5);
}

#[tokio::test]
async fn copies_under_way_are_bounded() {
    let shadow = Origin::start("shadow").await;
    let mirror =
        "mirror = [{ service = \"shadow\", in_flight_max = 2 }]\nrewrite = { path = \"/hold\" }";
    let (gateway, live) = gateway(&shadow, mirror).await;
    for number in 1..=3 {
        let asked = tokio::spawn(client::get(gateway.address(), "/a"));
        live.holds(number).await;
        live.release();
        assert_eq!(asked.await.unwrap().status, 200);
    }
    counted(&gateway, "shadow", "too-many", 1.0).await;
    shadow.holds(2).await;
    shadow.release();
    shadow.release();
    counted(&gateway, "shadow", "answered", 2.0).await;
}

/// Of 400 requests at one in four, the binomial's standard deviation is 8.7.
#[tokio::test]
async fn a_share_of_the_requests_is_copied() {
    let shadow = Origin::start("shadow").await;
    let mirror = "mirror = [{ service = \"shadow\", percent = 25.0 }]";
    let (gateway, _live) = gateway(&shadow, mirror).await;
    let mut sender = client::connect(gateway.address()).await.unwrap();
    for _ in 0..400 {
        let request = client::request("/a").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        client::Answer::read(response).await.unwrap();
        sender.ready().await.unwrap();
    }
    let copied = shadow.requests();
    assert!((55..145).contains(&copied), "{copied}");
}
