//! The scanner and hyper, side by side: what the scanner clears, hyper reads as the same requests.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::{HeadLimits, Scanner};

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 4096,
    headers_max: 32,
    target_bytes_max: 256,
    trailer_bytes_max: 64,
    trailers_max: 4,
    underscores_refused: true,
};

/// Well-formed messages, to be cut up and changed.
const MESSAGES: [&str; 6] = [
    "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "PUT /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nT: v\r\n\r\n",
    "PUT /e HTTP/1.1\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
    "\r\nGET /f HTTP/1.1\r\nX: y\r\n\r\n",
];
/// What smugglers are fond of.
const BYTES: &[u8] = b"\r\n\t :;,0123459afxX+-/\0\x7f\xff";

/// One change: at this place (as a share of the length), put, replace or take away a byte.
#[derive(Debug, Clone)]
enum Change {
    Insert(prop::sample::Index, u8),
    Replace(prop::sample::Index, u8),
    Remove(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let (place, byte) = (any::<prop::sample::Index>, || prop::sample::select(BYTES));
    prop_oneof![
        (place(), byte()).prop_map(|(place, byte)| Change::Insert(place, byte)),
        (place(), byte()).prop_map(|(place, byte)| Change::Replace(place, byte)),
        place().prop_map(Change::Remove),
    ]
}

fn stream(messages: &[&str], changes: &[Change]) -> Vec<u8> {
    let mut bytes = messages.concat().into_bytes();
    for change in changes {
        match change {
            Change::Insert(place, byte) => bytes.insert(place.index(bytes.len()), *byte),
            Change::Replace(place, byte) => {
                let at = place.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Remove(place) => drop(bytes.remove(place.index(bytes.len()))),
        }
    }
    bytes
}

/// What hyper makes of these bytes.
#[derive(Debug)]
struct Reading {
    /// The targets, and the length of each body that came to its end.
    requests: Vec<(String, Option<usize>)>,
    /// Hyper refused a head, and read nothing after it.
    refused: bool,
}

fn read_by_hyper(bytes: &[u8]) -> Reading {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let refused = runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let service = service_fn(|request: Request<Incoming>| {
            let seen = Rc::clone(&seen);
            async move {
                let target = request.uri().to_string();
                let body = request.into_body().collect().await;
                seen.borrow_mut()
                    .push((target, body.ok().map(|body| body.to_bytes().len())));
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let mut builder = http1::Builder::new();
        let served = builder
            .half_close(true)
            .serve_connection(TokioIo::new(server), service)
            .await;
        served.is_err_and(|error| error.is_parse())
    });
    Reading {
        requests: seen.take(),
        refused,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn hyper_reads_what_the_scanner_cleared(
        messages in prop::collection::vec(prop::sample::select(&MESSAGES[..]), 1..4),
        changes in prop::collection::vec(change(), 0..3),
    ) {
        let bytes = stream(&messages, &changes);
        let mut scanner = Scanner::new(LIMITS);
        let progress = scanner.scan(&bytes);
        let read = read_by_hyper(&bytes[..progress.cleared]);
        let count = read.requests.len() as u64;
        // Hyper stops early where a target is no URI, and after HTTP/1.0 without keep-alive.
        let stops = read.refused || bytes.windows(8).any(|version| version == b"HTTP/1.0");
        let same = count == progress.heads || (stops && count < progress.heads);
        prop_assert!(same, "{} heads, but {:?}", progress.heads, read);
        if progress.violation.is_none() && !scanner.in_body() {
            prop_assert!(read.requests.iter().all(|(_, body)| body.is_some()), "{:?}", read);
        }
    }
}
