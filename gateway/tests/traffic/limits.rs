//! What a client may send, and how slowly: each limit at its edge, and one over.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Empty;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{self, raw, read_to_end, read_until};
use crate::support::gateway::{Gateway, route, service};
use crate::support::hostile::Hostile;
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually};

async fn gateway(origin: SocketAddr, server: &str, listener: &str) -> Gateway {
    routed(origin, (server, listener), "").await
}

/// The same with more in the route.
async fn routed(origin: SocketAddr, (server, listener): (&str, &str), own: &str) -> Gateway {
    let configuration = format!(
        "[server]\nworkers = 2\n{server}\n[listeners.public]\nbind = \"127.0.0.1:0\"\n{listener}\n\
         [admin]\nbind = \"127.0.0.1:0\"\n[access_log]\nto = \"file\"\npath = \"access.log\"\n{}{}",
        service("app", &[origin], ""),
        route("all", "/{*rest}", "app", own),
    );
    Gateway::start_with(&configuration, &[]).await
}

#[tokio::test]
async fn heads_have_a_number_of_fields() {
    // It counts nothing.
    let origin = Hostile::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    // The setting, the fields of a request, and the status.
    let table = [
        ("", 100, 200),
        ("", 101, 431),
        ("headers_max = 40", 40, 200),
        ("headers_max = 40", 41, 431),
        ("headers_max = 300", 300, 200),
        ("headers_max = 300", 301, 431),
    ];
    for (limit, fields, status) in table {
        let gateway = gateway(origin.address, limit, "").await;
        let further: String = (2..fields).map(|n| format!("X-{n}: 1\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{further}\r\n");
        let answer = raw(gateway.address(), head.as_bytes()).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{limit}, {fields}: {answer}");
    }
}

#[tokio::test]
async fn responses_have_a_number_of_fields() {
    for (fields, status) in [(100, 200), (101, 502)] {
        let further: String = (1..fields).map(|n| format!("X-{n}: 1\r\n")).collect();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{further}\r\n");
        let instance = Hostile::answering(answer).await;
        let gateway = gateway(instance.address, "", "").await;
        let head = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        let answer = raw(gateway.address(), head.as_bytes()).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{fields}: {answer}");
    }
}

#[tokio::test]
async fn trailers_have_a_size_and_a_number() {
    let origin = Origin::start("one").await;
    let limits = "trailer_bytes_max = \"64B\"\ntrailers_max = 2";
    let gateway = gateway(origin.address, limits, "").await;
    let line = |bytes: usize| format!("x:{}\r\n", "a".repeat(bytes - 4));
    let table = [
        ("two", "x: 1\r\ny: 2\r\n".to_owned(), 200),
        ("three", "x: 1\r\ny: 2\r\nz: 3\r\n".to_owned(), 431),
        ("64 bytes", line(64), 200),
        ("65 bytes", line(65), 431),
    ];
    for (what, trailers, status) in table {
        let request = format!(
            "POST /sink HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{trailers}\r\n"
        );
        let answer = raw(gateway.address(), request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{what}: {answer}"
        );
        let named = answer.contains("\"reason\":\"trailers-too-large\"");
        assert_eq!(named, status == 431, "{what}: {answer}");
    }
}

#[tokio::test]
async fn an_upload_must_keep_to_the_rate() {
    let origin = Origin::start("one").await;
    let limits = "body_rate_min = \"1KiB/s\"\nbody_rate_window = \"2s\"";
    let gateway = gateway(origin.address, limits, "").await;
    // 2 KiB are due in each window: 30 times as many pass, in two windows and a bit, and a
    // hundredth does not.
    for (piece, status) in [(5 * 1024, 200), (1, 408)] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let head = format!(
            "POST /sink HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            30 * piece
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let upload = tokio::spawn(async move {
            for _ in 0..30 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                if writer.write_all(&vec![b'a'; piece]).await.is_err() {
                    break;
                }
            }
            writer
        });
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, reader.read_to_string(&mut answer));
        read.await.expect("an answer in time").unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{piece}: {answer}"
        );
        assert_eq!(
            answer.contains("\"reason\":\"body-too-slow\""),
            status == 408
        );
        drop(upload.await.unwrap());
    }
}

