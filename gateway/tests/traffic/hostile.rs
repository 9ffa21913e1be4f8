//! Instances with every bad habit: a correct answer, a clean retry or a named refusal; never a
//! hang, and never a piece of one response in another.

mod expected;
mod http2;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;

use self::expected::Expected;
use self::expected::Expected::{Body, Broken};
use self::expected::{AMBIGUOUS, INVALID, TIMEOUT};
use crate::support::client::{self, Answer};
use crate::support::gateway::Gateway;
use crate::support::hostile::{Connection, End, Hostile, path};
use crate::support::origin::{self, Origin};

/// Every habit by its name, with the answer to a GET. The route allows no further attempt, so each
/// is seen as it is.
fn habits() -> Vec<(&'static str, Vec<u8>, End, Expected)> {
    let ok = b"HTTP/1.1 200 OK\r\n";
    let with = |rest: &str| [ok, rest.as_bytes()].concat();
    let plain = |text: &str| text.as_bytes().to_vec();
    let many_fields: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long_field = format!("X-Long: {}\r\n", "a".repeat(1_000_000));
    vec![
        ("closes", plain(""), End::Close, INVALID),
        ("resets", plain(""), End::Reset, INVALID),
        ("hangs", plain(""), End::Hang, TIMEOUT),
        (
            "half a status line",
            plain("HTTP/1.1 2"),
            End::Close,
            INVALID,
        ),
        (
            "half a status line, reset",
            plain("HTTP/1.1 2"),
            End::Reset,
            INVALID,
        ),
        (
            "half a status line, hang",
            plain("HTTP/1.1 2"),
            End::Hang,
            TIMEOUT,
        ),
        ("half a head", with("X-Half: "), End::Close, INVALID),
        ("half a head, reset", with("X-Half: "), End::Reset, INVALID),
        ("half a head, hang", with("X-Half: "), End::Hang, TIMEOUT),
        (
            "garbage",
            plain("\u{1}\u{2}garbage\r\n\r\n"),
            End::Close,
            INVALID,
        ),
        (
            "garbage, hang",
            plain("\u{1}\u{2}garbage\r\n\r\n"),
            End::Hang,
            INVALID,
        ),
        (
            "another protocol",
            plain("SSH-2.0-OpenSSH_9.6\r\n"),
            End::Hang,
            INVALID,
        ),
        (
            "HTTP/3.7",
            plain("HTTP/3.7 200 OK\r\n\r\n"),
            End::Close,
            INVALID,
        ),
        (
            "status of two digits",
            plain("HTTP/1.1 20 OK\r\n\r\n"),
            End::Close,
            INVALID,
        ),
        (
            "status of letters",
            plain("HTTP/1.1 OK\r\n\r\n"),
            End::Close,
            INVALID,
        ),
        (
            "no colon",
            with("no colon here\r\n\r\n"),
            End::Close,
            INVALID,
        ),
        (
            "space in a name",
            with("X Y: 1\r\n\r\n"),
            End::Close,
            INVALID,
        ),
        (
            "NUL in a value",
            with("X-Y: a\0b\r\n\r\n"),
            End::Close,
            INVALID,
        ),
        (
            "too many fields",
            with(&(many_fields + "\r\n")),
            End::Close,
            INVALID,
        ),
        (
            "a field too long",
            with(&(long_field + "\r\n")),
            End::Hang,
            INVALID,
        ),
        (
            "length of letters",
            with("Content-Length: two\r\n\r\nok"),
            End::Close,
            AMBIGUOUS,
        ),
        (
            "negative length",
            with("Content-Length: -2\r\n\r\nok"),
            End::Close,
            AMBIGUOUS,
        ),
        (
            "two lengths",
            with("Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!"),
            End::Close,
            AMBIGUOUS,
        ),
        (
            "too little body",
            with("Content-Length: 9\r\n\r\nok"),
            End::Close,
            Broken("upstream-broken"),
        ),
        (
            "too little body, reset",
            with("Content-Length: 9\r\n\r\nok"),
            End::Reset,
            Broken("upstream-broken"),
        ),
        (
            "too little body, hang",
            with("Content-Length: 9\r\n\r\nok"),
            End::Hang,
            Broken("upstream-stalled"),
        ),
        (
            "chunks without end",
            with("Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
            End::Close,
            Broken("upstream-broken"),
        ),
        (
            "chunks without end, reset",
            with("Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
            End::Reset,
            Broken("upstream-broken"),
        ),
        (
            "half a chunk",
            with("Transfer-Encoding: chunked\r\n\r\n9\r\nok"),
            End::Close,
            Broken("upstream-broken"),
        ),
        (
            "half a chunk, hang",
            with("Transfer-Encoding: chunked\r\n\r\n9\r\nok"),
            End::Hang,
            Broken("upstream-stalled"),
        ),
        (
            "no chunk",
            with("Transfer-Encoding: chunked\r\n\r\nok, no chunk at all"),
            End::Close,
            Broken("upstream-broken"),
        ),
        (
            "a chunk too large",
            with("Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nok"),
            End::Close,
            Broken("upstream-broken"),
        ),
        ("until the end", with("\r\nok"), End::Close, Body("ok")),
        (
            "length and close",
            with("Content-Length: 2\r\n\r\nok"),
            End::Close,
            Body("ok"),
        ),
        (
            "length and hang",
            with("Content-Length: 2\r\n\r\nok"),
            End::Hang,
            Body("ok"),
        ),
        (
            "more than announced",
            with("Content-Length: 2\r\n\r\nok and more"),
            End::Hang,
            Body("ok"),
        ),
        (
            "more after the last chunk",
            with("Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore"),
            End::Hang,
            Body("ok"),
        ),
        (
            "continue before the answer",
            plain("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            End::Hang,
            Body("ok"),
        ),
        (
            "early hints before the answer",
            plain(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ),
            End::Hang,
            Body("ok"),
        ),
        (
            "continue, and nothing more",
            plain("HTTP/1.1 100 Continue\r\n\r\n"),
            End::Close,
            INVALID,
        ),
        (
            "continue, and a hang",
            plain("HTTP/1.1 100 Continue\r\n\r\n"),
            End::Hang,
            TIMEOUT,
        ),
        (
            "many continues",
            plain(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)),
            End::Hang,
            TIMEOUT,
        ),
        (
            "a switch nobody asked for",
            plain("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
            End::Hang,
            INVALID,
        ),
    ]
}

#[tokio::test]
async fn every_bad_habit_has_a_named_answer() {
    let (mut instances, mut expected) = (Vec::new(), Vec::new());
    for (name, bytes, end, answer) in habits() {
        instances.push(Hostile::ending(bytes, end).await);
        expected.push((name, answer));
    }
    expected::check(&instances, "", &expected).await;
}

#[tokio::test]
async fn a_good_instance_beside_a_bad_one_answers_what_is_safe() {
    let origin = Origin::start("good").await;
    let habits = [
        ("closes", "", End::Close),
        ("resets", "", End::Reset),
        ("half a head", "HTTP/1.1 200 OK\r\nX-", End::Close),
        ("half a head, reset", "HTTP/1.1 200 OK\r\nX-", End::Reset),
        ("hangs", "", End::Hang),
    ];
    for (name, bytes, end) in habits {
        let bad = Hostile::ending(bytes, end).await;
        // An instance that hangs is left after this; the good one must never take as long.
        let of_route = if matches!(end, End::Hang) {
            "retry = { per_try_timeout = \"1s\" }"
        } else {
            ""
        };
        let endpoints = [bad.address, origin.address];
        for protocol in ["protocol = \"http1\"", "protocol = \"http2\""] {
            let gateway = Gateway::in_front_of_with(&endpoints, protocol, of_route).await;
            let before = bad.connections();
            for round in 0..4 {
                let answer = client::get(gateway.address(), "/x").await;
                let what = format!("{name} {protocol} {round}: {}", answer.text());
                assert_eq!(answer.status, 200, "{what}");
                assert_eq!(answer.json()["instance"], "good", "{what}");
            }
            assert!(
                bad.connections() > before,
                "{name} {protocol}: it was asked"
            );
        }
    }
}

#[tokio::test]
async fn a_slow_instance_is_waited_for_as_long_as_its_route_says() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    // The route's time, and whether the answer comes byte by byte from its head or its body on.
    let table = [
        ("200ms", 0, 504),
        ("20s", 0, 200),
        ("1s", ANSWER.len() - 2, 200),
    ];
    for (timeout, from, status) in table {
        let instance = Hostile::start(move |mut connection: Connection| async move {
            if connection.request().await.is_none() || !connection.write(&ANSWER[..from]).await {
                return;
            }
            for byte in &ANSWER[from..] {
                tokio::time::sleep(Duration::from_millis(if from > 0 { 600 } else { 20 })).await;
                if !connection.write(&[*byte]).await {
                    return;
                }
            }
        })
        .await;
        let of_route = format!("timeout = \"{timeout}\"");
        let gateway = Gateway::in_front_of_with(&[instance.address], "", &of_route).await;
        let answer = client::get(gateway.address(), "/").await;
        assert_eq!(answer.status, status, "{timeout} {from}: {}", answer.text());
        match status {
            200 => assert_eq!(answer.text(), "ok", "{timeout} {from}"),
            _ => assert_eq!(answer.refusal().1, "upstream-timeout", "{timeout} {from}"),
        }
    }
}

/// Sends requests one after the other on one connection, each with a path of its own that the
/// instance gives back; returns the answers that were not this path.
async fn others(gateway: &Gateway, count: usize, method: &Method) -> Vec<(String, Answer)> {
    let mut sender = client::connect(gateway.address()).await.unwrap();
    let mut others = Vec::new();
    for number in 0..count {
        let path = format!("/{method}/{number}");
        let body = if method == Method::GET { "" } else { "body" };
        let request = Request::builder().method(method).uri(&path);
        let request = request.header("host", "test");
        let request = request.body(Full::<Bytes>::from(body)).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let answer = Answer::read(response).await.unwrap();
        sender.ready().await.unwrap();
        if answer.status != 200 || answer.text() != path {
            others.push((path, answer));
        }
    }
    others
}

#[tokio::test]
async fn two_responses_for_one_request_are_never_spliced() {
    // The second one comes with the first, or in another packet right after it.
    for apart in [false, true] {
        let instance = Hostile::start(move |mut connection: Connection| async move {
            let _ = connection.stream.set_nodelay(true);
            while let Some(head) = connection.request().await {
                let body = path(&head).to_owned();
                let answer = |body: &str| {
                    let length = body.len();
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
                };
                let (first, second) = (answer(&body), answer("spliced"));
                let written = if apart {
                    connection.write(first.as_bytes()).await
                        && connection.write(second.as_bytes()).await
                } else {
                    connection.write((first + &second).as_bytes()).await
                };
                if !written {
                    return;
                }
            }
        })
        .await;
        let gateway = Gateway::in_front_of(&[instance.address]).await;
        let clients = (0..4).map(|_| others(&gateway, 100, &Method::GET));
        let others: Vec<(String, Answer)> = futures_util::future::join_all(clients)
            .await
            .into_iter()
            .flatten()
            .collect();
        let spliced = others.iter().any(|(_, answer)| answer.text() == "spliced");
        assert!(!spliced, "apart: {apart}: {others:?}");
        assert!(others.is_empty(), "apart: {apart}: {others:?}");
    }
}

#[tokio::test]
async fn connections_closed_at_the_moment_of_reuse_cost_no_safe_request() {
    // Closes after one to eight answers, at once or so little later that the next request may
    // have been written; by FIN or by RST.
    let served = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&served);
    let instance = Hostile::start(move |mut connection: Connection| {
        let served = Arc::clone(&counted);
        async move {
            let number = connection.number;
            for _ in 0..1 + number % 8 {
                let Some(head) = connection.request().await else {
                    return;
                };
                served.fetch_add(1, Ordering::Relaxed);
                if !connection.answer(path(&head)).await {
                    return;
                }
            }
            if !number.is_multiple_of(3) {
                tokio::time::sleep(Duration::from_micros(50 * (number % 7))).await;
            }
            let end = if number.is_multiple_of(2) {
                End::Close
            } else {
                End::Reset
            };
            connection.end(end).await;
        }
    })
    .await;
    // More retries than any budget of a service that works would allow.
    let budget = "retry_budget = { percent = 1000 }";
    let of_route = "retry = { attempts = 10, backoff = \"1ms\", backoff_max = \"1ms\" }";
    let gateway = Gateway::in_front_of_with(&[instance.address], budget, of_route).await;

    let clients = (0..8).map(|_| others(&gateway, 250, &Method::GET));
    let failed: Vec<(String, Answer)> = futures_util::future::join_all(clients)
        .await
        .into_iter()
        .flatten()
        .collect();
    assert!(failed.is_empty(), "of 2000: {failed:?}");

    // A POST that may have arrived is refused by name, and none has arrived twice.
    let before = served.load(Ordering::Relaxed);
    let clients = (0..8).map(|_| others(&gateway, 250, &Method::POST));
    let failed: Vec<(String, Answer)> = futures_util::future::join_all(clients)
        .await
        .into_iter()
        .flatten()
        .collect();
    for (path, answer) in &failed {
        assert_eq!(
            answer.refusal(),
            (502, "upstream-protocol".to_owned()),
            "{path}"
        );
    }
    let arrived = served.load(Ordering::Relaxed) - before;
    let answered = 2000 - failed.len() as u64;
    assert!(
        arrived >= answered && arrived <= 2000,
        "{arrived} {answered}"
    );
}

#[tokio::test]
async fn an_early_answer_to_a_large_upload_reaches_the_client() {
    // Answers as soon as the head is there, reads nothing of the body, and then ends. The body is
    // more than all buffers on the way can hold.
    let refused = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig";
    for end in [End::Close, End::Hang] {
        let instance = Hostile::start(move |mut connection: Connection| async move {
            if connection.head().await.is_some() && connection.write(refused.as_bytes()).await {
                connection.end(end).await;
            }
        })
        .await;
        let gateway = Gateway::in_front_of(&[instance.address]).await;
        for _ in 0..10 {
            let pieces = (0..1024)
                .map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[0; 64 * 1024]))));
            let body = StreamBody::new(futures_util::stream::iter(pieces));
            let request = Request::post("/upload").header("host", "test");
            let answer = client::try_send(gateway.address(), request.body(body).unwrap()).await;
            let answer = answer.unwrap_or_else(|error| panic!("{end:?}: {error}"));
            assert_eq!(
                (answer.status.as_u16(), answer.text()),
                (413, "big".into()),
                "{end:?}"
            );
        }
        // What was left of the uploads never became part of another request.
        assert_eq!(instance.requests(), instance.connections(), "{end:?}");
    }
}

