//! Clients that want to exhaust the gateway: each way ends their connection, or costs nobody else
//! anything.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{self, read_to_end, read_until};
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// RFC 9113 section 7.
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// One HTTP/2 frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET path` for host `test`, in HPACK without a dynamic table (RFC 7541).
fn request(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x41, 4];
    block.extend_from_slice(b"test");
    block.extend_from_slice(&[0x44, path.len() as u8]);
    block.extend_from_slice(path.as_bytes());
    block
}

/// Client streams have odd numbers.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|index| 2 * index + 1)
}

/// Opens an HTTP/2 connection, writes `bytes`, and reads frames until `found` gives something.
async fn attack<T>(
    gateway: SocketAddr,
    bytes: Vec<u8>,
    mut found: impl FnMut(u8, &[u8]) -> Option<T>,
) -> T {
    let (mut reader, mut writer) = TcpStream::connect(gateway).await.unwrap().into_split();
    let flood = tokio::spawn(async move {
        let opening = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
            &frame(SETTINGS, 0, 0, &[]),
        ];
        writer.write_all(&opening.concat()).await.unwrap();
        // The gateway may close before it has read everything: that is the point.
        let _ = writer.write_all(&bytes).await;
        writer
    });
    let answer = async {
        loop {
            let mut head = [0; 9];
            reader
                .read_exact(&mut head)
                .await
                .expect("an answer before the end");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            reader
                .read_exact(&mut payload)
                .await
                .expect("a whole frame");
            if let Some(found) = found(head[3], &payload) {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, answer)
        .await
        .expect("the answer in time");
    drop(flood.await.unwrap());
    found
}

/// The error code of a GOAWAY.
fn goaway(kind: u8, payload: &[u8]) -> Option<u32> {
    (kind == GOAWAY).then(|| u32::from_be_bytes(payload[4..8].try_into().unwrap()))
}

#[tokio::test]
async fn rapid_reset_ends_the_connection() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let pair = |stream| {
        let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("/hang"));
        [open, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
    };
    let flood = streams(5000).flat_map(pair).collect();
    assert_eq!(
        attack(gateway.address(), flood, goaway).await,
        ENHANCE_YOUR_CALM
    );
    assert!(
        origin.requests() < 500,
        "{} reached the instance",
        origin.requests()
    );
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);
}

#[tokio::test]
async fn made_you_reset_ends_the_connection() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    // A window update of zero is a stream error: the gateway has to reset the stream.
    let pair = |stream| {
        let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("/hang"));
        [open, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    };
    let flood = streams(5000).flat_map(pair).collect();
    attack(gateway.address(), flood, goaway).await;
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    eventually("nothing is left over", async || {
        (gateway.metric("weir_gateway_requests_in_flight").await < 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_continuation_flood_ends_the_connection() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let before = gateway.memory_peak();
    let mut flood = frame(HEADERS, END_STREAM, 1, &request("/"));
    // A literal field without indexing, name `a`, in each of a thousand frames.
    let field = [&[0x00, 1, b'a', 0x7f, 0x81, 0x7e][..], &[b'b'; 16_256]].concat();
    for _ in 0..1000 {
        flood.extend(frame(CONTINUATION, 0, 1, &field));
    }
    attack(gateway.address(), flood, goaway).await;
    assert_eq!(origin.requests(), 0);
    let growth = gateway.memory_peak() - before;
    assert!(growth < 8 << 20, "grew by {growth} bytes");
}

#[tokio::test]
async fn streams_over_the_limit_are_refused() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let open = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("/hang"));
    let flood = streams(129).flat_map(open).collect();
    let refused = attack(gateway.address(), flood, |kind, payload| {
        (kind == RST_STREAM).then(|| u32::from_be_bytes(payload.try_into().unwrap()))
    });
    assert_eq!(refused.await, REFUSED_STREAM);
}

#[tokio::test]
async fn connections_over_the_limit_are_closed() {
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[server]\nworkers = 2\nconnections_max = 2\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    );
    let gateway = Gateway::start_with(&configuration, &[]).await;
    let open = async || TcpStream::connect(gateway.address()).await.unwrap();
    let (first, second) = (open().await, open().await);
    eventually("two are open", async || {
        (gateway.metric("weir_gateway_connections_open").await > 1.5).then_some(())
    })
    .await;
    assert_eq!(read_to_end(&mut open().await).await, "");
    let refused = gateway
        .metric("weir_gateway_connections_refused_total")
        .await;
    assert!((refused - 1.0).abs() < 0.1, "{refused}");

    drop((first, second));
    eventually("room again", async || {
        let request = client::request("/").body(http_body_util::Empty::<bytes::Bytes>::new());
        client::try_send(gateway.address(), request.unwrap())
            .await
            .ok()
    })
    .await;
}

