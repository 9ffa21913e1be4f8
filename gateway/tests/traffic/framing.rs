//! Requests another server could read differently are refused with 400 (or 431, 414, 408), the
//! connection is closed, and what follows them is never read as a request.

use std::time::Duration;

use crate::support::client::raw;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;

const FOLLOWING: &str = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_closed() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let table = [
        (
            "CL and TE",
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "conflicting-length",
        ),
        (
            "TE and CL",
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
            "conflicting-length",
        ),
        (
            "two differing CL",
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
            "repeated-content-length",
        ),
        (
            "CL list",
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1, 2\r\n\r\nab",
            400,
            "bad-content-length",
        ),
        (
            "signed CL",
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: +1\r\n\r\na",
            400,
            "bad-content-length",
        ),
        (
            "TE twice",
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad-transfer-encoding",
        ),
        (
            "TE xchunked",
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            400,
            "bad-transfer-encoding",
        ),
        (
            "TE identity, chunked",
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad-transfer-encoding",
        ),
        (
            "TE in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad-transfer-encoding",
        ),
        (
            "bare LF",
            "GET / HTTP/1.1\nHost: test\n\n",
            400,
            "bare-line-feed",
        ),
        (
            "CR inside a value",
            "GET / HTTP/1.1\r\nHost: test\r\nX-A: a\rb\r\n\r\n",
            400,
            "bare-line-feed",
        ),
        (
            "NUL in a value",
            "GET / HTTP/1.1\r\nHost: test\r\nX-A: a\0b\r\n\r\n",
            400,
            "bad-header-value",
        ),
        (
            "obs-fold",
            "GET / HTTP/1.1\r\nHost: test\r\nX-A: a\r\n b\r\n\r\n",
            400,
            "folded-header",
        ),
        (
            "space before colon",
            "GET / HTTP/1.1\r\nHost: test\r\nX-A : a\r\n\r\n",
            400,
            "space-before-colon",
        ),
        (
            "missing Host",
            "GET / HTTP/1.1\r\n\r\n",
            400,
            "host-missing",
        ),
        (
            "two Hosts",
            "GET / HTTP/1.1\r\nHost: test\r\nHost: other\r\n\r\n",
            400,
            "host-repeated",
        ),
        (
            "Host and absolute target differ",
            "GET http://other/ HTTP/1.1\r\nHost: test\r\n\r\n",
            400,
            "host-mismatch",
        ),
        (
            "dot segments",
            "GET /a/../b HTTP/1.1\r\nHost: test\r\n\r\n",
            400,
            "path-dot-segment",
        ),
        (
            "encoded slash",
            "GET /a%2Fb HTTP/1.1\r\nHost: test\r\n\r\n",
            400,
            "path-encoded-slash",
        ),
        (
            "backslash",
            "GET /a\\b HTTP/1.1\r\nHost: test\r\n\r\n",
            400,
            "path-backslash",
        ),
        ("HTTP/0.9", "GET /\r\n\r\n", 505, "http-version"),
        (
            "HTTP/1.2",
            "GET / HTTP/1.2\r\nHost: test\r\n\r\n",
            505,
            "http-version",
        ),
        (
            "fragment",
            "GET /a#b HTTP/1.1\r\nHost: test\r\n\r\n",
            400,
            "path-fragment",
        ),
        (
            "`*`",
            "OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n",
            400,
            "asterisk-form",
        ),
        (
            "CONNECT",
            "CONNECT test:80 HTTP/1.1\r\nHost: test:80\r\n\r\n",
            501,
            "method-not-implemented",
        ),
        (
            "underscore",
            "GET / HTTP/1.1\r\nHost: test\r\nX_A: a\r\n\r\n",
            400,
            "underscore-header",
        ),
        (
            "two tokens",
            "GET / HTTP/1.1\r\nHost: test\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
            400,
            "repeated-header",
        ),
        (
            "user in host",
            "GET http://a@test/ HTTP/1.1\r\nHost: a@test\r\n\r\n",
            400,
            "host-userinfo",
        ),
        (
            "other scheme",
            "GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n",
            400,
            "bad-scheme",
        ),
        (
            "folded trailer",
            "POST /sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\r\n c\r\n\r\n",
            400,
            "bad-trailer",
        ),
        (
            "length as a trailer",
            "POST /sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nContent-Length: 1\r\n\r\n",
            400,
            "forbidden-trailer",
        ),
        (
            "bad chunk size",
            "POST /sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
            "bad-chunk",
        ),
        (
            "chunk longer than said",
            "POST /sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            400,
            "bad-chunk",
        ),
        (
            "LF in chunk extension",
            "POST /sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\n0\r\n\r\n",
            400,
            "bad-chunk",
        ),
    ];
    for (what, request, status, reason) in table {
        let answer = raw(
            gateway.address(),
            format!("{request}{FOLLOWING}").as_bytes(),
        )
        .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{what}: {answer}"
        );
        assert!(
            answer.contains(&format!("\"reason\":\"{reason}\"")),
            "{what}: {answer}"
        );
        assert!(
            answer.contains("\r\nconnection: close\r\n"),
            "{what}: {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{what}: one answer: {answer}"
        );
    }
    let smuggled = gateway
        .log_lines()
        .iter()
        .any(|line| line["path"] == "/smuggled");
    assert!(!smuggled, "nothing after a refused request is read");
    let counted = gateway
        .metric("weir_gateway_refusals_total{reason=\"bad-content-length\"}")
        .await;
    assert!(counted >= 2.0, "counted {counted}");
}