#[tokio::test]
async fn an_instance_that_takes_no_body_is_a_named_timeout() {
    let instance = Hostile::start(|mut connection: Connection| async move {
        connection.head().await;
        connection.end(End::Hang).await;
    })
    .await;
    let instances = [instance];
    let gateway = expected::gateway(&instances, "", "timeout = \"20s\"").await;
    let pieces = std::iter::repeat_with(|| {
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[0; 64 * 1024])))
    });
    let body = StreamBody::new(futures_util::stream::iter(pieces.take(1000)));
    let request = Request::post("/0/upload").header("host", "test");
    let answer = client::send(gateway.address(), request.body(body).unwrap()).await;
    assert_eq!(answer.refusal(), (504, "upstream-send-timeout".to_owned()));
}

#[tokio::test]
async fn an_address_that_never_answers_is_a_named_timeout() {
    // A listener whose queue is full: further connections are not even refused.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    socket2::SockRef::from(&listener).listen(0).unwrap();
    let mut held = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
    {
        held.push(stream);
    }
    let settings = "connect_timeout = \"200ms\"";
    let gateway = Gateway::in_front_of_with(&[address], settings, "").await;
    let answer = client::get(gateway.address(), "/").await;
    assert_eq!(
        answer.refusal(),
        (504, "upstream-connect-timeout".to_owned())
    );
    let nobody = Gateway::in_front_of(&[origin::nobody()]).await;
    let answer = client::get(nobody.address(), "/").await;
    assert_eq!(answer.refusal(), (502, "upstream-connect".to_owned()));
}
