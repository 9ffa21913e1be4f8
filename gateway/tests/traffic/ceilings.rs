//! What the process itself runs short of: memory, descriptors, time. It refuses, and recovers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::client::{self, Answer, read_to_end, read_until};
use crate::support::eventually;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

const MIB: u64 = 1 << 20;

/// What the gateway's own answers for the route carry, too.
const ROUTE: &str = "timeout = \"60s\"\ncors = { origins = [\"https://a.test\"] }\n\
    response_headers = { set = { x-route = \"{route}\" } }";

fn configuration(server: &str, overload: &str, endpoint: SocketAddr) -> String {
    format!(
        "[server]\nworkers = 1\n{server}\n[overload]\n{overload}\n\
         [listeners.public]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [access_log]\nto = \"off\"\n{}{}{}",
        service("app", &[endpoint], ""),
        route("all", "/{*rest}", "app", ROUTE),
        route("batch", "/batch", "app", "priority = \"sheddable\""),
    )
}

async fn stage(gateway: &Gateway) -> f64 {
    gateway.metric("weir_gateway_overload_stage").await
}

async fn turned(gateway: &Gateway, result: &str) -> f64 {
    let series = format!("weir_gateway_overload_connections_total{{result=\"{result}\"}}");
    gateway.metric(&series).await
}

/// A client that uploads a megabyte to a service that has no place for its requests. As they wait
/// for one, what the client may send ahead stays in the gateway's memory.
struct Uploads {
    _tasks: JoinSet<()>,
}

impl Uploads {
    async fn start(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        let io = TokioIo::new(stream);
        let mut tasks = JoinSet::new();
        let handshake = http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io);
        let (sender, connection) = handshake.await.ok()?;
        tasks.spawn(async move {
            // Ends with the client, or when the gateway cuts it.
            let _ = connection.await;
        });
        for _ in 0..8 {
            let mut sender = sender.clone();
            let request = Request::post("http://test/queue");
            let request = request.body(Full::from(vec![0; 128 << 10])).unwrap();
            tasks.spawn(async move {
                // Nobody is interested in the answer.
                let _ = sender.send_request(request).await;
            });
        }
        Some(Self { _tasks: tasks })
    }
}

/// The answer to a request of the default class, if there is one.
async fn answer(gateway: &Gateway) -> Option<Answer> {
    let request = client::request("/").header("origin", "https://a.test");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    client::try_send(gateway.address(), request).await.ok()
}

#[tokio::test]
async fn at_the_memory_ceiling_requests_are_refused_and_later_served_again() {
    const CEILING: u64 = 64 * MIB;
    let origin = Origin::start("one").await;
    let concurrency =
        "concurrency = { in_flight_max = 1, queue_max = 9999, queue_timeout = \"5m\" }";
    let text = configuration("", "memory_max = \"64MiB\"", origin.address)
        + &service("slow", &[origin.address], concurrency)
        + &route("queue", "/queue", "slow", "")
        + &route("hold", "/hold", "slow", "");
    let mut gateway = Gateway::start_with(&text, &[]).await;
    let address = gateway.address();
    let held = tokio::spawn(async move { client::get(address, "/hold").await });
    origin.holds(1).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    let get = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    idle.write_all(get).await.unwrap();
    read_until(&mut idle, "}").await;

    // Until requests of the default class are refused.
    let mut uploads = Vec::new();
    let refusal = eventually("no room for another", async || {
        uploads.extend(Uploads::start(address).await);
        answer(&gateway).await.filter(|answer| answer.status != 200)
    })
    .await;
    assert_eq!(refusal.refusal(), (503, "memory-short".to_owned()));
    assert_eq!(refusal.header("retry-after"), "5");
    // A page of that site may read why.
    let allowed = refusal.header("access-control-allow-origin");
    assert_eq!(
        (allowed, refusal.header("x-route")),
        ("https://a.test", "all")
    );
    assert_eq!(refusal.header("connection"), "close");
    let shed = "weir_gateway_overload_refused_total{reason=\"memory-short\",priority=\"default\"}";
    assert!(gateway.metric(shed).await > 0.5);
    // The connection without a request was closed long before.
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(turned(&gateway, "closed-idle").await > 0.5);

    // Whatever still comes does not lift memory over the ceiling by much: readings are 100 ms
    // apart, and what is sent ahead in between is not seen by the last one.
    for _ in 0..100 {
        uploads.extend(Uploads::start(address).await);
    }
    let peak = gateway.memory_peak();
    assert!(peak < CEILING + 16 * MIB, "{peak}");
    assert!(gateway.says("memory runs short").await);

    // Room again, though no client has left: what waited was refused.
    eventually("room again", async || {
        answer(&gateway).await.filter(|answer| answer.status == 200)
    })
    .await;
    eventually("all is normal", async || {
        (stage(&gateway).await < 0.5).then_some(())
    })
    .await;
    assert!(gateway.says("memory is less short").await);
    let waited = "weir_gateway_concurrency_refused_total{kind=\"service\",name=\"slow\",priority=\"default\",reason=\"memory\"}";
    assert!(gateway.metric(waited).await > 0.5);
    drop(uploads);
    // What was under way all the time may have been cut, but has not hung.
    origin.release();
    let _ = held.await;
}

