//! Every type of check against a small real server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ::http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::config::HealthConfig;
use crate::upstream::instance::Instance;

type Reply = Response<BoxBody<Bytes, Infallible>>;

/// A server that answers `/N` with status N, `/body` with a text, `/host` with the host it was
/// asked for, `/hang` never, and the gRPC health service by the name asked about.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(async move {
                let service = service_fn(answer);
                let builder = auto::Builder::new(LocalExecutor);
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn answer(request: Request<Incoming>) -> Result<Reply, Infallible> {
    let (head, body) = request.into_parts();
    let host = head.headers.get("host").map_or_else(
        || head.uri.host().unwrap_or_default().to_owned(),
        |host| host.to_str().unwrap().to_owned(),
    );
    Ok(match head.uri.path() {
        "/hang" => std::future::pending().await,
        "/body" => text(200, "all systems go"),
        "/long" => text(200, &("x".repeat(65_533) + "go!")),
        "/too-long" => text(200, &("x".repeat(65_534) + "go!")),
        "/host" => text(200, &host),
        "/grpc.health.v1.Health/Check" => grpc(&body.collect().await.unwrap().to_bytes()),
        path => text(path[1..].parse().unwrap(), ""),
    })
}

fn text(status: u16, body: &str) -> Reply {
    let body = Full::new(Bytes::from(body.to_owned())).boxed();
    Response::builder().status(status).body(body).unwrap()
}

/// `""` and `up` are serving, `down` is not, `odd` answers nothing, others are not found (5).
fn grpc(request: &[u8]) -> Reply {
    let message = match request.get(7..).unwrap_or_default() {
        b"" | b"up" => Some(1),
        b"down" => Some(2),
        b"odd" => Some(0),
        _ => None,
    };
    let status = if message.is_some() { "0" } else { "5" };
    let trailers =
        HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
    let message = message.map(|status| Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status])));
    let frames = message.into_iter().chain([Frame::trailers(trailers)]);
    let frames = frames.map(Ok::<_, Infallible>);
    Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed())
}

fn target(address: SocketAddr, protocol: UpstreamProtocol, check: Check) -> Target {
    let second = Duration::from_secs(60);
    Target {
        service: "app".into(),
        address,
        protocol,
        tls: None,
        check: HealthConfig {
            check,
            port: None,
            tls: None,
            every: second,
            every_unhealthy: second,
            jitter_percent: 0,
            timeout: Duration::from_secs(10),
            rise: 1,
            fall: 1,
        },
        instance: Arc::new(Instance::new(address, Instant::now(), Arc::default())),
    }
}

/// Ends the event loop's turns, as the gateway's own runtimes do before they sleep.
async fn turns() -> Infallible {
    loop {
        crate::socket::flush();
        tokio::task::yield_now().await;
    }
}

async fn outcome(target: &Target) -> String {
    let failure = tokio::select! {
        outcome = probe(target) => outcome.err(),
        never = turns() => match never {},
    };
    failure.map_or("passed".into(), |failure| failure.to_string())
}

fn get(path: &str) -> Check {
    Check::Http {
        path: path.into(),
        host: None,
        statuses: vec![200..=399],
        body: None,
    }
}

#[tokio::test]
async fn the_status_decides_over_either_protocol() {
    let table = [
        ("/200", "passed"),
        ("/204", "passed"),
        ("/302", "passed"),
        ("/400", "answered 400 Bad Request"),
        ("/503", "answered 503 Service Unavailable"),
        ("/hang", "no answer within 50ms"),
    ];
    let check = async {
        let address = server().await;
        for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
            for (path, expected) in table {
                let mut target = target(address, protocol, get(path));
                if path == "/hang" {
                    target.check.timeout = Duration::from_millis(50);
                }
                assert_eq!(outcome(&target).await, expected, "{protocol:?} {path}");
            }
        }
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test]
async fn statuses_host_and_text_are_as_configured() {
    let missing = "the expected text is not in the first 65536 bytes of the answer";
    let table = [
        ("/404", None, 404..=404, None, "passed"),
        ("/200", None, 404..=404, None, "answered 200 OK"),
        ("/body", None, 200..=200, Some("systems go"), "passed"),
        ("/body", None, 200..=200, Some("no go"), missing),
        ("/long", None, 200..=200, Some("go!"), "passed"),
        ("/too-long", None, 200..=200, Some("go!"), missing),
        (
            "/host",
            Some("a.example"),
            200..=200,
            Some("a.example"),
            "passed",
        ),
        ("/host", None, 200..=200, Some("127.0.0.1"), "passed"),
    ];
    let check = async {
        let address = server().await;
        for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
            for (path, host, statuses, body, expected) in table.clone() {
                let check = Check::Http {
                    path: path.into(),
                    host: host.map(ToOwned::to_owned),
                    statuses: vec![statuses],
                    body: body.map(ToOwned::to_owned),
                };
                let target = target(address, protocol, check);
                assert_eq!(
                    outcome(&target).await,
                    expected,
                    "{protocol:?} {path} {body:?}"
                );
            }
        }
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test]
async fn grpc_services_say_how_they_are() {
    let table = [
        ("", "passed"),
        ("up", "passed"),
        ("down", "gRPC health is NOT_SERVING"),
        ("odd", "gRPC health is UNKNOWN"),
        ("unknown", "gRPC status 5"),
    ];
    let check = async {
        let address = server().await;
        for (service, expected) in table {
            let check = Check::Grpc {
                service: service.into(),
                host: None,
            };
            let target = target(address, UpstreamProtocol::Http2, check);
            assert_eq!(outcome(&target).await, expected, "{service}");
        }
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test]
async fn an_address_nobody_listens_on_fails_every_check() {
    let at = |address| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        socket
    };
    // Without listening it keeps the port from everybody else to the end.
    let port = at(([127, 0, 0, 1], 0).into());
    let address = port.local_addr().unwrap();
    let listener = at(address).listen(1).unwrap();
    let tcp = target(address, UpstreamProtocol::Http1, Check::Tcp);
    assert_eq!(
        outcome(&tcp).await,
        "passed",
        "it listens, and more is not asked for"
    );
    drop(listener);
    for check in [Check::Tcp, get("/200")] {
        let outcome = outcome(&target(address, UpstreamProtocol::Http2, check)).await;
        assert!(outcome.starts_with("cannot connect: "), "{outcome}");
    }
}
