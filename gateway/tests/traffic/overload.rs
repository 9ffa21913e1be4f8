//! More requests than a service or a route may have in flight: who waits, who is refused, who is
//! served all the same.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::support::client::{self, Answer, read_until};
use crate::support::eventually;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

/// Three routes by priority to one service, and one that is limited itself.
fn by_priority(endpoints: &[SocketAddr], concurrency: &str) -> String {
    let concurrency = format!("concurrency = {{ {concurrency} }}");
    [
        service("app", endpoints, &concurrency),
        service("free", endpoints, ""),
        route("all", "/{*rest}", "app", ""),
        route("batch", "/batch/{*rest}", "app", "priority = \"sheddable\""),
        route("pay", "/pay/{*rest}", "app", "priority = \"critical\""),
        route("few", "/few/{*rest}", "free", "in_flight_max = 1"),
    ]
    .concat()
}

/// Sends `GET path` and lets it be.
fn sent(gateway: &Gateway, path: &'static str) -> JoinHandle<Answer> {
    let address = gateway.address();
    tokio::spawn(async move { client::get(address, path).await })
}

/// Lets go on what hangs in `/hold`.
async fn served(origin: &Origin, held: impl IntoIterator<Item = JoinHandle<Answer>>) {
    let held: Vec<_> = held.into_iter().collect();
    // Which of them goes on with which release is not known.
    held.iter().for_each(|_| origin.release());
    for one in held {
        assert_eq!(one.await.unwrap().status, 200);
    }
}

async fn level(gateway: &Gateway, what: &str, expected: f64) {
    let series = format!("weir_gateway_concurrency_{what}{{kind=\"service\",name=\"app\"}}");
    eventually(&format!("{what} is {expected}"), async || {
        let found = gateway.metric(&series).await;
        ((found - expected).abs() < 0.1).then_some(())
    })
    .await;
}

async fn refused(gateway: &Gateway, priority: &str, reason: &str) -> f64 {
    let labels =
        format!("kind=\"service\",name=\"app\",priority=\"{priority}\",reason=\"{reason}\"");
    let series = format!("weir_gateway_concurrency_refused_total{{{labels}}}");
    gateway.metric(&series).await
}

fn is_refused(answer: &Answer, reason: &str) {
    assert_eq!(answer.refusal(), (503, reason.to_owned()));
    let after: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
}

/// Of two requests of one class there is room in the queue for one, which is returned. A queue that
/// has stood for a tenth of a second, as it may on a machine under load, serves the last come first.
async fn one_is_refused(
    waiting: JoinHandle<Answer>,
    late: JoinHandle<Answer>,
) -> JoinHandle<Answer> {
    match select(waiting, late).await {
        Either::Left((displaced, late)) => {
            is_refused(&displaced.unwrap(), "queue-displaced");
            late
        }
        Either::Right((late, waiting)) => {
            is_refused(&late.unwrap(), "service-busy");
            waiting
        }
    }
}

#[tokio::test]
async fn at_the_limit_of_a_service_and_one_over() {
    let origin = Origin::start("one").await;
    let concurrency = "in_flight_max = 2, queue_max = 0";
    let gateway = Gateway::start(&by_priority(&[origin.address], concurrency)).await;
    let held = [sent(&gateway, "/hold"), sent(&gateway, "/hold")];
    origin.holds(2).await;
    // The limit is one of all workers: whichever takes the connection refuses.
    for _ in 0..4 {
        is_refused(&client::get(gateway.address(), "/").await, "service-busy");
    }
    assert_eq!(origin.requests(), 2);
    assert!((refused(&gateway, "default", "full").await - 4.0).abs() < 0.1);
    assert_eq!(gateway.logged("/").await["reason"], "service-busy");
    // Another service is not concerned.
    assert_eq!(client::get(gateway.address(), "/few/x").await.status, 200);

    served(&origin, held).await;
    level(&gateway, "in_flight", 0.0).await;
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);
}

