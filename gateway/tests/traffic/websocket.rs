//! Many upgraded connections (WebSocket) at a time: held, echoed, and cheap while idle.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;
use crate::support::{eventually, skip};

/// Connections held. With those to the origin they are 16 000 descriptors of the gateway, and as
/// many of this process.
const HELD: usize = 8000;
/// Connections opened at a time.
const AT_A_TIME: usize = 100;
/// Of the gateway's memory, for each connection held. A debug build has larger futures.
const BYTES_EACH_MAX: u64 = 64 * 1024;

const ASK: &[u8] =
    b"GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

async fn open(address: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(ASK).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");
    Ok(stream)
}

/// Sends a text of its own over each connection and reads it back.
async fn echo(streams: &mut [TcpStream], round: usize) {
    for (number, stream) in streams.iter_mut().enumerate() {
        let text = format!("{round:02}-{number:06}");
        stream.write_all(text.as_bytes()).await.unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut answer = [0; 9];
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut answer));
        read.await.expect("an echo").unwrap();
        assert_eq!(answer, *format!("{round:02}-{number:06}").as_bytes());
    }
}

#[tokio::test]
async fn a_tunnel_outlives_the_time_for_idle_connections() {
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[server]\nidle_timeout = \"100ms\"\nupgrade_idle_timeout = \"4s\"\n\
         [listeners.public]\nbind = \"127.0.0.1:0\"\n{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    );
    let gateway = Gateway::start_with(&configuration, &[]).await;
    let mut streams = [open(gateway.address()).await.unwrap()];
    // An idle connection is told to close after 100 ms, and cut after twice that.
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        echo(&mut streams, round).await;
    }
    // Its own time for silence is another matter.
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), streams[0].read_to_end(&mut rest));
    assert_eq!(read.await.expect("an end").unwrap(), 0);
}

/// Lets this process open as many files as the test needs; a user's usual limit is far lower, but
/// may be raised. Says in one line where it may not.
fn may_open_many() -> bool {
    let needed = 2 * HELD + 2000;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let limit = limits.lines().find_map(|line| {
        let numbers = line.strip_prefix("Max open files")?;
        numbers.split_whitespace().next()?.parse::<usize>().ok()
    });
    let raised = limit.is_some_and(|limit| limit >= needed) || {
        let raise = std::process::Command::new("prlimit")
            .arg(format!("--pid={}", std::process::id()))
            .arg(format!("--nofile={needed}:"))
            .status();
        raise.is_ok_and(|status| status.success())
    };
    if !raised {
        skip("websocket", "the hard limit of open files is too low");
    }
    raised
}

#[tokio::test]
async fn thousands_are_held_and_echoed() {
    if !may_open_many() {
        return;
    }
    let origin = Origin::start("one").await;
    let configuration = format!(
        "[server]\nworkers = 2\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\nsocket = \"gateway.sock\"\n[access_log]\nto = \"off\"\n\
         [drain]\ndelay = \"0s\"\ndeadline = \"60s\"\n{}{}",
        service(
            "app",
            &[origin.address],
            // Each worker has its share of the limit, and the kernel deals connections unevenly.
            "connections_max = 16000\nrequests_max = 16000"
        ),
        route("all", "/{*rest}", "app", ""),
    );
    let mut gateway = Gateway::start_with(&configuration, &[]).await;
    let before = gateway.memory_peak();
    let mut streams = Vec::with_capacity(HELD);
    while streams.len() < HELD {
        let more = (0..AT_A_TIME).map(|_| open(gateway.address()));
        streams.extend(try_join_all(more).await.unwrap());
    }
    let idle = (gateway.memory_peak() - before) / HELD as u64;
    assert!(idle < BYTES_EACH_MAX, "{idle} bytes for each");
    echo(&mut streams, 1).await;

    // A reload and the beginning of the end are nothing to them.
    let reloaded = gateway.command(&["reload"]).await;
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.stderr);
    echo(&mut streams, 2).await;
    assert_eq!(gateway.status().await["tunnels_open"], HELD);
    gateway.terminate().await;
    eventually("the listener is closed", async || {
        TcpStream::connect(gateway.address())
            .await
            .is_err()
            .then_some(())
    })
    .await;
    echo(&mut streams, 3).await;
    drop(streams);
    assert_eq!(gateway.ended().await.code(), Some(0));
}
