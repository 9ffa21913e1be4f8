//! Bodies are streamed: their size costs no memory, and limits hold while they flow.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{self, Answer, is_silent, read_until};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;

const GIB: u64 = 1 << 30;
/// More than 32 bits can count.
const HUGE: u64 = 4 * GIB + 1;
/// What the process may need in all, far less than a body.
const MEMORY_MAX: u64 = 32 << 20;
/// Moved at once between sockets that know no HTTP.
const PIECE_BYTES: usize = 256 * 1024;
static CHUNK: [u8; 64 * 1024] = [7; 64 * 1024];
/// `size` bytes, of a length the receiver is not told.
fn chunked(size: u64) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let chunks = size / CHUNK.len() as u64;
    StreamBody::new(stream::iter(
        (0..chunks).map(|_| Ok(Frame::data(Bytes::from_static(&CHUNK)))),
    ))
}

/// Writes `count` bytes.
async fn write_zeros(writer: &mut (impl AsyncWrite + Unpin), count: u64) {
    let piece = vec![0; PIECE_BYTES];
    let mut left = count;
    while left > 0 {
        let here = left.min(PIECE_BYTES as u64) as usize;
        let written = writer.write(&piece[..here]).await.unwrap();
        assert_ne!(written, 0);
        left -= written as u64;
    }
}

/// Reads up to the end, or `count` bytes; returns how many there were.
async fn read_away(reader: &mut (impl AsyncRead + Unpin), count: u64) -> u64 {
    let mut piece = vec![0; PIECE_BYTES];
    let mut seen = 0;
    while seen < count {
        let room = (count - seen).min(PIECE_BYTES as u64) as usize;
        match reader.read(&mut piece[..room]).await.unwrap() {
            0 => break,
            read => seen += read as u64,
        }
    }
    seen
}

/// Reads a head, byte by byte: what follows it is the body.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A server that takes [`HUGE`] bytes of a POST, gives as many for a GET, and says how many it took.
async fn huge_origin() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_head(&mut stream).await;
                if head.starts_with("POST") {
                    let taken = read_away(&mut stream, HUGE).await.to_string();
                    let length = taken.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{taken}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                } else {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                    write_zeros(&mut stream, HUGE).await;
                }
            });
        }
    });
    address
}

/// Both at once, of stated length: neither the sum nor the number of bytes is held anywhere.
#[tokio::test]
async fn four_gibibytes_pass_each_way_in_bounded_memory() {
    let of_route = "body_bytes_max = \"5GiB\"";
    let gateway = Gateway::in_front_of_with(&[huge_origin().await], "", of_route).await;
    let open = async |head: String| {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let upload = async {
        let head = format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {HUGE}\r\n\r\n");
        let mut stream = open(head).await;
        write_zeros(&mut stream, HUGE).await;
        read_until(&mut stream, &HUGE.to_string()).await
    };
    let download = async {
        let close = "Host: test\r\nConnection: close\r\n\r\n";
        let mut stream = open(format!("GET /down HTTP/1.1\r\n{close}")).await;
        read_away(&mut stream, u64::MAX).await
    };
    let (answer, received) = tokio::join!(upload, download);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        (HUGE..HUGE + 1024).contains(&received),
        "{received} with the head"
    );
    let peak = gateway.memory_peak();
    assert!(peak < MEMORY_MAX, "needed {peak} bytes");
    assert_eq!(gateway.logged("/up").await["bytes_in"], HUGE);
    assert_eq!(gateway.logged("/down").await["bytes_out"], HUGE);
}

