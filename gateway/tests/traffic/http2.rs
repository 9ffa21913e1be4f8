//! HTTP/2: from clients with prior knowledge, and to instances.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use tokio::net::TcpStream;

use crate::support::client::{self, Answer};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;

fn request(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::post(format!("http://test{path}")).version(Version::HTTP_2);
    request.body(Full::from(body)).unwrap()
}

#[tokio::test]
async fn many_streams_share_one_client_connection() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let sender = client::handshake_http2(stream).await;
    let exchanges = (0..50).map(|index| {
        let mut sender = sender.clone();
        async move {
            let response = sender
                .send_request(request(&format!("/{index}"), "x"))
                .await
                .unwrap();
            Answer::read(response).await.unwrap().json()
        }
    });
    for (index, seen) in futures_util::future::join_all(exchanges)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(seen["uri"], format!("/{index}"));
        assert_eq!(seen["body"], "x");
        assert_eq!(seen["version"], "HTTP/1.1");
        let headers = seen["headers"].to_string();
        assert!(headers.contains("[\"via\",\"2 weir\"]"), "{headers}");
        assert!(headers.contains("[\"host\",\"test\"]"), "{headers}");
    }
}

#[tokio::test]
async fn refusals_are_the_same_over_http2() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let mut sender = client::handshake_http2(stream).await;
    let mut conflicting = request("/", "");
    conflicting
        .headers_mut()
        .insert("host", "other".parse().unwrap());
    for (request, reason) in [
        (conflicting, "host-mismatch"),
        (request("/a/../b", ""), "path-dot-segment"),
    ] {
        let answer = Answer::read(sender.send_request(request).await.unwrap())
            .await
            .unwrap();
        assert_eq!(answer.refusal(), (400, reason.to_owned()));
    }
    let answer = Answer::read(sender.send_request(request("/", "")).await.unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "the connection lives on");
}

#[tokio::test]
async fn instances_may_speak_http2() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of_with(&[origin.address], "protocol = \"http2\"", "").await;
    for _ in 0..10 {
        let post = Request::post("/p?q")
            .header("host", "test")
            .body(Full::<Bytes>::from("body"));
        let answer = client::send(gateway.address(), post.unwrap()).await;
        let seen = answer.json();
        assert_eq!(seen["version"], "HTTP/2.0");
        assert_eq!(seen["uri"], "http://test/p?q");
        assert_eq!(seen["body"], "body");
    }
    assert!(origin.connections() <= 2, "one per worker");
}