/// Memory one attack may cost, in bytes: buffers of its connections, far less than it sends.
const GROWTH_MAX: u64 = 12 << 20;

/// What a connection of an attack may cost, in time on a processor.
const CONNECTION_COST_MAX: Duration = Duration::from_millis(5);

/// While clients do nothing but stay, so does the gateway, once it has done what it can for them: a
/// loop that spins for one of them would take all of a processor.
async fn comes_to_rest(gateway: &Gateway, what: &str) {
    eventually(&format!("at rest: {what}"), async || {
        let (before, since) = (gateway.cpu(), Instant::now());
        tokio::time::sleep(Duration::from_millis(300)).await;
        (gateway.cpu() - before < since.elapsed() / 10).then_some(())
    })
    .await;
}

/// Good requests on connections of their own, each of which must be answered.
async fn serves_others(gateway: &Gateway) {
    for _ in 0..20 {
        assert_eq!(client::get(gateway.address(), "/good").await.status, 200);
    }
}

/// A gateway with more in `[server]`.
async fn limited(origin: SocketAddr, server: &str) -> Gateway {
    limited_route(origin, server, "").await
}

/// The same with more in the route.
async fn limited_route(origin: SocketAddr, server: &str, own: &str) -> Gateway {
    let configuration = format!(
        "[server]\nworkers = 2\n{server}\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n[access_log]\nto = \"file\"\npath = \"access.log\"\n{}{}",
        service("app", &[origin], ""),
        route("all", "/{*rest}", "app", own),
    );
    Gateway::start_with(&configuration, &[]).await
}

/// Sends `bytes` and reads nothing, until the gateway takes no more. The connection stays open.
async fn flood(gateway: &Gateway, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let mut left = bytes;
    // What the gateway does not read fills the sockets' buffers, and then writing waits.
    let quiet = Duration::from_millis(300);
    while !left.is_empty() {
        match tokio::time::timeout(quiet, stream.write(left)).await {
            Ok(Ok(count)) => left = &left[count..],
            Ok(Err(_)) | Err(_) => break,
        }
    }
    stream
}

#[tokio::test]
async fn slowloris_ends_in_408_and_costs_little() {
    let origin = Origin::start("one").await;
    let gateway = limited(origin.address, "header_timeout = \"2s\"").await;
    serves_others(&gateway).await;
    let (before, spent) = (gateway.memory_peak(), gateway.cpu());
    let attackers = (0..200).map(|_| async {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let head = b"GET /slow HTTP/1.1\r\nHost: test\r\nX-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        for byte in head {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        read_to_end(&mut stream).await
    });
    let attack = futures_util::future::join_all(attackers);
    let (answers, ()) = tokio::join!(attack, serves_others(&gateway));
    let timed_out = |answer: &String| answer.starts_with("HTTP/1.1 408 ");
    assert!(
        answers.iter().all(timed_out),
        "{:?}",
        answers.iter().find(|one| !timed_out(one))
    );
    assert_eq!(origin.requests(), 40, "none of theirs reached the instance");
    let growth = gateway.memory_peak() - before;
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
    let cost = gateway.cpu() - spent;
    assert!(cost < 200 * CONNECTION_COST_MAX, "took {cost:?}");
}

#[tokio::test]
async fn heads_and_answers_left_half_way_cost_nothing_while_they_stay() {
    let origin = Origin::start("one").await;
    let gateway = limited(origin.address, "").await;
    serves_others(&gateway).await;
    let (before, spent) = (gateway.memory_peak(), gateway.cpu());
    let table: [(&str, &[u8]); 4] = [
        ("no byte", b""),
        (
            "half a head",
            b"GET /slow HTTP/1.1\r\nHost: test\r\nX-A: aaa",
        ),
        (
            "a body not read",
            b"GET /zeros/100000000 HTTP/1.1\r\nHost: test\r\n\r\n",
        ),
        (
            "an answer not there",
            b"GET /hang HTTP/1.1\r\nHost: test\r\n\r\n",
        ),
    ];
    for (what, bytes) in table {
        let held = (0..50).map(|_| async {
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream
        });
        let held = futures_util::future::join_all(held).await;
        serves_others(&gateway).await;
        comes_to_rest(&gateway, what).await;
        drop(held);
    }
    let growth = gateway.memory_peak() - before;
    assert!(growth < 2 * GROWTH_MAX, "grew by {growth} bytes");
    let cost = gateway.cpu() - spent;
    assert!(cost < 4 * 50 * CONNECTION_COST_MAX, "took {cost:?}");
}

