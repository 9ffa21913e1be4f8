//! Tunnels (WebSockets) that are idle, and when memory is short.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{select_all, try_join_all};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::PATIENCE;
use crate::support::eventually;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

/// An unmasked frame of one byte. The origin sends back what it gets.
const FRAME: [u8; 3] = [0x82, 1, b'a'];
/// Close, 1013: try again later.
const TRY_AGAIN_LATER: [u8; 4] = [0x88, 2, 0x03, 0xf5];

fn configuration(server: &str, overload: &str, endpoint: SocketAddr) -> String {
    format!(
        "[server]\nworkers = 1\n{server}\n[overload]\n{overload}\n\
         [listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\nsocket = \"gateway.sock\"\n\
         [access_log]\nto = \"off\"\n{}{}",
        service(
            "app",
            &[endpoint],
            "connections_max = 9999\nrequests_max = 9999"
        ),
        route("all", "/{*rest}", "app", ""),
    )
}

async fn open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let ask = "GET /upgrade HTTP/1.1\r\nHost: test\r\n\
        Connection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    match head.starts_with(b"HTTP/1.1 101 ") {
        true => Ok(stream),
        false => Err(std::io::ErrorKind::ConnectionRefused.into()),
    }
}

async fn echo(stream: &mut TcpStream) {
    stream.write_all(&FRAME).await.unwrap();
    let mut answer = [0; FRAME.len()];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer));
    read.await.expect("an echo").unwrap();
    assert_eq!(answer, FRAME);
}

#[tokio::test]
async fn a_tunnel_is_not_idle_as_long_as_something_moves() {
    let origin = Origin::start("one").await;
    let server = "idle_timeout = \"200ms\"\nupgrade_idle_timeout = \"60s\"";
    let gateway = Gateway::start_with(&configuration(server, "", origin.address), &[]).await;
    let mut stream = open(gateway.address()).await.unwrap();
    // Many times as long as a connection without a request may be idle.
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        echo(&mut stream).await;
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    echo(&mut stream).await;
}

#[tokio::test]
async fn tunnels_are_cut_when_memory_is_short_the_most_idle_first() {
    const MIB: f64 = 1_048_576.0;
    let origin = Origin::start("one").await;
    let roomy = configuration("", "memory_max = \"1GiB\"", origin.address);
    let mut gateway = Gateway::start_with(&roomy, &[]).await;
    let mut active = open(gateway.address()).await.unwrap();
    // Until they hold more than the least that may be allowed.
    let mut idle = Vec::new();
    while idle.len() < 200 || gateway.metric("process_resident_memory_bytes").await < 40.0 * MIB {
        let more = (0..50).map(|_| open(gateway.address()));
        idle.extend(try_join_all(more).await.unwrap());
        assert!(idle.len() < 5000, "they hold too little");
    }
    echo(&mut active).await;
    let cut = "weir_gateway_overload_connections_total{result=\"cut-tunnel\"}";
    assert!(gateway.metric(cut).await < 0.5);

    let file = gateway.file("gateway.toml");
    let at = |memory: &str| roomy.replace("1GiB", memory);
    std::fs::write(&file, at("32MiB")).unwrap();
    assert_eq!(gateway.command(&["reload"]).await.code, Some(0));
    let ended = idle.iter_mut().map(|stream| {
        Box::pin(async move {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.map(|_| bytes)
        })
    });
    let first = tokio::time::timeout(PATIENCE, select_all(ended)).await;
    // The others go on until there is room.
    std::fs::write(&file, at("1GiB")).unwrap();
    assert_eq!(gateway.command(&["reload"]).await.code, Some(0));
    let (bytes, _, others) = first.expect("one is cut");
    drop(others);
    assert_eq!(bytes.unwrap(), TRY_AGAIN_LATER, "it is told why");
    echo(&mut active).await;
    assert!(gateway.says("tunnels are cut, the most idle first").await);
    let counted = gateway.metric(cut).await;
    assert!(counted > 0.5, "{counted}");
    let left = eventually("those that were cut are gone", async || {
        let open = gateway.metric("weir_gateway_tunnels_open").await;
        let cut = gateway.metric(cut).await;
        ((open + cut - idle.len() as f64 - 1.0).abs() < 0.1).then_some(open)
    })
    .await;
    assert!(left > 1.5, "not all were cut at once");
    let another = eventually("new ones are let in again", async || {
        open(gateway.address()).await.ok()
    });
    echo(&mut another.await).await;
}
