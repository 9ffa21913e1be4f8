//! The service behind a gateway: a small HTTP server that says who it is and what it was sent.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 `ok` |
//! | `/whoami` | JSON: service, instance, pid, peer, method, path, headers |
//! | `/echo` | the request's body, streamed back |
//! | `/bytes/{n}` | `n` bytes of a [pattern](pattern_block), streamed |
//! | `/slow?ms=` | 200 after that many milliseconds |
//! | `/status/{code}` | that status, 200 to 599 |
//! | `/websocket` | 101, then every byte comes back |
//!
//! Each path is also served below `/{service}/`, as a gateway forwards it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How many connections one instance serves at a time; more wait in the listen queue.
pub const CONNECTIONS_MAX: usize = 4096;

/// The longest answer time `/slow` accepts, milliseconds.
pub const SLOW_MS_MAX: u64 = 60_000;

/// The size of one block of the pattern of `/bytes/{n}`.
pub const PATTERN_BLOCK_BYTES: usize = 64 * 1024;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Who an instance is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The service, such as `users`.
    pub service: String,
    /// The instance, such as `users-1`.
    pub instance: String,
}

/// The answer of `/whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI {
    /// The service that answered.
    pub service: String,
    /// The instance that answered.
    pub instance: String,
    /// Its process.
    pub pid: u32,
    /// The other end of the connection, as the instance sees it: the gateway, behind one.
    pub peer: SocketAddr,
    /// The request's method.
    pub method: String,
    /// The request's path and query.
    pub path: String,
    /// The request's headers, each with its values in the order they came.
    pub headers: BTreeMap<String, Vec<String>>,
}

/// Serves connections from `listener` until the runtime ends.
pub async fn serve(listener: TcpListener, identity: Identity) {
    let identity = Arc::new(identity);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        // A failed accept concerns that connection alone, or passes when others have ended.
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let identity = Arc::clone(&identity);
        tokio::spawn(async move {
            serve_connection(stream, peer, identity).await;
            drop(slot);
        });
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, identity: Arc<Identity>) {
    let _ = stream.set_nodelay(true);
    // A socket for both families shows IPv4 peers as mapped addresses.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let service = service_fn(|request| {
        let identity = Arc::clone(&identity);
        async move { Ok::<_, Infallible>(answer(request, peer, &identity).await) }
    });
    // A broken connection is the client's business: there is nobody left to tell.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(request: Request<Incoming>, peer: SocketAddr, own: &Identity) -> Response<Body> {
    let path = own_path(request.uri().path(), &own.service).to_owned();
    match path.as_str() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/whoami" => who_am_i(&request, peer, own),
        "/echo" => echo(request),
        "/slow" => slow(request.uri().query()).await,
        "/websocket" => upgrade(request),
        _ => {
            answer_numbered(&path).unwrap_or_else(|| text(StatusCode::NOT_FOUND, "no such path\n"))
        }
    }
}

/// `/bytes/{n}` and `/status/{code}`.
fn answer_numbered(path: &str) -> Option<Response<Body>> {
    if let Some(length) = path.strip_prefix("/bytes/") {
        return Some(pattern(length.parse().ok()?));
    }
    let code: u16 = path.strip_prefix("/status/")?.parse().ok()?;
    let status = StatusCode::from_u16(code)
        .ok()
        .filter(|_| (200..600).contains(&code))?;
    Some(text(status, "as asked\n"))
}

/// The path without a leading `/{service}`.
fn own_path<'a>(path: &'a str, service: &str) -> &'a str {
    match path
        .strip_prefix('/')
        .and_then(|rest| rest.strip_prefix(service))
    {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

fn who_am_i(request: &Request<Incoming>, peer: SocketAddr, own: &Identity) -> Response<Body> {
    let answer = WhoAmI {
        service: own.service.clone(),
        instance: own.instance.clone(),
        pid: std::process::id(),
        peer,
        method: request.method().to_string(),
        path: request.uri().to_string(),
        headers: readable(request.headers()),
    };
    let json = serde_json::to_string_pretty(&answer).expect("strings and numbers are JSON");
    let mut response = text(StatusCode::OK, json + "\n");
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn readable(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut readable: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        readable.entry(name.to_string()).or_default().push(value);
    }
    readable
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().boxed_unsync());
    if let Some(value) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

async fn slow(query: Option<&str>) -> Response<Body> {
    let asked = query
        .and_then(|query| query.strip_prefix("ms="))
        .and_then(|ms| ms.parse().ok());
    match asked {
        Some(ms @ 0..=SLOW_MS_MAX) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            text(StatusCode::OK, format!("waited {ms} ms\n"))
        }
        _ => text(
            StatusCode::BAD_REQUEST,
            format!("ask for ?ms=0 to ?ms={SLOW_MS_MAX}\n"),
        ),
    }
}

/// Switches protocols whatever the handshake's key: what passes afterwards is the point here.
fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    if !request.headers().contains_key(UPGRADE) {
        return text(
            StatusCode::UPGRADE_REQUIRED,
            "ask with Upgrade: websocket\n",
        );
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn pattern(length: u64) -> Response<Body> {
    let blocks = stream::unfold(0, move |offset| async move {
        let left = length.checked_sub(offset).filter(|&left| left > 0)?;
        let mut block = pattern_block(offset / PATTERN_BLOCK_BYTES as u64);
        block.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let next = offset + block.len() as u64;
        Some((Ok(Frame::data(Bytes::from(block))), next))
    });
    let mut response = Response::new(StreamBody::new(blocks).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Block `number` of the pattern: its number in eight bytes, then bytes that count up.
///
/// No two blocks are equal, so a lost, doubled or reordered one is seen.
#[must_use]
pub fn pattern_block(number: u64) -> Vec<u8> {
    let mut block: Vec<u8> = (0..=u8::MAX).cycle().take(PATTERN_BLOCK_BYTES).collect();
    block[..8].copy_from_slice(&number.to_be_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_name_is_taken_off_the_path_once() {
        let cases = [
            ("/whoami", "/whoami"),
            ("/users/whoami", "/whoami"),
            ("/users/users/whoami", "/users/whoami"),
            ("/users", "/users"),
            ("/usersx/whoami", "/usersx/whoami"),
            ("/orders/whoami", "/orders/whoami"),
        ];
        for (path, expected) in cases {
            assert_eq!(own_path(path, "users"), expected, "{path}");
        }
    }

    #[test]
    fn numbered_paths_take_only_sensible_numbers() {
        let cases = [
            ("/status/200", Some(200)),
            ("/status/503", Some(503)),
            ("/status/101", None),
            ("/status/600", None),
            ("/status/x", None),
            ("/bytes/0", Some(200)),
            ("/bytes/-1", None),
            ("/other", None),
        ];
        for (path, expected) in cases {
            let status = answer_numbered(path).map(|response| response.status().as_u16());
            assert_eq!(status, expected, "{path}");
        }
    }

    #[tokio::test]
    async fn the_pattern_has_the_asked_length_and_no_equal_blocks() {
        let length = PATTERN_BLOCK_BYTES as u64 + 3;
        let body = pattern(length)
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(body.len() as u64, length);
        assert_eq!(body[..PATTERN_BLOCK_BYTES], pattern_block(0));
        assert_eq!(body[PATTERN_BLOCK_BYTES..], pattern_block(1)[..3]);
        assert_ne!(pattern_block(0), pattern_block(1));
    }
}