#[tokio::test]
async fn a_head_in_many_pieces_costs_what_its_pieces_cost() {
    let origin = Origin::start("one").await;
    // Sending a quarter of a million pieces takes its time on a busy machine.
    let limits =
        "header_bytes_max = \"256KiB\"\nuri_bytes_max = \"64KiB\"\nheader_timeout = \"1h\"";
    let gateway = limited(origin.address, limits).await;
    serves_others(&gateway).await;
    let field = |index| format!("X-{index}: {}\r\n", "a".repeat(4000));
    let fields: String = (0..50).map(field).collect();
    let target = "a".repeat(60_000);
    let table = [
        (
            "fields",
            format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\n"),
            200,
        ),
        (
            "a target",
            format!("GET /{target} HTTP/1.1\r\nHost: test\r\n\r\n"),
            200,
        ),
        ("no line end", "a".repeat((256 << 10) + 1), 431),
    ];
    for (what, head, status) in table {
        for bytes in [1, 10, 100] {
            let before = gateway.cpu();
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in head.as_bytes().chunks(bytes) {
                stream.write_all(piece).await.unwrap();
            }
            let answer = client::read_until(&mut stream, "}").await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{what}: {answer}"
            );
            let cost = gateway.cpu() - before;
            // A tenth of a second where each byte is looked at once.
            assert!(
                cost < Duration::from_secs(2),
                "{what} by {bytes} bytes: {cost:?}"
            );
        }
    }
}

#[tokio::test]
async fn pipelining_without_reading_costs_little() {
    let origin = Origin::start("one").await;
    let gateway = limited(origin.address, "").await;
    serves_others(&gateway).await;
    let before = gateway.memory_peak();
    let one = b"GET /zeros/16384 HTTP/1.1\r\nHost: test\r\n\r\n";
    let held = futures_util::future::join_all(
        (0..20).map(|_| async { flood(&gateway, &one.repeat(10_000)).await }),
    );
    let (held, ()) = tokio::join!(held, serves_others(&gateway));
    comes_to_rest(&gateway, "answers that nobody reads").await;
    let growth = gateway.memory_peak() - before;
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
    drop(held);

    // Who reads gets every answer, in order.
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let requests: String = (0..500)
        .map(|index| format!("GET /{index} HTTP/1.1\r\nHost: test\r\n\r\n"))
        .collect();
    stream.write_all(requests.as_bytes()).await.unwrap();
    for index in 0..500 {
        let answer = client::read_until(&mut stream, "}").await;
        assert!(
            answer.contains(&format!("\"uri\":\"/{index}\"")),
            "{index}: {answer}"
        );
    }
}