#[tokio::test]
async fn oversized_heads_are_refused_and_the_connection_closed() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let head = |more: &str| format!("GET / HTTP/1.1\r\nHost: test\r\n{more}\r\n");
    let table = [
        (
            "one large field",
            head(&format!("X-A: {}\r\n", "a".repeat(40 << 10))),
            431,
        ),
        ("many fields", head(&"X-A: a\r\n".repeat(101)), 431),
        ("head without end", "X".repeat(40 << 10), 431),
        (
            "long target",
            format!(
                "GET /{} HTTP/1.1\r\nHost: test\r\n\r\n",
                "a".repeat(9 << 10)
            ),
            414,
        ),
    ];
    for (what, request, status) in table {
        let answer = raw(gateway.address(), request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{what}: {answer}"
        );
        assert!(
            answer.contains("\r\nconnection: close\r\n"),
            "{what}: {answer}"
        );
    }
    assert_eq!(origin.requests(), 0);
    // Just below the limits all is well.
    let fits = head(&format!(
        "X-A: {}\r\nConnection: close\r\n",
        "a".repeat(31 << 10)
    ));
    let answer = raw(gateway.address(), fits.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_slow_head_is_answered_408() {
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[server]\nheader_timeout = \"200ms\"\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [services.app]\nendpoints = [\"{}\"]\n[routes.all]\nmatch = {{}}\nservice = \"app\"\n",
        origin.address,
    );
    let gateway = Gateway::start_with(&configuration, &[]).await;
    let started = std::time::Instant::now();
    let answer = raw(gateway.address(), b"GET / HTTP/1.1\r\nHost: te").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        raw(gateway.address(), b"").await,
        "",
        "a silent client is left without an answer"
    );
}

#[tokio::test]
async fn what_is_sent_with_the_first_request_is_answered_too() {
    // After its first answer a connection rests, with what the client has sent ahead.
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let counted = "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc";
    let chunked =
        "PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let table: [&[&str]; 6] = [
        &[get, last],
        &[counted, last],
        &[chunked, last],
        &[get, chunked, last],
        &[chunked, get, counted, last],
        &[get, get, get, last],
    ];
    for requests in table {
        let answer = raw(gateway.address(), requests.concat().as_bytes()).await;
        let answers = answer.matches("HTTP/1.1 200 OK\r\n").count();
        assert_eq!(answers, requests.len(), "{requests:?}: {answer}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_until_the_bad_one() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let good = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    let bytes = format!(
        "{}{}GET /c HTTP/1.1\r\nHost : x\r\n\r\n{FOLLOWING}",
        good("/a"),
        good("/b")
    );
    let answer = raw(gateway.address(), bytes.as_bytes()).await;
    let statuses: Vec<&str> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answer[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answer}");
    assert_eq!(origin.requests(), 2);
}
