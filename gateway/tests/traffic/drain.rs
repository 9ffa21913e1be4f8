//! SIGTERM: readiness goes off first, requests under way finish, and the process ends with 0.

use bytes::Bytes;
use http_body_util::{Empty, Full};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{self, read_to_end, read_until};
use crate::support::eventually;
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::origin::Origin;

#[tokio::test]
async fn new_requests_are_served_during_the_delay() {
    let origin = Origin::start("one").await;
    let configuration = [
        BASE.replace("delay = \"300ms\"", "delay = \"1h\""),
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    ];
    let gateway = Gateway::start_with(&configuration.concat(), &[]).await;
    assert_eq!(gateway.admin("/readyz").await.status, 200);
    assert_eq!(gateway.admin("/livez").await.status, 200);
    gateway.terminate().await;
    eventually("not ready", async || {
        (gateway.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(gateway.admin("/livez").await.status, 200);
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);
}

#[tokio::test]
async fn a_request_under_way_finishes() {
    let origin = Origin::start("one").await;
    let mut gateway = Gateway::in_front_of(&[origin.address]).await;
    let held = tokio::spawn(client::get(gateway.address(), "/hold"));
    origin.holds(1).await;
    let mut idle = TcpStream::connect(gateway.address()).await.unwrap();
    idle.write_all(b"GET /zeros/0 HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut idle, "0\r\n\r\n").await;

    gateway.terminate().await;
    assert_eq!(
        read_to_end(&mut idle).await,
        "",
        "an idle connection is closed"
    );
    eventually("listeners are closed", async || {
        TcpStream::connect(gateway.address())
            .await
            .is_err()
            .then_some(())
    })
    .await;
    origin.release();
    let answer = held.await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert_eq!(
        gateway.logged("/hold").await["status"],
        200,
        "the log is complete"
    );
}

#[tokio::test]
async fn http2_connections_are_told_and_finish() {
    let origin = Origin::start("one").await;
    let mut gateway = Gateway::in_front_of(&[origin.address]).await;
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let mut sender = client::handshake_http2(stream).await;
    let request = http::Request::get("http://test/hold")
        .body(Full::<Bytes>::default())
        .unwrap();
    let held = sender.send_request(request);
    let held = tokio::spawn(held);
    origin.holds(1).await;
    gateway.terminate().await;
    // The GOAWAY closes the connection for new requests while the one under way goes on.
    eventually("GOAWAY", async || {
        let request = http::Request::get("http://test/")
            .body(Full::<Bytes>::default())
            .unwrap();
        sender.send_request(request).await.is_err().then_some(())
    })
    .await;
    origin.release();
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn what_does_not_finish_is_cut_at_the_deadline() {
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[listeners.public]\nbind = \"127.0.0.1:0\"\n[drain]\ndelay = \"0s\"\ndeadline = \"300ms\"\n\
         [services.app]\nendpoints = [\"{}\"]\n[routes.all]\nmatch = {{}}\nservice = \"app\"\n",
        origin.address,
    );
    let mut gateway = Gateway::start_with(&configuration, &[]).await;
    let request = client::request("/hang")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let hanging = tokio::spawn(async move {
        let mut sender = client::connect(gateway.address()).await.unwrap();
        let held = tokio::spawn(async move { sender.send_request(request).await.is_err() });
        origin.holds(1).await;
        gateway.terminate().await;
        (gateway.ended().await.code(), held.await.unwrap())
    });
    assert_eq!(hanging.await.unwrap(), (Some(0), true));
}

#[tokio::test]
async fn a_second_signal_cuts_at_once() {
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[listeners.public]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [drain]\ndelay = \"60s\"\ndeadline = \"60s\"\n\
         [services.app]\nendpoints = [\"{}\"]\n[routes.all]\nmatch = {{}}\nservice = \"app\"\n",
        origin.address,
    );
    let mut gateway = Gateway::start_with(&configuration, &[]).await;
    gateway.terminate().await;
    eventually("not ready", async || {
        (gateway.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
    gateway.terminate().await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}
