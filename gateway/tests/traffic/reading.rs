//! One reading of requests that are let through, and of what instances answer.

use http::Request;
use http_body_util::Empty;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{self, Answer, handshake_http2, raw, read_to_end, read_until};
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

/// A gateway with more in `[server]` and `[reading]`, in front of one service for every request.
async fn gateway(
    origin: std::net::SocketAddr,
    server: &str,
    reading: &str,
    of_route: &str,
) -> Gateway {
    let configuration = format!(
        "[server]\nworkers = 1\n{server}\n[reading]\n{reading}\n\
         [listeners.public]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [access_log]\nto = \"file\"\npath = \"access.log\"\n{}{}",
        service("app", &[origin], ""),
        route("all", "/{*rest}", "app", of_route),
    );
    Gateway::start_with(&configuration, &[]).await
}

/// A server that answers every request head with these bytes, and keeps the connection.
async fn always(bytes: &'static [u8]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while stream.read_buf(&mut seen).await.unwrap_or(0) > 0 {
                    if seen.ends_with(b"\r\n\r\n") {
                        seen.clear();
                        let _ = stream.write_all(bytes).await;
                    }
                }
            });
        }
    });
    address
}

const CLOSE: &str = "Host: test\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn odd_spellings_pass_where_the_configuration_lets_them() {
    let origin = Origin::start("one").await;
    let rules = "dot_segments = \"resolve\"\nempty_segments = \"merge\"\nencoded_slashes = \"keep\"\n\
                 backslashes = \"keep\"\nunderscore_names = \"keep\"";
    let gateway = gateway(origin.address, "", rules, "").await;
    let table = [
        ("/a/./b/../c", "/a/c"),
        ("//a///b", "/a/b"),
        ("/a%2fb", "/a%2Fb"),
        ("/a\\b", "/a%5Cb"),
    ];
    for (sent, seen) in table {
        let answer = raw(
            gateway.address(),
            format!("GET {sent} HTTP/1.1\r\nX_Y: 1\r\n{CLOSE}").as_bytes(),
        )
        .await;
        assert!(
            answer.contains(&format!("\"uri\":\"{seen}\"")),
            "{sent}: {answer}"
        );
        assert!(answer.contains("[\"x_y\",\"1\"]"), "{sent}: {answer}");
    }
}

#[tokio::test]
async fn hosts_reach_the_instance_in_normal_form() {
    let origin = Origin::start("one").await;
    let gateway = gateway(origin.address, "", "", "").await;
    let table = [
        ("TEST.", "test"),
        ("Test:8080", "test:8080"),
        ("a_b.", "a_b"),
        ("[::FFFF]:80", "[::ffff]:80"),
    ];
    for (sent, seen) in table {
        let request = format!("GET / HTTP/1.1\r\nHost: {sent}\r\nConnection: close\r\n\r\n");
        let answer = raw(gateway.address(), request.as_bytes()).await;
        assert!(
            answer.contains(&format!("[\"host\",\"{seen}\"]")),
            "{sent}: {answer}"
        );
    }
}

#[tokio::test]
async fn cookies_in_pieces_become_one() {
    let origin = Origin::start("one").await;
    let gateway = gateway(origin.address, "", "", "").await;
    let mut sender = handshake_http2(TcpStream::connect(gateway.address()).await.unwrap()).await;
    let request = Request::get("http://test/")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(http_body_util::Full::default());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let seen = Answer::read(response).await.unwrap().json()["headers"].to_string();
    assert!(seen.contains("[\"cookie\",\"a=1; b=2\"]"), "{seen}");
}

