//! Clients that want to exhaust the gateway: each way ends their connection, not the service.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{self, read_to_end};
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
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