/// The same without a stated length, and through hyper on both sides.
#[tokio::test]
async fn chunked_bodies_pass_each_way_in_bounded_memory() {
    let size = GIB / 4;
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut sender = client::connect(gateway.address()).await.unwrap();
    let request = Request::post("/sink")
        .header("host", "test")
        .body(chunked(size).boxed());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(Answer::read(response).await.unwrap().json()["bytes"], size);

    let mut sender = client::connect(gateway.address()).await.unwrap();
    let request = client::request(&format!("/zeros/{size}"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame
            .unwrap()
            .data_ref()
            .map_or(0, |data| data.len() as u64);
    }
    assert_eq!(received, size);
    let peak = gateway.memory_peak();
    assert!(peak < MEMORY_MAX, "needed {peak} bytes");
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_announced_or_not() {
    let origin = Origin::start("one").await;
    let gateway =
        Gateway::in_front_of_with(&[origin.address], "", "body_bytes_max = \"64KiB\"").await;
    let post = || Request::post("/sink").header("host", "test");
    let full = |size: usize| Full::new(Bytes::from(vec![0; size]));

    let answer = client::send(gateway.address(), post().body(full(64 << 10)).unwrap()).await;
    assert_eq!(answer.json()["bytes"], 64 << 10, "at the limit");
    let arrived = origin.requests();
    let answer = client::send(
        gateway.address(),
        post().body(full((64 << 10) + 1)).unwrap(),
    )
    .await;
    assert_eq!(
        answer.refusal(),
        (413, "body-too-large".to_owned()),
        "announced"
    );
    assert_eq!(
        origin.requests(),
        arrived,
        "an announced one never reaches the instance"
    );
    let answer = client::send(gateway.address(), post().body(chunked(128 << 10)).unwrap()).await;
    assert_eq!(
        answer.refusal(),
        (413, "body-too-large".to_owned()),
        "not announced"
    );
    assert_eq!(answer.header("connection"), "close");
}

#[tokio::test]
async fn pieces_arrive_before_the_body_is_complete() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(b"POST /sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await
        .unwrap();
    crate::support::eventually("the instance has the head", async || {
        (origin.requests() == 1).then_some(())
    })
    .await;
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "}").await;
    assert!(answer.ends_with("{\"bytes\":5}"), "{answer}");
}

/// An instance that answers while it reads, to a client that sends everything before it reads: more
/// each way than all buffers between them hold.
#[tokio::test]
async fn a_client_may_write_everything_before_it_reads() {
    const BYTES: u64 = 64 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        tokio::join!(
            read_away(&mut reader, BYTES),
            write_zeros(&mut writer, BYTES)
        );
    });
    let gateway = Gateway::in_front_of_with(&[address], "", "body_bytes_max = \"1GiB\"").await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let head = format!("POST /both HTTP/1.1\r\nHost: test\r\nContent-Length: {BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    write_zeros(&mut stream, BYTES).await;
    assert_eq!(read_away(&mut stream, BYTES).await, BYTES);
    assert_eq!(gateway.logged("/both").await["bytes_in"], BYTES);
}

/// Whatever the method: a body is part of the request (RFC 9110 section 9.3.1 leaves its meaning
/// to the instance).
#[tokio::test]
async fn a_body_of_unknown_length_belongs_to_any_method() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    for method in ["GET", "DELETE", "POST", "OPTIONS"] {
        let request = format!(
            "{method} /sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n"
        );
        let answer = client::raw(gateway.address(), request.as_bytes()).await;
        assert!(answer.ends_with("{\"bytes\":5}"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let request = client::request("/trailers")
        .header("te", "trailers")
        .body(Empty::new());
    let answer = client::send(gateway.address(), request.unwrap()).await;
    assert_eq!(answer.text(), "body");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "42");

    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
    let frames = [
        Ok(Frame::data(Bytes::from("a"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(stream::iter(
        frames.map(|frame: Result<_, Infallible>| frame),
    ));
    let request = Request::post("/")
        .header("host", "test")
        .header("trailer", "x-sum")
        .body(body);
    let answer = client::send(gateway.address(), request.unwrap()).await;
    assert_eq!(answer.json()["trailers"], serde_json::json!(["x-sum"]));
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_when_the_body_is_wanted() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let head = |path: &str, expect: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nExpect: {expect}\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(head("/sink", "100-continue").as_bytes())
        .await
        .unwrap();
    assert_eq!(
        read_until(&mut stream, "\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    assert!(is_silent(&mut stream).await);
    stream.write_all(b"ab").await.unwrap();
    assert!(
        read_until(&mut stream, "}")
            .await
            .ends_with("{\"bytes\":2}")
    );

    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream
        .write_all(head("/sink", "a-miracle").as_bytes())
        .await
        .unwrap();
    let answer = client::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 417 "), "{answer}");
}

#[tokio::test]
async fn answers_to_head_have_no_body() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut sender = client::connect(gateway.address()).await.unwrap();
    for _ in 0..2 {
        let request = Request::head("/")
            .header("host", "test")
            .body(Empty::<Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert!(response.headers().contains_key("content-length"));
        assert!(Answer::read(response).await.unwrap().body.is_empty());
        sender.ready().await.unwrap();
    }
    assert_eq!(origin.connections(), 1, "the connection is used again");
}
