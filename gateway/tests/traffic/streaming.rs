//! Bodies are streamed: their size costs no memory, and limits hold while they flow.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{self, Answer, is_silent, read_until};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;

const GIB: u64 = 1 << 30;
static CHUNK: [u8; 64 * 1024] = [7; 64 * 1024];
/// More than any number of buffers between the sockets comes to; far less than a body.
const MEMORY_GROWTH_MAX: u64 = 32 << 20;

/// `size` bytes, of a length the receiver is not told.
fn chunked(size: u64) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let chunks = size / CHUNK.len() as u64;
    StreamBody::new(stream::iter(
        (0..chunks).map(|_| Ok(Frame::data(Bytes::from_static(&CHUNK)))),
    ))
}

#[tokio::test]
async fn a_gibibyte_passes_each_way_in_bounded_memory() {
    let origin = Origin::start("one").await;
    let gateway =
        Gateway::in_front_of_with(&[origin.address], "", "body_bytes_max = \"1GiB\"").await;
    client::get(gateway.address(), "/warm-up").await;
    let before = gateway.memory_peak();

    let mut sender = client::connect(gateway.address()).await.unwrap();
    let request = Request::post("/sink")
        .header("host", "test")
        .body(chunked(GIB).boxed());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(Answer::read(response).await.unwrap().json()["bytes"], GIB);

    let mut sender = client::connect(gateway.address()).await.unwrap();
    let request = client::request(&format!("/zeros/{GIB}"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame
            .unwrap()
            .data_ref()
            .map_or(0, |data| data.len() as u64);
    }
    assert_eq!(received, GIB);

    let growth = gateway.memory_peak() - before;
    assert!(growth < MEMORY_GROWTH_MAX, "grew by {growth} bytes");
    assert_eq!(gateway.logged("/sink").await["bytes_in"], GIB);
    assert_eq!(
        gateway.logged(&format!("/zeros/{GIB}")).await["bytes_out"],
        GIB
    );
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_announced_or_not() {
    let origin = Origin::start("one").await;
    let gateway =
        Gateway::in_front_of_with(&[origin.address], "", "body_bytes_max = \"64KiB\"").await;
    let post = || Request::post("/sink").header("host", "test");
    let full = |size: usize| Full::new(Bytes::from(vec![0; size]));

    let answer = client::send(gateway.address(), post().body(full(64 << 10)).unwrap()).await;
    assert_eq!(answer.json()["bytes"], 64 << 10, "at the limit");
    let arrived = origin.requests();
    let answer = client::send(
        gateway.address(),
        post().body(full((64 << 10) + 1)).unwrap(),
    )
    .await;
    assert_eq!(
        answer.refusal(),
        (413, "body-too-large".to_owned()),
        "announced"
    );
    assert_eq!(
        origin.requests(),
        arrived,
        "an announced one never reaches the instance"
    );
    let answer = client::send(gateway.address(), post().body(chunked(128 << 10)).unwrap()).await;
    assert_eq!(
        answer.refusal(),
        (413, "body-too-large".to_owned()),
        "not announced"
    );
    assert_eq!(answer.header("connection"), "close");
}

#[tokio::test]
async fn pieces_arrive_before_the_body_is_complete() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(b"POST /sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await
        .unwrap();
    crate::support::eventually("the instance has the head", async || {
        (origin.requests() == 1).then_some(())
    })
    .await;
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "}").await;
    assert!(answer.ends_with("{\"bytes\":5}"), "{answer}");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let request = client::request("/trailers")
        .header("te", "trailers")
        .body(Empty::new());
    let answer = client::send(gateway.address(), request.unwrap()).await;
    assert_eq!(answer.text(), "body");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "42");

    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
    let frames = [
        Ok(Frame::data(Bytes::from("a"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(stream::iter(
        frames.map(|frame: Result<_, Infallible>| frame),
    ));
    let request = Request::post("/")
        .header("host", "test")
        .header("trailer", "x-sum")
        .body(body);
    let answer = client::send(gateway.address(), request.unwrap()).await;
    assert_eq!(answer.json()["trailers"], serde_json::json!(["x-sum"]));
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_when_the_body_is_wanted() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let head = |path: &str, expect: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nExpect: {expect}\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(head("/sink", "100-continue").as_bytes())
        .await
        .unwrap();
    assert_eq!(
        read_until(&mut stream, "\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    assert!(is_silent(&mut stream).await);
    stream.write_all(b"ab").await.unwrap();
    assert!(
        read_until(&mut stream, "}")
            .await
            .ends_with("{\"bytes\":2}")
    );

    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(head("/sink", "a-miracle").as_bytes())
        .await
        .unwrap();
    let answer = client::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 417 "), "{answer}");
}

#[tokio::test]
async fn answers_to_head_have_no_body() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut sender = client::connect(gateway.address()).await.unwrap();
    for _ in 0..2 {
        let request = Request::head("/")
            .header("host", "test")
            .body(Empty::<Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert!(response.headers().contains_key("content-length"));
        assert!(Answer::read(response).await.unwrap().body.is_empty());
        sender.ready().await.unwrap();
    }
    assert_eq!(origin.connections(), 1, "the connection is used again");
}
