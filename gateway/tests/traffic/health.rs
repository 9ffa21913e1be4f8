//! Which instances are used: active checks, ejection of outliers, and the circuit breaker.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::hostile::{Connection, Hostile};
use crate::support::origin::{self, Origin};

const CHECKS: &str = "every = \"200ms\", timeout = \"200ms\", fall = 2, rise = 1";

fn healthy(address: SocketAddr) -> String {
    format!("weir_gateway_instance_healthy{{service=\"app\",instance=\"{address}\"}}")
}

/// An instance that answers with the status it is told to.
async fn moody(status: &Arc<AtomicU16>) -> Hostile {
    let status = Arc::clone(status);
    Hostile::start(move |mut connection: Connection| {
        let status = Arc::clone(&status);
        async move {
            while connection.request().await.is_some() {
                let status = status.load(Ordering::Relaxed);
                let answer = format!("HTTP/1.1 {status} Hm\r\nContent-Length: 2\r\n\r\nhm");
                if !connection.write(answer.as_bytes()).await {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn health_checks_take_instances_out_and_in() {
    let (origin, other) = (Origin::start("one").await, Origin::start("two").await);
    let status = Arc::new(AtomicU16::new(500));
    let bad = moody(&status).await;
    // Nobody hangs here, so a check that is late says only that the machine is busy.
    let health =
        "health = { path = \"/healthz\", every = \"1s\", timeout = \"1s\", fall = 2, rise = 1 }";
    let endpoints = [origin.address, other.address, bad.address];
    let gateway = Gateway::in_front_of_with(&endpoints, health, "").await;
    eventually("the failing instance is out", async || {
        (gateway.metric(&healthy(bad.address)).await < 0.5).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    }
    status.store(204, Ordering::Relaxed);
    eventually("it is in again", async || {
        (gateway.metric(&healthy(bad.address)).await > 0.5).then_some(())
    })
    .await;

    status.store(500, Ordering::Relaxed);
    origin.stop();
    other.stop();
    eventually("all instances are out", async || {
        let answer = client::get(gateway.address(), "/").await;
        let reason = ("no-instance".to_owned(), 503);
        (answer.status == 503 && answer.refusal() == (reason.1, reason.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_type_of_check_finds_out_who_is_down() {
    // The check; whether it passes an instance that speaks HTTP well, and one that only listens.
    let table = [
        ("type = \"tcp\"", true, true),
        ("path = \"/\"", true, false),
        ("path = \"/\", statuses = [201]", false, false),
        ("path = \"/\", body = \"instance\"", true, false),
        ("path = \"/\", body = \"elephant\"", false, false),
        ("type = \"grpc\"", false, false),
    ];
    for (check, speaks, listens) in table {
        let origin = Origin::start("one").await;
        let silent = Hostile::start(|connection: Connection| async move {
            connection.end(crate::support::hostile::End::Hang).await;
        })
        .await;
        let nobody = origin::nobody();
        let health = format!("health = {{ {check}, {CHECKS} }}");
        let endpoints = [origin.address, silent.address, nobody];
        let gateway = Gateway::in_front_of_with(&endpoints, &health, "").await;
        eventually(&format!("{check}: who is not there is out"), async || {
            (gateway.metric(&healthy(nobody)).await < 0.5).then_some(())
        })
        .await;
        for (address, passes) in [(origin.address, speaks), (silent.address, listens)] {
            let what = format!("{check}: {address} passes: {passes}");
            eventually(&what, async || {
                let healthy = gateway.metric(&healthy(address)).await > 0.5;
                (healthy == passes).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_check_may_go_to_another_port() {
    let (origin, checked) = (Origin::start("one").await, Origin::start("checked").await);
    let port = checked.address.port();
    let health = format!("health = {{ path = \"/\", port = {port}, {CHECKS} }}");
    let gateway = Gateway::in_front_of_with(&[origin.address], &health, "").await;
    eventually("it was asked", async || {
        (checked.requests() > 0).then_some(())
    })
    .await;
    assert_eq!(origin.requests(), 0);
    checked.stop();
    eventually("the instance is out", async || {
        let answer = client::get(gateway.address(), "/").await;
        (answer.status == 503).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_outlier_is_ejected() {
    let origin = Origin::start("good").await;
    let bad = moody(&Arc::new(AtomicU16::new(502))).await;
    let outlier =
        "outlier = { consecutive_failures = 3, ejection = \"1h\", ejection_max = \"1h\" }";
    let endpoints = [bad.address, origin.address];
    let gateway = Gateway::in_front_of_with(&endpoints, outlier, "").await;
    for _ in 0..40 {
        client::get(gateway.address(), "/").await;
    }
    assert_eq!(bad.requests(), 3, "and not once more");
    let of_bad = format!("{{service=\"app\",instance=\"{}\"}}", bad.address);
    let ejected = format!("weir_gateway_instance_ejected{of_bad}");
    assert_eq!(gateway.metric(&ejected).await, 1.0);
}

#[tokio::test]
async fn an_ejected_instance_comes_back() {
    let origin = Origin::start("good").await;
    // Fails three times. From the last of these to the next request its ejection passes.
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&arrivals);
    let bad = Hostile::start(move |mut connection: Connection| {
        let seen = Arc::clone(&seen);
        async move {
            while connection.request().await.is_some() {
                let count = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(Instant::now());
                    seen.len()
                };
                let status = if count <= 3 { 502 } else { 200 };
                let answer = format!("HTTP/1.1 {status} Hm\r\nContent-Length: 2\r\n\r\nhm");
                if !connection.write(answer.as_bytes()).await {
                    return;
                }
            }
        }
    })
    .await;
    let outlier = "outlier = { consecutive_failures = 3, ejection = \"1s\" }";
    let endpoints = [bad.address, origin.address];
    let gateway = Gateway::in_front_of_with(&endpoints, outlier, "").await;
    eventually("it is used again", async || {
        client::get(gateway.address(), "/").await;
        (bad.requests() > 3).then_some(())
    })
    .await;
    let rest = {
        let arrivals = arrivals.lock().unwrap();
        arrivals[3] - arrivals[2]
    };
    assert!(rest >= Duration::from_secs(1), "{rest:?}");
    let of_bad = format!("{{service=\"app\",instance=\"{}\"}}", bad.address);
    let ejected = format!("weir_gateway_instance_ejected{of_bad}");
    assert_eq!(gateway.metric(&ejected).await, 0.0);
    let ejections = format!("weir_gateway_instance_ejections_total{of_bad}");
    assert_eq!(gateway.metric(&ejections).await, 1.0);
    for _ in 0..10 {
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    }
}

#[tokio::test]
async fn the_last_instance_is_never_ejected() {
    let status = Arc::new(AtomicU16::new(503));
    let (one, two) = (moody(&status).await, moody(&status).await);
    let outlier = "outlier = { consecutive_failures = 1, ejected_percent_max = 100 }";
    let endpoints = [one.address, two.address];
    let gateway = Gateway::in_front_of_with(&endpoints, outlier, "").await;
    for _ in 0..20 {
        let answer = client::get(gateway.address(), "/").await;
        assert_eq!(answer.text(), "hm", "an answer of an instance");
    }
    assert_eq!(one.requests() + two.requests(), 20);
    assert_eq!(one.requests().min(two.requests()), 1, "one of them is out");
}

#[tokio::test]
async fn time_outs_eject_too() {
    let hangs = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&hangs);
    let slow = Hostile::start(move |mut connection: Connection| {
        let hangs = Arc::clone(&told);
        async move {
            while connection.request().await.is_some() {
                if hangs.load(Ordering::Relaxed) {
                    return std::future::pending().await;
                }
                connection.answer("ok").await;
            }
        }
    })
    .await;
    let origin = Origin::start("good").await;
    let outlier =
        "outlier = { consecutive_failures = 2, ejection = \"1h\", ejection_max = \"1h\" }";
    let endpoints = [slow.address, origin.address];
    // Far more than the good one takes on a machine under load.
    let of_route = "timeout = \"2s\"";
    let gateway = Gateway::in_front_of_with(&endpoints, outlier, of_route).await;
    let mut timeouts = 0;
    for _ in 0..12 {
        let answer = client::get(gateway.address(), "/").await;
        if answer.status != 200 {
            assert_eq!(answer.refusal(), (504, "upstream-timeout".to_owned()));
            timeouts += 1;
        }
    }
    assert_eq!((timeouts, slow.requests()), (2, 2));
}

const OPEN: &str = "weir_gateway_circuit_open{service=\"app\"}";

#[tokio::test]
async fn a_breaker_opens() {
    let instance = moody(&Arc::new(AtomicU16::new(500))).await;
    let breaker = "breaker = { requests_min = 5, open = \"1h\", probes = 2 }";
    let gateway = Gateway::in_front_of_with(&[instance.address], breaker, "").await;
    for _ in 0..5 {
        assert_eq!(client::get(gateway.address(), "/").await.text(), "hm");
    }
    for _ in 0..5 {
        let answer = client::get(gateway.address(), "/").await;
        assert_eq!(answer.refusal(), (503, "circuit-open".to_owned()));
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=3600).contains(&seconds), "{seconds}");
    }
    assert_eq!(instance.requests(), 5, "it is given a rest");
    assert_eq!(gateway.metric(OPEN).await, 1.0);
}

#[tokio::test]
async fn an_open_breaker_lets_probes_through_and_closes() {
    let status = Arc::new(AtomicU16::new(500));
    let instance = moody(&status).await;
    let breaker = "breaker = { requests_min = 5, open = \"1s\", probes = 2 }";
    let gateway = Gateway::in_front_of_with(&[instance.address], breaker, "").await;
    for _ in 0..5 {
        assert_eq!(client::get(gateway.address(), "/").await.text(), "hm");
    }
    status.store(200, Ordering::Relaxed);
    eventually("it is probed and closes", async || {
        client::get(gateway.address(), "/").await;
        (instance.requests() >= 7).then_some(())
    })
    .await;
    for _ in 0..20 {
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    }
    assert_eq!(gateway.metric(OPEN).await, 0.0);
}