#[tokio::test]
async fn without_a_ceiling_memory_is_not_looked_at() {
    let origin = Origin::start("one").await;
    let text = configuration("", "", origin.address);
    let gateway = Gateway::start_with(&text, &[]).await;
    let memory = gateway.metric("weir_gateway_overload_memory_bytes").await;
    assert!(memory.abs() < 0.1, "{memory}");
    assert!(stage(&gateway).await.abs() < 0.1);
}

#[tokio::test]
async fn the_last_descriptors_are_for_instances() {
    let origin = Origin::start("one").await;
    let text = configuration("", "descriptors_reserve_percent = 25", origin.address);
    let gateway = Gateway::start_limited(&text, 100).await;
    let mut first = TcpStream::connect(gateway.address()).await.unwrap();
    // More than the 75 that clients may have.
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    let last = crowd.last_mut().unwrap();
    assert_eq!(read_to_end(last).await, "", "closed at once");
    let refused = turned(&gateway, "refused-descriptors").await;
    assert!((25.0..=60.0).contains(&refused), "{refused}");

    // Who is connected is served: there are descriptors for connections to the instance.
    first
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    let served = read_until(&mut first, "}").await;
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");

    drop(crowd);
    eventually("room again", async || {
        answer(&gateway).await.filter(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn an_instance_is_not_blamed_for_a_want_of_descriptors() {
    let origin = Origin::start("one").await;
    let text = configuration("", "descriptors_reserve_percent = 0", origin.address);
    let gateway = Gateway::start_limited(&text, 64).await;
    let mut first = TcpStream::connect(gateway.address()).await.unwrap();
    first
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut first, "}").await;
    let mut crowd = Vec::new();
    for _ in 0..64 {
        crowd.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    // Two requests need two connections to the instance, and there is one.
    let hang = b"GET /hang HTTP/1.1\r\nhost: test\r\n\r\n";
    crowd[0].write_all(hang).await.unwrap();
    origin.holds(1).await;
    first
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    let refusal = read_until(&mut first, "}").await;
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    assert!(refusal.contains("\"no-descriptor\""), "{refusal}");
    drop(crowd);
    let health = format!(
        "weir_gateway_instance_suspect{{service=\"app\",instance=\"{}\"}}",
        origin.address
    );
    eventually("there are descriptors again", async || {
        answer(&gateway).await.filter(|answer| answer.status == 200)
    })
    .await;
    assert!(gateway.metric(&health).await.abs() < 0.1);
}

#[tokio::test]
async fn a_late_event_loop_sheds_as_soon_and_as_long_as_that_is_configured() {
    let origin = Origin::start("one").await;
    let calm = configuration("", "", origin.address);
    let gateway = Gateway::start_with(&calm, &[]).await;
    assert_eq!(client::get(gateway.address(), "/batch").await.status, 200);
    // Timers have a resolution of a millisecond, so every tick is later than this.
    let strict = configuration("", "lag_max = \"1us\"", origin.address);
    std::fs::write(gateway.file("gateway.toml"), strict).unwrap();
    gateway.signal("-HUP").await;
    let refusal = eventually("the loop is late", async || {
        let answer = client::get(gateway.address(), "/batch").await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(refusal.refusal(), (503, "gateway-busy".to_owned()));
    assert_eq!(refusal.header("retry-after"), "1");
    let shed =
        "weir_gateway_overload_refused_total{reason=\"gateway-busy\",priority=\"sheddable\"}";
    assert!(gateway.metric(shed).await > 0.5);
    let lag = gateway
        .metric("weir_gateway_overload_loop_lag_seconds{worker=\"0\"}")
        .await;
    assert!(lag < Duration::from_secs(60).as_secs_f64(), "{lag}");

    std::fs::write(gateway.file("gateway.toml"), calm).unwrap();
    gateway.signal("-HUP").await;
    eventually("no limit, no refusals", async || {
        let answer = client::get(gateway.address(), "/batch").await;
        (answer.status == 200).then_some(())
    })
    .await;
}