#[tokio::test]
async fn at_the_limit_of_a_route_and_one_over() {
    let origin = Origin::start("one").await;
    let concurrency = "in_flight_max = 9";
    let gateway = Gateway::start(&by_priority(&[origin.address], concurrency)).await;
    let held = sent(&gateway, "/few/hold");
    // The path is not `/hold`: it is answered at once, so the place is free again.
    assert_eq!(held.await.unwrap().status, 200);
    let text = format!(
        "{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", "in_flight_max = 1")
    );
    let gateway = Gateway::start(&text).await;
    let held = sent(&gateway, "/hold");
    origin.holds(1).await;
    is_refused(&client::get(gateway.address(), "/").await, "route-busy");
    origin.release();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);
}

#[tokio::test]
async fn a_sender_at_its_limit_and_one_over() {
    let origin = Origin::start("one").await;
    let text = [
        "[concurrency.per-tenant]\nin_flight_max = 1\nkey = \"header.x-tenant\"\n".to_owned(),
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", "use = [\"per-tenant\"]"),
    ];
    let gateway = Gateway::start(&text.concat()).await;
    let of = async |tenant: &str, path: &str| {
        let request = client::request(path).header("x-tenant", tenant);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        client::send(gateway.address(), request).await
    };
    let (held, ()) = tokio::join!(of("a", "/hold"), async {
        origin.holds(1).await;
        let answer = of("a", "/").await;
        assert_eq!(answer.refusal(), (429, "in-flight-limited".to_owned()));
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(of("b", "/").await.status, 200);
        origin.release();
    });
    assert_eq!(held.status, 200);
    let keys = "weir_gateway_in_flight_limit_keys{limit=\"per-tenant\"}";
    eventually("nobody is counted", async || {
        (gateway.metric(keys).await < 0.5).then_some(())
    })
    .await;
    assert_eq!(of("a", "/").await.status, 200);
    let limited = "weir_gateway_in_flight_limit_total{limit=\"per-tenant\",result=\"limited\"}";
    assert!((gateway.metric(limited).await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn who_waits_is_served_when_there_is_room_or_refused_in_time() {
    let origin = Origin::start("one").await;
    let concurrency = "in_flight_max = 1, queue_max = 1, queue_timeout = \"60s\"";
    let gateway = Gateway::start(&by_priority(&[origin.address], concurrency)).await;
    let held = sent(&gateway, "/hold");
    origin.holds(1).await;
    let waiting = sent(&gateway, "/waits");
    level(&gateway, "waiting", 1.0).await;
    let waiting = one_is_refused(waiting, sent(&gateway, "/late")).await;
    assert_eq!(origin.requests(), 1);
    origin.release();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(waiting.await.unwrap().status, 200);
    let series = "weir_gateway_concurrency_queued_total{kind=\"service\",name=\"app\"}";
    assert!((gateway.metric(series).await - 1.0).abs() < 0.1);

    let concurrency = "in_flight_max = 1, queue_max = 1, queue_timeout = \"100ms\"";
    let gateway = Gateway::start(&by_priority(&[origin.address], concurrency)).await;
    let held = sent(&gateway, "/hold");
    origin.holds(2).await;
    is_refused(&client::get(gateway.address(), "/").await, "queue-timeout");
    assert!((refused(&gateway, "default", "timeout").await - 1.0).abs() < 0.1);
    origin.release();
    assert_eq!(held.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_leaves_nothing_behind() {
    let origin = Origin::start("one").await;
    let concurrency = "in_flight_max = 1, queue_max = 1, queue_timeout = \"60s\"";
    let gateway = Gateway::start(&by_priority(&[origin.address], concurrency)).await;
    let held = sent(&gateway, "/hold");
    origin.holds(1).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let head = b"GET /leaves HTTP/1.1\r\nhost: test\r\n\r\n";
    stream.write_all(head).await.unwrap();
    level(&gateway, "waiting", 1.0).await;
    drop(stream);
    level(&gateway, "waiting", 0.0).await;
    origin.release();
    assert_eq!(held.await.unwrap().status, 200);
    level(&gateway, "in_flight", 0.0).await;
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_critical_request_takes_the_room_of_one_that_matters_less() {
    let origin = Origin::start("one").await;
    let concurrency = "in_flight_max = 1, queue_max = 1, queue_timeout = \"60s\"";
    let gateway = Gateway::start(&by_priority(&[origin.address], concurrency)).await;
    let held = sent(&gateway, "/hold");
    origin.holds(1).await;
    let batch = sent(&gateway, "/batch/x");
    level(&gateway, "waiting", 1.0).await;
    let pay = sent(&gateway, "/pay/x");
    is_refused(&batch.await.unwrap(), "queue-displaced");
    assert!((refused(&gateway, "sheddable", "displaced").await - 1.0).abs() < 0.1);
    // Nobody displaces a critical one but another.
    let batch = sent(&gateway, "/batch/y");
    is_refused(&batch.await.unwrap(), "service-busy");
    let pay = one_is_refused(pay, sent(&gateway, "/pay/y")).await;
    origin.release();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(pay.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_trusted_proxy_says_which_requests_are_critical() {
    let origin = Origin::start("one").await;
    let text = |trusted: &str| {
        format!(
            "[listeners.public]\nbind = \"127.0.0.1:0\"\n{trusted}\n[admin]\nbind = \"127.0.0.1:0\"\n{}{}",
            service(
                "app",
                &[origin.address],
                "concurrency = { in_flight_max = 5, queue_max = 0 }"
            ),
            route(
                "all",
                "/{*rest}",
                "app",
                "priority = \"sheddable\"\npriority_by = { from = \"header.x-priority\" }"
            ),
        )
    };
    // Sheddable requests may take up four of five places: the fifth is for others.
    for (trusted, expected) in [("trusted_proxies = [\"127.0.0.1\"]", 200), ("", 503)] {
        let gateway = Gateway::start_with(&text(trusted), &[]).await;
        let before = origin.requests();
        let held: Vec<_> = (0..4).map(|_| sent(&gateway, "/hold")).collect();
        eventually("four are held", async || {
            (origin.requests() == before + 4).then_some(())
        })
        .await;
        is_refused(&client::get(gateway.address(), "/").await, "service-busy");
        let request = client::request("/").header("x-priority", "critical");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = client::send(gateway.address(), request).await;
        assert_eq!(answer.status.as_u16(), expected, "{trusted}");
        served(&origin, held).await;
    }
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_place() {
    let origin = Origin::start("one").await;
    let concurrency = "in_flight_max = 1, queue_max = 0";
    let gateway = Gateway::start(&by_priority(&[origin.address], concurrency)).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let ask =
        b"GET /upgrade HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    is_refused(&client::get(gateway.address(), "/").await, "service-busy");
    drop(stream);
    level(&gateway, "in_flight", 0.0).await;
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);

    // But not that of an adaptive limit: a few of them would take it up for good.
    let concurrency =
        "adaptive = true, in_flight_max = 1, in_flight_min = 1, in_flight_start = 1, queue_max = 0";
    let gateway = Gateway::start(&by_priority(&[origin.address], concurrency)).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(ask).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    // While it waits for its answer, a request does have the place.
    let held = sent(&gateway, "/hold");
    origin.holds(1).await;
    is_refused(&client::get(gateway.address(), "/").await, "service-busy");
    served(&origin, [held]).await;
}

/// An instance that works on `at_a_time` requests, `work` long each; others wait inside. Returns
/// the most that were ever inside since the last look.
struct Slow {
    address: SocketAddr,
    inside_max: Arc<AtomicUsize>,
}

impl Slow {
    async fn start(at_a_time: usize, work: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let servers = Arc::new(Semaphore::new(at_a_time));
        let inside = Arc::new(AtomicUsize::new(0));
        let inside_max = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&inside_max);
        let handle = move |_: Request<hyper::body::Incoming>| {
            let (servers, inside) = (Arc::clone(&servers), Arc::clone(&inside));
            let seen = Arc::clone(&seen);
            async move {
                let count = inside.fetch_add(1, Ordering::SeqCst) + 1;
                seen.fetch_max(count, Ordering::SeqCst);
                let server = servers.acquire().await.unwrap();
                tokio::time::sleep(work).await;
                drop(server);
                inside.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
            }
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(handle.clone());
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(served);
            }
        });
        Self {
            address,
            inside_max,
        }
    }
}

/// Sends requests to `path` one after the other until `count` were answered; counts the answers
/// by status and reason.
async fn crowd(address: SocketAddr, path: &'static str, count: usize) -> BTreeMap<String, usize> {
    let mut sender = client::connect::<Empty<Bytes>>(address).await.unwrap();
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let request = client::request(path).body(Empty::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let answer = Answer::read(answer).await.unwrap();
        let name = if answer.status == 200 {
            "200".to_owned()
        } else {
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
            // As a client would: it does not come back at once.
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer.refusal().1
        };
        *answers.entry(name).or_insert(0) += 1;
    }
    answers
}

#[tokio::test]
async fn an_adaptive_limit_is_found_and_what_is_critical_gets_through() {
    const AT_A_TIME: usize = 8;
    let slow = Slow::start(AT_A_TIME, Duration::from_millis(20)).await;
    let concurrency = "adaptive = true, queue_max = 16, queue_timeout = \"5s\"";
    let gateway = Gateway::start(&by_priority(&[slow.address], concurrency)).await;
    let address = gateway.address();

    // At first there is room for all, and the latency without load is seen.
    let calm = crowd(address, "/", 60).await;
    assert_eq!(calm, [("200".to_owned(), 60)].into());

    // Then ten times as many as the instance can work on want to be served at a time.
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..80 {
        let path = if index % 2 == 0 { "/batch/x" } else { "/x" };
        tasks.spawn(async move { (path, crowd(address, path, 60).await) });
    }
    let pay = crowd(address, "/pay/x", 60).await;
    assert_eq!(pay, [("200".to_owned(), 60)].into(), "all critical ones");
    // By now the limit has settled: from here on no more than it are ever inside.
    slow.inside_max.store(0, Ordering::SeqCst);
    let series = "weir_gateway_concurrency_limit{kind=\"service\",name=\"app\"}";
    let limit = gateway.metric(series).await;
    assert!((3.0..=4.0 * AT_A_TIME as f64).contains(&limit), "{limit}");

    let mut totals: BTreeMap<(&str, String), usize> = BTreeMap::new();
    while let Some(ended) = tasks.join_next().await {
        let (path, answers) = ended.unwrap();
        for (name, count) in answers {
            *totals.entry((path, name)).or_insert(0) += count;
        }
    }
    let inside = slow.inside_max.load(Ordering::SeqCst);
    assert!(inside <= 5 * AT_A_TIME, "{inside} inside");
    let count = |path, name: &str| totals.get(&(path, name.to_owned())).copied().unwrap_or(0);
    // Some of each kind were served, most of them those that matter more.
    assert!(count("/x", "200") > count("/batch/x", "200"), "{totals:?}");
    let shed = count("/batch/x", "service-busy") + count("/batch/x", "queue-displaced");
    assert!(shed > 0, "{totals:?}");
    let known = ["200", "service-busy", "queue-displaced", "queue-timeout"];
    assert!(
        totals
            .keys()
            .all(|(_, name)| known.contains(&name.as_str())),
        "{totals:?}"
    );
    level(&gateway, "in_flight", 0.0).await;
    level(&gateway, "waiting", 0.0).await;
}
