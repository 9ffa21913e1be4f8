//! Origin servers: small real HTTP servers that answer by path.
//!
//! | path | answer |
//! |---|---|
//! | `/sink` | `{ "bytes": N }`: how much of a body arrived |
//! | `/zeros/N` | N zero bytes, streamed |
//! | `/hang` | nothing, ever |
//! | `/hop` | hop-by-hop fields in the response |
//! | `/trailers` | a body and the trailer `x-sum` |
//! | `/upgrade` | 101 to `Upgrade: echo` or `websocket`, then every byte back |
//! | `/hold` | the answer waits for [`Origin::release`] |
//! | else | what arrived: instance, method, path, headers, body |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

type Reply = Response<BoxBody<Bytes, std::io::Error>>;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A running origin server. Its connections end when it is stopped or dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
    /// Who comes after it has stopped is refused, and finds nobody else.
    _port: TcpSocket,
}

struct Shared {
    name: String,
    requests: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    held: watch::Sender<u64>,
    released: Semaphore,
    /// Requests whose handling was given up: the gateway closed the connection.
    cancelled: watch::Sender<u64>,
}

impl Origin {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_at(name, ([127, 0, 0, 1], 0).into())
            .await
            .unwrap()
    }

    /// The same, at this address.
    pub(crate) async fn start_at(name: &str, address: SocketAddr) -> std::io::Result<Self> {
        let port = taken(address)?;
        let address = port.local_addr()?;
        let listener = taken(address)?.listen(1024)?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            held: watch::Sender::new(0),
            released: Semaphore::new(0),
            cancelled: watch::Sender::new(0),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self {
            address,
            shared,
            task,
            _port: port,
        })
    }

    /// Requests that have arrived.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections that were accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Waits until this many requests hang in `/hold`.
    pub(crate) async fn holds(&self, count: u64) {
        let mut held = self.shared.held.subscribe();
        let reached = held.wait_for(|held| *held >= count);
        tokio::time::timeout(super::PATIENCE, reached)
            .await
            .expect("requests arrive")
            .unwrap();
    }

    /// Waits until a request was given up by the gateway.
    pub(crate) async fn sees_cancellation(&self) {
        let mut cancelled = self.shared.cancelled.subscribe();
        let reached = cancelled.wait_for(|count| *count > 0);
        tokio::time::timeout(super::PATIENCE, reached)
            .await
            .expect("a cancellation")
            .unwrap();
    }

    /// Lets one request in `/hold` go on.
    pub(crate) fn release(&self) {
        self.shared.released.add_permits(1);
    }

    /// Stops listening and cuts every connection.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A socket that has this address and does not listen: as long as it lives, the kernel gives the
/// port to nobody who asks for any. Those who ask for this one by the same means may have it.
fn taken(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The address of a port on which nobody listens, and nobody will while the tests run.
pub(crate) fn nobody() -> SocketAddr {
    static PORTS: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let port = taken(([127, 0, 0, 1], 0).into()).unwrap();
    let address = port.local_addr().unwrap();
    PORTS.lock().unwrap().push(port);
    address
}

/// A server that answers every connection with these bytes once a request head has come.
pub(crate) async fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(bytes).await;
            });
        }
    });
    address
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Aborting this task drops the set, and with it every connection.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        shared.open.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(shared.answer(request).await) }
            });
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path().to_owned();
        if let Some(count) = path.strip_prefix("/zeros/") {
            return zeros(count.parse().unwrap());
        }
        match path.as_str() {
            "/sink" => sink(request.into_body()).await,
            "/hang" => self.hang().await,
            "/hop" => hop(),
            "/trailers" => trailers(),
            "/upgrade" => upgrade(request),
            "/hold" => {
                self.held.send_modify(|held| *held += 1);
                self.released.acquire().await.unwrap().forget();
                self.describe(request).await
            }
            _ => self.describe(request).await,
        }
    }

    async fn describe(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let headers: Vec<(String, String)> = head
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let (body, trailers) = match body.collect().await {
            Ok(body) => {
                let trailers = body.trailers().cloned();
                (body.to_bytes(), trailers)
            }
            Err(_) => (Bytes::new(), None),
        };
        let trailers: Vec<String> = trailers
            .iter()
            .flat_map(HeaderMap::keys)
            .map(ToString::to_string)
            .collect();
        let seen = json!({
            "instance": self.name,
            "method": head.method.as_str(),
            "uri": head.uri.to_string(),
            "version": format!("{:?}", head.version),
            "headers": headers,
            "body": String::from_utf8_lossy(&body),
            "trailers": trailers,
        });
        full(StatusCode::OK, seen.to_string())
    }

    async fn hang(&self) -> Reply {
        struct Cancelled<'s>(&'s Shared);
        impl Drop for Cancelled<'_> {
            fn drop(&mut self) {
                self.0.cancelled.send_modify(|count| *count += 1);
            }
        }
        let _cancelled = Cancelled(self);
        self.held.send_modify(|held| *held += 1);
        std::future::pending().await
    }
}

fn full(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into())
        .map_err(|never| match never {})
        .boxed();
    Response::builder().status(status).body(body).unwrap()
}

fn streamed(
    frames: impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + Send + Sync + 'static,
) -> Reply {
    Response::new(BodyExt::boxed(StreamBody::new(frames)))
}

async fn sink(mut body: Incoming) -> Reply {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    full(StatusCode::OK, json!({ "bytes": bytes }).to_string())
}

fn zeros(count: u64) -> Reply {
    let chunk = ZEROS.len() as u64;
    let sizes = (0..count.div_ceil(chunk)).map(move |index| chunk.min(count - index * chunk));
    let frames = sizes.map(|size| Ok(Frame::data(Bytes::from_static(&ZEROS[..size as usize]))));
    streamed(futures_util::stream::iter(frames))
}

fn hop() -> Reply {
    let mut response = full(StatusCode::OK, "hop");
    let fields = [
        ("connection", "x-private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("x-public", "1"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

fn trailers() -> Reply {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())]);
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"body"))),
        Ok(Frame::trailers(trailers)),
    ];
    let mut response = streamed(futures_util::stream::iter(frames));
    response
        .headers_mut()
        .insert("trailer", "x-sum".parse().unwrap());
    response
}

fn upgrade(mut request: Request<Incoming>) -> Reply {
    let protocol = request.headers().get("upgrade").cloned();
    let Some(protocol) = protocol.filter(|one| one == "echo" || one == "websocket") else {
        return full(StatusCode::UPGRADE_REQUIRED, "only echo");
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    });
    let mut response = full(StatusCode::SWITCHING_PROTOCOLS, "");
    response
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", protocol);
    response
}