#[tokio::test]
async fn a_reader_must_keep_to_the_rate() {
    let origin = Origin::start("one").await;
    // A good client may be kept waiting by the machine, but not as long as this window.
    let limits = "body_rate_min = \"64KiB/s\"\nbody_rate_window = \"2s\"";
    let gateway = gateway(origin.address, limits, "").await;
    // More than the buffers of any kernel between the two.
    let path = format!("/zeros/{}", 64 << 20);
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // Not read at all; a good client is served meanwhile, however much it asks for.
    let answer = client::get(gateway.address(), &format!("/zeros/{}", 8 << 20)).await;
    assert_eq!(answer.body.len(), 8 << 20);
    let line = gateway.logged(&path).await;
    assert_eq!(line["reason"], "client-too-slow", "{line}");
    assert!(line["bytes_out"].as_u64().unwrap() < 64 << 20, "{line}");
    let refused = "weir_gateway_refusals_total{reason=\"client-too-slow\"}";
    assert!(gateway.metric(refused).await > 0.5);
}

#[tokio::test]
async fn a_route_has_a_rate_of_its_own() {
    let origin = Origin::start("one").await;
    let window = "body_rate_window = \"500ms\"";
    // The server demands a lot and the route nothing, or the other way round.
    for (server, own, passes) in [("64KiB/s", "0B/s", true), ("0B/s", "64KiB/s", false)] {
        let server = format!("body_rate_min = \"{server}\"\n{window}");
        let own = format!("body_rate_min = \"{own}\"");
        let gateway = routed(origin.address, (&server, ""), &own).await;
        let path = format!("/zeros/{}", 64 << 20);
        let upload = slow_upload(&gateway, passes).await;
        assert_eq!(upload.starts_with("HTTP/1.1 200 "), passes, "{upload}");
        assert_eq!(upload.contains("body-too-slow"), !passes, "{upload}");
        let mut reader = reader(&gateway, &path).await;
        if passes {
            // Three windows of nothing.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        } else {
            let line = gateway.logged(&path).await;
            assert_eq!(line["reason"], "client-too-slow", "{line}");
        }
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut bytes)).await;
        // A reset takes what was under way with it.
        let whole = read.expect("an end in time").is_ok() && bytes.len() > 64 << 20;
        assert_eq!(whole, passes, "{} bytes", bytes.len());
    }
}

/// The answer to an upload of twenty bytes that takes two windows, or for ever.
async fn slow_upload(gateway: &Gateway, ends: bool) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let head =
        "POST /sink HTTP/1.1\r\nHost: test\r\nContent-Length: 20\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..if ends { 20 } else { 19 } {
        tokio::time::sleep(Duration::from_millis(60)).await;
        if stream.write_all(b"a").await.is_err() {
            break;
        }
    }
    read_to_end(&mut stream).await
}

/// A client that has asked and does not read yet.
async fn reader(gateway: &Gateway, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_source_has_so_many_connections() {
    let origin = Origin::start("one").await;
    let limits = "connections_per_source_max = 2";
    let gateway = gateway(origin.address, limits, "").await;
    let open = async || TcpStream::connect(gateway.address()).await.unwrap();
    let (first, second) = (open().await, open().await);
    eventually("two are open", async || {
        (gateway.metric("weir_gateway_connections_open").await > 1.5).then_some(())
    })
    .await;
    assert_eq!(read_to_end(&mut open().await).await, "", "the third");
    let by_source = "weir_gateway_connections_refused_by_source_total";
    assert!((gateway.metric(by_source).await - 1.0).abs() < 0.1);
    assert!(
        gateway
            .metric("weir_gateway_connections_refused_total")
            .await
            < 0.5
    );
    // Another address is another source.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(gateway.address()).await.unwrap();
    other
        .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    assert!(
        read_until(&mut other, "}")
            .await
            .starts_with("HTTP/1.1 200 ")
    );

    drop((first, second));
    eventually("room again", async || {
        let request = client::request("/").body(Empty::<bytes::Bytes>::new());
        client::try_send(gateway.address(), request.unwrap())
            .await
            .ok()
    })
    .await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_are_many_sources() {
    let origin = Origin::start("one").await;
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]";
    let gateway = gateway(origin.address, "connections_per_source_max = 1", trusted).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            .await
            .unwrap();
        assert!(
            read_until(&mut stream, "}")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
        held.push(stream);
    }
}

#[tokio::test]
async fn a_connection_has_so_many_requests() {
    let origin = Origin::start("one").await;
    let gateway = gateway(origin.address, "requests_per_connection_max = 3", "").await;
    let four = "GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(4);
    let answer = raw(gateway.address(), four.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 3, "{answer}");
    assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");

    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let mut sender = client::handshake_http2(stream).await;
    for _ in 0..3 {
        let request = http::Request::get("http://test/").body(http_body_util::Full::default());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    eventually("GOAWAY has come", async || sender.is_closed().then_some(())).await;
}
