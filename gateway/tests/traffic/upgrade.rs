//! Upgrades (WebSocket and others): bytes pass both ways once the instance has agreed, not before.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{read_to_end, read_until};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;

fn ask(path: &str, protocol: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    )
}

#[tokio::test]
async fn bytes_pass_both_ways_after_an_upgrade() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(ask("/upgrade", "echo").as_bytes())
        .await
        .unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.contains("connection: upgrade\r\n") && head.contains("upgrade: echo\r\n"),
        "{head}"
    );

    // Bytes that would be refused as HTTP.
    stream.write_all(b"\x81\x05hello\n\0\r\n!").await.unwrap();
    assert_eq!(
        read_until(&mut stream, "!").await,
        "\u{fffd}\x05hello\n\0\r\n!"
    );
    assert!((gateway.metric("weir_gateway_tunnels_open").await - 1.0).abs() < 0.1);
    assert_eq!(gateway.logged("/upgrade").await["status"], 101);

    stream.shutdown().await.unwrap();
    assert_eq!(
        read_to_end(&mut stream).await,
        "",
        "the end passes both ways"
    );
    eventually("the tunnel is gone", async || {
        (gateway.metric("weir_gateway_tunnels_open").await < 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_with_a_body_may_be_upgraded() {
    // As Docker's clients do.
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    for (protocol, status, end) in [("echo", "101", "\r\n\r\n"), ("other", "426", "only echo")] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let head = ask("/upgrade", protocol).replacen("GET", "POST", 1);
        let head = head.replace("\r\n\r\n", "\r\nContent-Length: 4\r\n\r\nbody");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, end).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        if status == "101" {
            stream.write_all(b"through\0!").await.unwrap();
            assert_eq!(read_until(&mut stream, "!").await, "through\0!");
        }
    }
}

#[tokio::test]
async fn a_connection_that_served_other_requests_may_be_upgraded() {
    let plain = "GET / HTTP/1.1\r\nHost: test\r\n\r\n".to_owned();
    // A body is moved by a task, which must not keep the connection.
    let upload = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody".to_owned();
    let refused = ask("/upgrade", "other");
    // What comes before it on the connection to the instance, each with the end of its answer.
    let table: [&[(&String, &str)]; 4] = [
        &[(&plain, "}")],
        &[(&upload, "}")],
        &[(&upload, "}"), (&plain, "}")],
        &[(&upload, "}"), (&refused, "only echo"), (&upload, "}")],
    ];
    for before in table {
        let origin = Origin::start("one").await;
        let gateway = Gateway::in_front_of(&[origin.address]).await;
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        for (request, end) in before {
            stream.write_all(request.as_bytes()).await.unwrap();
            read_until(&mut stream, end).await;
        }
        let ask = ask("/upgrade", "echo");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.contains("HTTP/1.1 101 "), "{before:?}: {head}");
        stream.write_all(b"through\0!").await.unwrap();
        let echoed = read_until(&mut stream, "!").await;
        assert_eq!(echoed, "through\0!", "{before:?}");
        assert_eq!(origin.connections(), 1, "{before:?}");
    }
}

#[tokio::test]
async fn without_a_101_the_connection_stays_http() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(ask("/upgrade", "other").as_bytes())
        .await
        .unwrap();
    let answer = read_until(&mut stream, "only echo").await;
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    // What follows is read as HTTP, and checked as such.
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost : test\r\n\r\n")
        .await
        .unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn bytes_sent_before_the_answer_are_no_tunnel() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let early = format!(
        "{}GET /early HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        ask("/upgrade", "h2c")
    );
    stream.write_all(early.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 426 "),
        "h2c is not passed on: {answer}"
    );
    assert!(
        answer.contains("\"uri\":\"/early\""),
        "the second request is a request: {answer}"
    );
}

#[tokio::test]
async fn a_tunnel_on_which_nothing_moves_is_closed() {
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[server]\nupgrade_idle_timeout = \"2s\"\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [services.app]\nendpoints = [\"{}\"]\n[routes.all]\nmatch = {{}}\nservice = \"app\"\n",
        origin.address,
    );
    let gateway = Gateway::start_with(&configuration, &[]).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(ask("/upgrade", "echo").as_bytes())
        .await
        .unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"ping").await.unwrap();
    read_until(&mut stream, "ping").await;
    assert_eq!(read_to_end(&mut stream).await, "");
}