#[tokio::test]
async fn old_versions_of_http_are_read_as_they_mean() {
    let origin = Origin::start("one").await;
    let gateway = gateway(origin.address, "", "", "").await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    for _ in 0..2 {
        let kept = b"GET / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n";
        stream.write_all(kept).await.unwrap();
        let answer = read_until(&mut stream, "}").await;
        assert!(
            answer
                .to_ascii_lowercase()
                .contains("connection: keep-alive"),
            "{answer}"
        );
    }
    let kept = raw(gateway.address(), b"GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
    assert!(
        kept.starts_with("HTTP/1.0 200 "),
        "closed after one: {kept}"
    );
    // HTTP/0.9 sends no more than this; the answer does not wait for a timeout.
    let answer = raw(gateway.address(), b"GET /\r\n").await;
    assert!(answer.contains("\"reason\":\"http-version\""), "{answer}");
}

#[tokio::test]
async fn nothing_upgrades_to_http2_and_nothing_without_a_101() {
    let origin = Origin::start("one").await;
    let gateway = gateway(origin.address, "", "", "").await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let wishes = [
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Upgrade: echo\r\nConnection: Upgrade",
    ];
    for wish in wishes {
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{wish}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "}").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            !answer.contains("h2c") && !answer.contains("http2-settings"),
            "{answer}"
        );
    }
    // Still HTTP, and still read by its rules.
    stream
        .write_all(b"GET /\x01 HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(
        answer.contains("\"reason\":\"bad-request-line\""),
        "{answer}"
    );
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn ambiguous_answers_never_reach_the_client() {
    let table: [(&str, &'static [u8], &str); 14] = [
        ("CL and TE", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "upstream-framing"),
        ("equal CLs", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "upstream-framing"),
        ("other CLs", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", "upstream-framing"),
        ("CL list", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "upstream-framing"),
        ("signed CL", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "upstream-framing"),
        ("two codings", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "upstream-framing"),
        ("unknown coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", "upstream-framing"),
        ("TE in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "upstream-framing"),
        ("obs-fold", b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 2\r\n\r\nok", "upstream-protocol"),
        ("space before colon", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "upstream-protocol"),
        ("NUL in a value", b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok", "upstream-protocol"),
        ("CR in a value", b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nok", "upstream-protocol"),
        ("odd status", b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", "upstream-protocol"),
        ("101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "upstream-protocol"),
    ];
    for (what, bytes, reason) in table {
        let gateway = gateway(always(bytes).await, "", "", "timeout = \"2s\"").await;
        let answer = raw(
            gateway.address(),
            format!("GET / HTTP/1.1\r\n{CLOSE}").as_bytes(),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{what}: {answer}");
        assert!(
            answer.contains(&format!("\"reason\":\"{reason}\"")),
            "{what}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
    }
}

#[tokio::test]
async fn answers_are_written_anew() {
    let bare = b"HTTP/1.1 200 OK\nX-A: a\nContent-Length: 2\n\nok";
    let gateway = gateway(always(bare).await, "", "", "").await;
    let answer = raw(
        gateway.address(),
        format!("GET / HTTP/1.1\r\n{CLOSE}").as_bytes(),
    )
    .await;
    assert!(
        answer.contains("\r\nx-a: a\r\n") && answer.ends_with("\r\n\r\nok"),
        "{answer}"
    );
    assert_eq!(
        answer.matches('\n').count(),
        answer.matches("\r\n").count(),
        "{answer}"
    );
}

#[tokio::test]
async fn broken_bodies_end_as_broken() {
    let table: [(&str, &'static [u8]); 4] = [
        ("no chunk size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n"),
        ("chunk too long", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n"),
        ("huge size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n10000000000000002\r\nok\r\n0\r\n\r\n"),
        ("trailer for the head", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=b\r\n\r\n"),
    ];
    for (what, bytes) in table {
        let gateway = gateway(always(bytes).await, "", "", "").await;
        let request = format!("GET / HTTP/1.1\r\nTE: trailers\r\n{CLOSE}");
        let answer = raw(gateway.address(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        assert!(
            !answer.ends_with("0\r\n\r\n"),
            "{what}: no end is claimed: {answer}"
        );
        assert!(
            !answer.to_ascii_lowercase().contains("a=b"),
            "{what}: {answer}"
        );
    }
}

#[tokio::test]
async fn what_follows_an_answer_is_nobodys_answer() {
    let table: [(&str, &str, &'static [u8]); 5] = [
        ("GET", "second answer", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        ("GET", "body too long", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodevil"),
        ("GET", "body of a 204", b"HTTP/1.1 204 No Content\r\nX-Good: good\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        ("GET", "body of a 304", b"HTTP/1.1 304 Not Modified\r\nX-Good: good\r\nContent-Length: 4\r\n\r\nevil"),
        ("HEAD", "body after HEAD", b"HTTP/1.1 200 OK\r\nX-Good: good\r\nContent-Length: 4\r\n\r\nevil"),
    ];
    for (method, what, bytes) in table {
        let gateway = gateway(always(bytes).await, "", "", "").await;
        let mut sender = client::connect(gateway.address()).await.unwrap();
        for round in 0..3 {
            sender.ready().await.unwrap();
            let request = Request::builder()
                .method(method)
                .uri("/")
                .header("host", "test")
                .body(Empty::<bytes::Bytes>::new());
            let response = sender.send_request(request.unwrap()).await.unwrap();
            let answer = Answer::read(response).await.unwrap();
            let good = answer.text() == "good" || answer.header("x-good") == "good";
            assert!(
                good && answer.text() != "evil",
                "{what}, round {round}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn interim_answers_without_end_are_a_timeout() {
    let endless = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = endless.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = endless.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(100);
                while stream.write_all(&interim).await.is_ok() {}
            });
        }
    });
    let gateway = gateway(address, "", "", "timeout = \"500ms\"").await;
    let before = gateway.memory_peak();
    let answer = client::get(gateway.address(), "/").await;
    assert_eq!(answer.refusal(), (504, "upstream-timeout".to_owned()));
    let growth = gateway.memory_peak() - before;
    assert!(growth < 8 << 20, "grew by {growth} bytes");
}