#[tokio::test]
async fn bodies_that_never_come_end_in_408() {
    let origin = Origin::start("one").await;
    let gateway = limited(origin.address, "body_idle_timeout = \"3s\"").await;
    serves_others(&gateway).await;
    let before = gateway.memory_peak();
    let asked_on = async || {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let head = b"POST /sink HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000\r\n\
                     Expect: 100-continue\r\n\r\n";
        stream.write_all(head).await.unwrap();
        // From here on it is the client who keeps the others waiting.
        read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
        stream
    };
    // A few at a time: all at once would wait for connections to the instance, on a slow machine
    // longer than for the body, and that is not the client's fault.
    let mut attackers = Vec::new();
    for _ in 0..20 {
        let some = (0..10).map(|_| asked_on());
        attackers.extend(futures_util::future::join_all(some).await);
    }
    let attack = futures_util::future::join_all(attackers.iter_mut().map(read_to_end));
    let others = async {
        serves_others(&gateway).await;
        comes_to_rest(&gateway, "bodies that do not come").await;
    };
    let (answers, ()) = tokio::join!(attack, others);
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let growth = gateway.memory_peak() - before;
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
    eventually("nothing is left over", async || {
        (gateway.metric("weir_gateway_requests_in_flight").await < 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn floods_of_control_frames_cost_little() {
    let origin = Origin::start("one").await;
    let gateway = limited(origin.address, "").await;
    serves_others(&gateway).await;
    let before = gateway.memory_peak();
    let opening = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &frame(SETTINGS, 0, 0, &[]),
    ]
    .concat();
    let open = frame(HEADERS, END_HEADERS, 1, &request("/hang"));
    let table: [(&str, Vec<u8>); 3] = [
        ("PING", frame(PING, 0, 0, &[0; 8]).repeat(200_000)),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[]).repeat(200_000)),
        (
            "empty DATA",
            [open, frame(DATA, 0, 1, &[]).repeat(200_000)].concat(),
        ),
    ];
    for (what, frames) in table {
        // Every one of them calls for an answer, or for a look, and none is read.
        let bytes = [opening.clone(), frames].concat();
        let (held, ()) = tokio::join!(flood(&gateway, &bytes), serves_others(&gateway));
        comes_to_rest(&gateway, what).await;
        let growth = gateway.memory_peak() - before;
        assert!(growth < GROWTH_MAX, "{what}: grew by {growth} bytes");
        drop(held);
    }
}

#[tokio::test]
async fn a_header_bomb_is_refused_before_it_goes_off() {
    let origin = Origin::start("one").await;
    let gateway = limited(origin.address, "").await;
    let before = gateway.memory_peak();
    // A field of 3000 bytes enters the dynamic table once; each byte after that is the field again.
    let mut block = request("/bomb");
    block.extend_from_slice(&[0x40, 1, b'a', 0x7f, 0xb9, 0x16]);
    block.extend_from_slice(&[b'b'; 3000]);
    block.extend_from_slice(&[0xbe; 13_000]);
    let flood = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    let refused = attack(gateway.address(), flood, |kind, _| {
        matches!(kind, HEADERS | RST_STREAM | GOAWAY).then_some(kind)
    });
    assert!(matches!(refused.await, HEADERS | RST_STREAM | GOAWAY));
    assert_eq!(origin.requests(), 0);
    let growth = gateway.memory_peak() - before;
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
}

#[tokio::test]
async fn a_stream_without_room_is_reset_and_the_others_live() {
    let origin = Origin::start("one").await;
    // The server's rate, and that of a route where the server has none.
    let window = "body_rate_window = \"500ms\"\n";
    let server = format!("{window}body_rate_min = \"16KiB/s\"");
    without_room_is_reset(&limited(origin.address, &server).await).await;
    let server = format!("{window}body_rate_min = \"0B/s\"");
    let own = "body_rate_min = \"16KiB/s\"";
    without_room_is_reset(&limited_route(origin.address, &server, own).await).await;
    assert!(origin.open() < 6);
}

async fn without_room_is_reset(gateway: &Gateway) {
    // SETTINGS_INITIAL_WINDOW_SIZE = 0 (RFC 9113 section 6.5.2): no stream has room by itself.
    let window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let get = |stream| {
        frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            stream,
            &request("/zeros/1000000"),
        )
    };
    let bytes = [window, get(1), get(3)].concat();
    let mut reset = Vec::new();
    let both = attack(gateway.address(), bytes, |kind, payload| {
        assert_ne!(kind, GOAWAY, "the connection lives");
        if kind == RST_STREAM {
            reset.push(u32::from_be_bytes(payload.try_into().unwrap()));
        }
        (reset.len() == 2).then(|| reset.clone())
    });
    assert_eq!(both.await, [CANCEL, CANCEL]);
    let line = gateway.logged("/zeros/1000000").await;
    assert_eq!(line["reason"], "client-too-slow", "{line}");
}

#[tokio::test]
async fn chunk_extensions_have_a_limit_over_the_whole_body() {
    let origin = Origin::start("one").await;
    let gateway = limited(origin.address, "").await;
    let head = "POST /sink HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1;{}\r\na\r\n", "x".repeat(256));
    for (count, status) in [(32, 200), (33, 400)] {
        let request = format!("{head}{}0\r\n\r\n", chunk.repeat(count));
        let answer = client::raw(gateway.address(), request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{count}: {answer}"
        );
        assert_eq!(
            answer.contains("\"reason\":\"chunk-extension\""),
            status == 400
        );
    }
}
