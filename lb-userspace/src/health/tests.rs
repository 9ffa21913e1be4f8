//! Probes against real sockets on the loopback interface, and the life of targets.
//!
//! Nothing here waits for a time to pass: each test waits for an event, or for the server to have
//! been asked, and gives up after `PATIENCE`.

use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a test server answers with.
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

async fn soon<T>(future: impl Future<Output = T>) -> T {
    time::timeout(PATIENCE, future)
        .await
        .expect("it should have happened by now")
}

fn check(probe: Probe) -> HealthCheck {
    let timeout = Duration::from_secs(5);
    HealthCheck {
        probe,
        port: 1,
        every: Duration::from_millis(10),
        timeout,
        fall: 2,
        rise: 2,
    }
}

fn http(path: &str) -> Probe {
    Probe::Http {
        path: path.to_owned(),
        host: None,
        status: 200..=299,
    }
}

fn target(backend: &str, address: SocketAddr, check: HealthCheck) -> Target {
    Target {
        vip: "web".to_owned(),
        backend: backend.to_owned(),
        address,
        check,
    }
}

/// A server that reads a request's head and answers with the text `answer` gives for it.
async fn serve(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move { reply(stream, &*answer).await });
        }
    });
    address
}

async fn reply(mut stream: TcpStream, answer: &(dyn Fn(&str) -> String + Send + Sync)) {
    let mut head = String::new();
    while !head.contains("\r\n\r\n") {
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(n) => head.push_str(&String::from_utf8_lossy(&chunk[..n])),
        }
    }
    let _ = stream.write_all(answer(&head).as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// An address that refuses connections for as long as the tests run: its port is taken, and nobody
/// listens.
fn nobody() -> SocketAddr {
    static PORTS: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let port = TcpSocket::new_v4().unwrap();
    port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = port.local_addr().unwrap();
    PORTS.lock().unwrap().push(port);
    address
}

#[tokio::test]
async fn tcp_connects_or_says_why_not() {
    let address = serve(|_| String::new()).await;
    let answer = probe(address, &check(Probe::Tcp)).await.unwrap();
    assert_eq!(answer, Answer::Connected);

    let failure = probe(nobody(), &check(Probe::Tcp)).await.unwrap_err();
    assert!(
        failure
            .to_string()
            .starts_with("could not connect: Connection refused"),
        "{failure}"
    );
}

#[tokio::test]
async fn http_asks_as_configured() {
    let (asked, mut heads) = mpsc::channel(1);
    let address = serve(move |head| {
        asked.try_send(head.to_lowercase()).unwrap();
        OK.to_owned()
    })
    .await;
    let mut check = check(Probe::Http {
        path: "/healthz?full=1".to_owned(),
        host: Some("api.example.com".to_owned()),
        status: 200..=299,
    });
    probe(address, &check).await.unwrap();
    let head = heads.recv().await.unwrap();
    assert!(
        head.starts_with("get /healthz?full=1 http/1.1\r\n"),
        "{head}"
    );
    for line in [
        "host: api.example.com",
        "connection: close",
        "user-agent: weir-health/",
    ] {
        assert!(head.contains(&format!("\r\n{line}")), "{head}");
    }

    check.probe = http("/");
    probe(address, &check).await.unwrap();
    assert!(
        heads
            .recv()
            .await
            .unwrap()
            .contains(&format!("\r\nhost: {address}\r\n"))
    );
}

#[tokio::test]
async fn http_judges_the_answer() {
    let long_body = || format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1 << 20));
    let large_head = || format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(16 * 1024));
    let table: [(String, Result<u16, &str>); 8] = [
        (OK.to_owned(), Ok(200)),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), Ok(204)),
        (long_body(), Ok(200)),
        (
            UNAVAILABLE.to_owned(),
            Err("HTTP status 503, expected 200 to 299"),
        ),
        (
            "HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Err("HTTP status 301"),
        ),
        (large_head(), Err("no valid HTTP response: ")),
        (
            "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
            Err("no valid HTTP response: "),
        ),
        (String::new(), Err("no valid HTTP response: ")),
    ];
    for (answer, expected) in table {
        let shown: String = answer.chars().take(40).collect();
        let address = serve(move |_| answer.clone()).await;
        match (probe(address, &check(http("/"))).await, expected) {
            (Ok(Answer::Status(status)), Ok(expected)) => assert_eq!(status, expected, "{shown}"),
            (Err(failure), Err(expected)) => {
                assert!(
                    failure.to_string().starts_with(expected),
                    "{shown}: {failure}"
                );
            }
            (outcome, _) => panic!("{shown}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_promise_of_a_body_that_breaks_is_a_failure() {
    let address = serve(|_| "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx".to_owned()).await;
    let failure = probe(address, &check(http("/"))).await.unwrap_err();
    assert!(matches!(failure, Failure::Http(_)), "{failure}");
}

/// A listener whose connections nobody accepts or answers.
#[tokio::test]
async fn a_probe_that_overruns_has_failed() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut check = check(http("/"));
    check.timeout = Duration::from_millis(20);
    let failure = probe(silent.local_addr().unwrap(), &check)
        .await
        .unwrap_err();
    assert_eq!(failure.to_string(), "no answer within 20ms");
}

#[tokio::test]
async fn backends_fall_and_rise() {
    let up = Arc::new(AtomicBool::new(true));
    let health = Arc::clone(&up);
    let answer = move |_: &str| {
        if health.load(Ordering::SeqCst) {
            OK
        } else {
            UNAVAILABLE
        }
        .into()
    };
    let address = serve(answer).await;
    let (sender, mut events) = mpsc::channel(4);
    let handle = start(sender);
    handle.set_targets(vec![target("a", address, check(http("/")))]);

    let first = soon(events.recv()).await.unwrap();
    assert_eq!(
        (first.vip.as_str(), first.backend.as_str(), first.healthy),
        ("web", "a", true)
    );
    assert_eq!(first.reason, "HTTP status 200");
    up.store(false, Ordering::SeqCst);
    let second = soon(events.recv()).await.unwrap();
    assert!(!second.healthy && second.at >= first.at);
    assert!(
        second
            .reason
            .starts_with("2 failures in a row, the last: HTTP status 503")
    );
    up.store(true, Ordering::SeqCst);
    assert!(soon(events.recv()).await.unwrap().healthy);
}

#[tokio::test]
async fn the_first_probe_decides_at_once() {
    let mut slow = check(Probe::Tcp);
    slow.every = Duration::from_secs(3600);
    (slow.fall, slow.rise) = (100, 100);
    let (sender, mut events) = mpsc::channel(4);
    let handle = start(sender);
    let up = serve(|_| String::new()).await;
    handle.set_targets(vec![
        target("up", up, slow.clone()),
        target("down", nobody(), slow),
    ]);
    for _ in 0..2 {
        let event = soon(events.recv()).await.unwrap();
        assert_eq!(event.healthy, event.backend == "up");
    }
}

#[tokio::test]
async fn unchanged_targets_keep_their_state() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let address = serve(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        OK.to_owned()
    })
    .await;
    let (sender, mut events) = mpsc::channel(4);
    let handle = start(sender);
    let a = target("a", address, check(http("/")));
    handle.set_targets(vec![a.clone()]);
    assert_eq!(soon(events.recv()).await.unwrap().backend, "a");

    // Adding `b` reports `b` alone: `a` was not forgotten.
    let b = target("b", address, check(http("/")));
    handle.set_targets(vec![a.clone(), b.clone()]);
    assert_eq!(soon(events.recv()).await.unwrap().backend, "b");
    let so_far = asked.load(Ordering::SeqCst);
    soon(async {
        while asked.load(Ordering::SeqCst) < so_far + 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        events.try_recv().is_err(),
        "probing goes on, and nothing changes"
    );

    // A changed check makes `a` a new target, which is reported again.
    let mut changed = a;
    changed.check.fall = 7;
    handle.set_targets(vec![changed, b]);
    assert_eq!(soon(events.recv()).await.unwrap().backend, "a");
}

