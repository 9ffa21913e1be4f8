//! A wire against the other end of a real connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::filter::reject::Reject;
use crate::forward::body::KeptBody;
use crate::socket::{self, Socket};
use crate::upstream::instance::Instance;

/// Connections of a test's instance, all of which are taken by its wire.
const CONNECTIONS_MAX: u32 = 1;

/// A wire, the instance's end of its connection, and the instance.
async fn wire() -> (Wire, TcpStream, Arc<Instance>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let near = TcpStream::connect(address).await.unwrap();
    let far = listener.accept().await.unwrap().0;
    let instance = Arc::new(Instance::new(address, Instant::now(), Arc::default()));
    assert!(instance.connections.take(CONNECTIONS_MAX));
    let place = Place::taken(&instance);
    let io = AnswerFirst::new(Transport::Clear(Socket::new(near)));
    (Wire::new(io, place), far, instance)
}

fn request() -> (Parts, RequestBody) {
    let request = Request::get("/path?query").header("host", "test");
    let body = RequestBody::copied(&KeptBody::default());
    request.body(body).unwrap().into_parts()
}

/// Sends a request and reads its answer to the end.
async fn ask(wire: &mut Wire) -> Result<(u16, Result<String, String>), Unanswered> {
    let (head, body) = request();
    let mut answer = wire.send(&head, body);
    let response = poll_fn(|cx| {
        let polled = Pin::new(&mut answer).poll(cx);
        // What the event loop does before it sleeps.
        socket::flush();
        polled
    });
    let (head, mut body) = response.await?.into_parts();
    let mut text = String::new();
    while let Some(frame) = poll_fn(|cx| wire.poll_body(&mut body, cx)).await {
        match frame {
            Ok(frame) => text += str::from_utf8(&frame.into_data().unwrap()).unwrap(),
            Err(error) => return Ok((head.status.as_u16(), Err(error.to_string()))),
        }
    }
    Ok((head.status.as_u16(), Ok(text)))
}

/// What the instance does: it reads a request, answers, and closes if it is to.
async fn answer(far: &mut TcpStream, bytes: &str, closes: bool) -> String {
    let mut head = vec![0; 1024];
    let read = far.read(&mut head).await.unwrap();
    far.write_all(bytes.as_bytes()).await.unwrap();
    if closes {
        far.shutdown().await.unwrap();
    }
    String::from_utf8(head[..read].to_vec()).unwrap()
}

#[tokio::test]
async fn a_connection_serves_again_when_nothing_is_left_of_the_answer() {
    let fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let short = "the connection ended within the body of the answer";
    type Case = (
        &'static str,
        &'static str,
        bool,
        Result<&'static str, &'static str>,
        bool,
    );
    // The answer, whether the instance closes, the body, and whether another request may be sent.
    let table: [Case; 8] = [
        ("a length", fine, false, Ok("ok"), true),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            false,
            Ok("ok"),
            true,
        ),
        ("closed behind", fine, true, Ok("ok"), false),
        (
            "says close",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            false,
            Ok("ok"),
            false,
        ),
        (
            "something left",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
            false,
            Ok("ok"),
            false,
        ),
        (
            "up to the end",
            "HTTP/1.1 200 OK\r\n\r\nok",
            true,
            Ok("ok"),
            false,
        ),
        (
            "too short",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            true,
            Err(short),
            false,
        ),
        (
            "half a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\no",
            true,
            Err(short),
            false,
        ),
    ];
    for (what, bytes, closes, expected, again) in table {
        let (mut wire, mut far, _instance) = wire().await;
        let (found, asked) = tokio::join!(ask(&mut wire), answer(&mut far, bytes, closes));
        assert_eq!(
            asked, "GET /path?query HTTP/1.1\r\nhost: test\r\n\r\n",
            "{what}"
        );
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(found.unwrap(), (200, expected), "{what}");
        // What the instance did after its answer is known to the event loop a turn later.
        let over = async {
            while wire.is_ready() && !again {
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), over).await;
        assert_eq!(wire.is_ready(), again, "{what}");
        if again {
            let (found, _) = tokio::join!(ask(&mut wire), answer(&mut far, fine, false));
            assert_eq!(found.unwrap(), (200, Ok("ok".to_owned())), "{what}, again");
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_says_whether_asking_again_helps() {
    let ambiguous = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The answer, and the refusal that is final; none where another attempt may help.
    let table: [(&str, Option<Reject>); 4] = [
        ("", None),
        ("HTTP/1.1 200 O", None),
        ("no http\r\n\r\n", Some(Reject::UpstreamProtocol)),
        (ambiguous, Some(Reject::UpstreamFraming)),
    ];
    for (bytes, expected) in table {
        let (mut wire, mut far, _instance) = wire().await;
        let (found, _) = tokio::join!(ask(&mut wire), answer(&mut far, bytes, true));
        let unanswered = found.unwrap_err();
        assert!(unanswered.unsent.is_none(), "{bytes:?}");
        assert_eq!(unanswered.refusal(), expected, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_request_comes_back_from_a_connection_that_has_ended() {
    let (mut wire, far, instance) = wire().await;
    drop(far);
    while !wire.has_ended() {
        tokio::task::yield_now().await;
    }
    let unanswered = ask(&mut wire).await.unwrap_err();
    assert_eq!(unanswered.refusal(), None);
    assert!(unanswered.unsent.is_some());
    // Its place is free once it is gone.
    assert!(!instance.connections.take(CONNECTIONS_MAX));
    drop(wire);
    assert!(instance.connections.take(CONNECTIONS_MAX));
}

#[tokio::test]
async fn a_switched_connection_keeps_its_place_and_what_was_read() {
    let (mut wire, mut far, instance) = wire().await;
    let bytes = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nhello";
    let (found, _) = tokio::join!(ask(&mut wire), answer(&mut far, bytes, false));
    assert_eq!(found.unwrap(), (101, Ok(String::new())));
    assert!(!wire.is_ready());
    let switched = wire.switched().unwrap();
    assert_eq!(switched.ahead, "hello");
    assert!(!instance.connections.take(CONNECTIONS_MAX));
    drop(switched);
    assert!(instance.connections.take(CONNECTIONS_MAX));
}
