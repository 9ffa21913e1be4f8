//! What instances do wrong: each failure has its own answer, and costs no request it need not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{Empty, Full};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{self, raw, read_until};
use crate::support::eventually;
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::origin::{self, Origin};

#[tokio::test]
async fn each_failure_has_its_own_answer() {
    let origin = Origin::start("one").await;
    let services = [
        ("hangs", origin.address, 504, "upstream-timeout"),
        ("refuses", origin::nobody(), 502, "upstream-connect"),
        (
            "garbage",
            origin::answering(b"no http at all\r\n\r\n").await,
            502,
            "upstream-protocol",
        ),
        (
            "closes",
            origin::answering(b"").await,
            502,
            "upstream-protocol",
        ),
        (
            "half-a-head",
            origin::answering(b"HTTP/1.1 200 OK\r\nX-").await,
            502,
            "upstream-protocol",
        ),
        (
            "uninvited-101",
            origin::answering(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            )
            .await,
            502,
            "upstream-protocol",
        ),
    ];
    let mut configuration = String::new();
    for (name, address, ..) in &services {
        configuration += &service(name, &[*address], "");
        let path = format!("/{name}/{{*rest}}");
        configuration += &route(name, &path, name, "timeout = \"20s\"");
    }
    configuration += &route("hang", "/hang", "hangs", "timeout = \"500ms\"");
    let gateway = Gateway::start(&configuration).await;
    for (name, _, status, reason) in services {
        let path = if name == "hangs" {
            "/hang".to_owned()
        } else {
            format!("/{name}/x")
        };
        let answer = client::get(gateway.address(), &path).await;
        assert_eq!(answer.refusal(), (status, reason.to_owned()), "{name}");
        let line = gateway.logged(&path).await;
        assert_eq!(line["reason"], reason, "{line}");
        assert!(line["instance"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn a_refused_connection_moves_the_request_to_another_instance() {
    let origin = Origin::start("alive").await;
    let gateway = Gateway::in_front_of(&[origin::nobody(), origin.address]).await;
    for _ in 0..20 {
        let request = Request::post("/")
            .header("host", "test")
            .body(Full::<Bytes>::from("once"));
        let answer = client::send(gateway.address(), request.unwrap()).await;
        assert_eq!(
            answer.json()["body"],
            "once",
            "never sent, so even POST may move"
        );
    }
    assert_eq!(origin.requests(), 20);
}

#[tokio::test]
async fn a_post_that_may_have_arrived_is_not_sent_again() {
    let (dead, origin) = (origin::answering(b"").await, Origin::start("alive").await);
    let gateway = Gateway::in_front_of(&[dead, origin.address]).await;
    let mut failed = 0;
    for _ in 0..10 {
        let request = Request::post("/")
            .header("host", "test")
            .body(Full::<Bytes>::from("once"));
        failed += u64::from(
            client::send(gateway.address(), request.unwrap())
                .await
                .status
                == 502,
        );
    }
    assert!(
        failed > 0,
        "round robin sends some to the instance that closes"
    );
    assert_eq!(failed + origin.requests(), 10, "each was answered once");

    for _ in 0..10 {
        let answer = client::get(gateway.address(), "/").await;
        assert_eq!(
            answer.status,
            200,
            "a GET may be sent again: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn an_instance_killed_under_load_costs_no_safe_request() {
    let origins = [Origin::start("one").await, Origin::start("two").await];
    let addresses = origins.each_ref().map(|origin| origin.address);
    let gateway = Gateway::in_front_of(&addresses).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| tokio::spawn(load(gateway.address(), Arc::clone(&stop))))
        .collect();

    eventually("both instances under load", async || {
        origins
            .iter()
            .all(|origin| origin.requests() > 200)
            .then_some(())
    })
    .await;
    origins[0].stop();
    let survivor = origins[1].requests();
    eventually("the survivor takes over", async || {
        (origins[1].requests() > survivor + 400).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (sent, failed) = client.await.unwrap();
        assert!(sent > 0);
        assert_eq!(failed, Vec::<String>::new(), "of {sent}");
    }
}

/// Sends one request after the other until told to stop; returns how many, and what failed.
pub(crate) async fn load(gateway: SocketAddr, stop: Arc<AtomicBool>) -> (u64, Vec<String>) {
    let (mut sent, mut failed) = (0, Vec::new());
    let mut sender = client::connect(gateway).await.unwrap();
    while !stop.load(Ordering::Relaxed) {
        let request = client::request("/").body(Empty::<Bytes>::new()).unwrap();
        sent += 1;
        match sender.send_request(request).await {
            Ok(response) => {
                let answer = client::Answer::read(response).await.unwrap();
                if answer.status != 200 {
                    failed.push(answer.text());
                }
                sender.ready().await.unwrap();
            }
            Err(error) => {
                failed.push(error.to_string());
                sender = client::connect(gateway).await.unwrap();
            }
        }
    }
    (sent, failed)
}

#[tokio::test]
async fn a_full_instance_is_waited_for_but_not_forever() {
    let origin = Origin::start("one").await;
    let configuration = |patience: &str| {
        let settings = format!("connections_max = 1\nwaiting_timeout = \"{patience}\"");
        let service = service("app", &[origin.address], &settings);
        let route = route("all", "/{*rest}", "app", "");
        format!(
            "{}{service}{route}",
            BASE.replace("workers = 2", "workers = 1")
        )
    };
    let gateway = Gateway::start_with(&configuration("300ms"), &[]).await;
    let held = tokio::spawn(client::get(gateway.address(), "/hold"));
    origin.holds(1).await;
    let answer = client::get(gateway.address(), "/late").await;
    assert_eq!(answer.refusal(), (503, "upstream-queue-timeout".to_owned()));

    std::fs::write(gateway.file("gateway.toml"), configuration("20s")).unwrap();
    let reloaded = gateway.command(&["reload"]).await;
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.stderr);
    let waiting = tokio::spawn(client::get(gateway.address(), "/patient"));
    origin.release();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(waiting.await.unwrap().status, 200);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn only_so_many_wait_for_a_full_instance() {
    // HTTP/1.1 by connections or requests, HTTP/2 by requests on its one connection.
    let table = [
        ("connections_max = 1", 1),
        ("requests_max = 1", 1),
        ("protocol = \"http2\"\nrequests_max = 1", 1),
    ];
    for (limit, connections) in table {
        let origin = Origin::start("one").await;
        let settings = format!("{limit}\nwaiting_max = 1\nwaiting_timeout = \"20s\"");
        let configuration = format!(
            "[server]\nworkers = 1\n[listeners.public]\nbind = \"127.0.0.1:0\"\n{}{}",
            service("app", &[origin.address], &settings),
            route("all", "/{*rest}", "app", "retry = { attempts = 0 }"),
        );
        let gateway = Gateway::start_with(&configuration, &[]).await;
        let held = tokio::spawn(client::get(gateway.address(), "/hold"));
        origin.holds(1).await;
        // Of two more one waits and the other is refused, whichever comes first.
        let first = tokio::spawn(client::get(gateway.address(), "/first"));
        let second = tokio::spawn(client::get(gateway.address(), "/second"));
        let (refused, waiting) = futures_util::future::select(first, second)
            .await
            .factor_first();
        let refused = refused.unwrap().refusal();
        assert_eq!(refused, (503, "upstream-busy".to_owned()), "{limit}");
        origin.release();
        assert_eq!(held.await.unwrap().status, 200, "{limit}");
        assert_eq!(waiting.await.unwrap().status, 200, "{limit}");
        assert_eq!(origin.connections(), connections, "{limit}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(b"GET /hang HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    origin.holds(1).await;
    drop(stream);
    origin.sees_cancellation().await;
    let line = gateway.logged("/hang").await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&499.into(), &"client-closed".into())
    );
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_passed_as_complete() {
    let half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let gateway = Gateway::in_front_of(&[origin::answering(half).await]).await;
    let answer = raw(
        gateway.address(),
        b"GET /break HTTP/1.1\r\nHost: test\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.ends_with("4\r\nhalf\r\n"),
        "no final chunk: {answer}"
    );
    assert_eq!(gateway.logged("/break").await["reason"], "upstream-broken");
}

#[tokio::test]
async fn a_client_that_stops_sending_is_answered_408() {
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[server]\nbody_idle_timeout = \"300ms\"\n[listeners.public]\nbind = \"127.0.0.1:0\"\n{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", "timeout = \"10s\""),
    );
    let gateway = Gateway::start_with(&configuration, &[]).await;
    let request = b"POST /sink HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf";
    let answer = raw(gateway.address(), request).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_body_does_not_lengthen_the_time_for_the_answer() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of_with(&[origin.address], "", "timeout = \"300ms\"").await;
    let request = Request::post("/hang").header("host", "test");
    let request = request.body(Full::<Bytes>::from("body")).unwrap();
    let answer = client::send(gateway.address(), request).await;
    assert_eq!(answer.refusal(), (504, "upstream-timeout".to_owned()));
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[server]\nidle_timeout = \"300ms\"\n[listeners.public]\nbind = \"127.0.0.1:0\"\n{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    );
    let gateway = Gateway::start_with(&configuration, &[]).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    // The connection is idle from some time after this on.
    let started = Instant::now();
    stream
        .write_all(b"GET /zeros/0 HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut stream, "0\r\n\r\n").await;
    assert_eq!(client::read_to_end(&mut stream).await, "");
    let idle = started.elapsed();
    assert!(idle >= Duration::from_millis(300), "closed after {idle:?}");
}

#[tokio::test]
async fn unused_connections_to_instances_are_closed() {
    let origin = Origin::start("one").await;
    let settings = "idle_timeout = \"200ms\"";
    let gateway = Gateway::in_front_of_with(&[origin.address], settings, "").await;
    let started = Instant::now();
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    eventually("closed", async || (origin.open() == 0).then_some(())).await;
    let kept = started.elapsed();
    assert!(kept >= Duration::from_millis(200), "kept for {kept:?}");
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);
}

#[tokio::test]
async fn an_instance_that_closes_after_each_answer_fails_nobody() {
    let closing = origin::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = Gateway::in_front_of(&[closing]).await;
    for round in 0..100 {
        let answer = client::get(gateway.address(), "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "ok".to_owned()),
            "{round}"
        );
    }
}