#[tokio::test]
async fn probes_end_with_their_target_and_with_the_handle() {
    let address = serve(|_| OK.to_owned()).await;
    let (sender, mut events) = mpsc::channel(4);
    let handle = start(sender.clone());
    handle.set_targets(vec![target("a", address, check(http("/")))]);
    soon(events.recv()).await.unwrap();
    // The supervisor and the target hold a sender each, beside ours.
    assert_eq!(sender.strong_count(), 3);
    handle.set_targets(Vec::new());
    soon(async {
        while sender.strong_count() > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(handle);
    soon(async {
        while sender.strong_count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn no_more_probes_than_the_limit_are_in_flight() {
    // A server that counts open connections and answers none of them until it has seen enough.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, _events) = mpsc::channel(4);
    let handle = start(sender);
    let mut patient = check(http("/"));
    patient.timeout = Duration::from_secs(3600);
    let targets = (0..PROBES_IN_FLIGHT_MAX + 50)
        .map(|i| target(&i.to_string(), address, patient.clone()))
        .collect();
    handle.set_targets(targets);
    let mut open = Vec::new();
    while open.len() < PROBES_IN_FLIGHT_MAX {
        open.push(soon(listener.accept()).await.unwrap());
    }
    // The others come only as these end.
    let another = time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(another.is_err(), "one more than {PROBES_IN_FLIGHT_MAX}");
    open.pop();
    soon(listener.accept()).await.unwrap();
}

#[tokio::test]
async fn a_failure_is_confirmed_when_another_backend_answers() {
    let (sender, mut events) = mpsc::channel(4);
    let handle = start(sender);
    let a = target("a", nobody(), check(Probe::Tcp));
    handle.set_targets(vec![a.clone()]);
    let first = soon(events.recv()).await.unwrap();
    assert!(!first.healthy && !first.confirmed, "{first:?}");
    assert!(
        first.reason.ends_with("no other backend answers either"),
        "{first:?}"
    );

    let up = serve(|_| String::new()).await;
    handle.set_targets(vec![a, target("b", up, check(Probe::Tcp))]);
    soon(async {
        loop {
            let event = events.recv().await.unwrap();
            assert_eq!(event.healthy, event.backend == "b");
            if event.backend == "a" && event.confirmed {
                break;
            }
        }
    })
    .await;
}
