//! What is known of instances outlives a reload: health, ejections, slow starts, times to answer,
//! connections. Only what is new, or is checked in another way, begins anew. A binary upgrade keeps
//! it too, but for times to answer and connections.

use crate::support::checked::{Checked, OFTEN};
use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, route, service};
use crate::support::hostile::Hostile;

/// The configuration of one worker, with one service called `app`.
fn configuration(instances: &[&Checked], of_service: &str, of_route: &str) -> String {
    let addresses: Vec<_> = instances.iter().map(|one| one.address).collect();
    format!(
        "[server]\nworkers = 1\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\nsocket = \"gateway.sock\"\n{}{}",
        service("app", &addresses, of_service),
        route("all", "/{*rest}", "app", of_route),
    )
}

/// Puts another configuration into force; every request from then on is served by it.
async fn reload(gateway: &Gateway, configuration: &str) {
    std::fs::write(gateway.file("gateway.toml"), configuration).unwrap();
    let reloaded = gateway.command(&["reload"]).await;
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.stderr);
}

/// Sends so many requests one after the other, all of which are answered.
async fn ask(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    }
}

#[tokio::test]
async fn an_instance_known_to_be_down_gets_no_request_because_of_a_reload() {
    let (good, down) = (Checked::start("good").await, Checked::ill("down").await);
    let new = Checked::start("new").await;
    let both = [&good, &down];
    let start = configuration(&both, OFTEN, "");
    let gateway = Gateway::start_with(&start, &[]).await;
    down.is_found(&gateway, false).await;
    let before = down.requests();
    // What changes: the service around the instance, its protocol's limits, the checks themselves.
    let checks = "health = { path = \"/healthz/other\", every = \"400ms\", \
        timeout = \"400ms\", fall = 3, rise = 1 }";
    let table = [
        configuration(&both, OFTEN, "timeout = \"9s\""),
        configuration(&both, &format!("connect_timeout = \"3s\"\n{OFTEN}"), ""),
        configuration(&both, &format!("connections_max = 7\n{OFTEN}"), ""),
        configuration(&both, &format!("balance = \"least-request\"\n{OFTEN}"), ""),
        configuration(&both, &format!("balance = \"peak-ewma\"\n{OFTEN}"), ""),
        configuration(&[&new, &down, &good], OFTEN, ""),
        configuration(&both, checks, ""),
        configuration(&both, &format!("idle_timeout = \"3s\"\n{checks}"), ""),
        start,
    ];
    for round in 0..3 {
        for (number, text) in table.iter().enumerate() {
            reload(&gateway, text).await;
            ask(&gateway, 6).await;
            assert_eq!(down.requests(), before, "round {round}, reload {number}");
        }
    }
    down.set_well(true);
    down.is_found(&gateway, true).await;
    ask(&gateway, 4).await;
    assert!(down.requests() > before);
}

#[tokio::test]
async fn checks_go_on_with_the_instance_and_begin_anew_with_other_settings() {
    let (good, down) = (Checked::start("good").await, Checked::ill("down").await);
    let both = [&good, &down];
    // Nobody is asked twice within the test.
    let checks = |hours: u32| {
        let settings = "jitter_percent = 0, fall = 1, rise = 1";
        format!("health = {{ path = \"/healthz\", every = \"{hours}h\", {settings} }}")
    };
    let gateway = Gateway::start_with(&configuration(&both, &checks(1), ""), &[]).await;
    down.is_found(&gateway, false).await;
    assert_eq!(down.checks(), 1);
    for idle in 1..5 {
        let settings = format!("idle_timeout = \"{idle}s\"\n{}", checks(1));
        reload(&gateway, &configuration(&both, &settings, "")).await;
    }
    ask(&gateway, 4).await;
    assert_eq!((down.checks(), down.requests()), (1, 0));

    // Checked in another way, it is asked at once, and what it says is believed.
    down.set_well(true);
    reload(&gateway, &configuration(&both, &checks(2), "")).await;
    down.is_found(&gateway, true).await;
    assert_eq!(down.checks(), 2);

    // Not checked any more, nothing speaks against it.
    down.set_well(false);
    reload(&gateway, &configuration(&both, &checks(3), "")).await;
    down.is_found(&gateway, false).await;
    reload(&gateway, &configuration(&both, "", "")).await;
    let before = down.requests();
    ask(&gateway, 4).await;
    assert_eq!(down.requests() - before, 2);
}

#[tokio::test]
async fn a_reload_that_is_refused_changes_nothing_about_instances() {
    let (good, down) = (Checked::start("good").await, Checked::ill("down").await);
    let both = [&good, &down];
    let gateway = Gateway::start_with(&configuration(&both, OFTEN, ""), &[]).await;
    down.is_found(&gateway, false).await;
    let before = down.requests();
    // Without checks it would be used; but the address belongs to another.
    let taken = format!(
        "{}[listeners.other]\nbind = \"{}\"\n",
        configuration(&both, "", ""),
        good.address
    );
    std::fs::write(gateway.file("gateway.toml"), taken).unwrap();
    assert_ne!(gateway.command(&["reload"]).await.code, Some(0));
    ask(&gateway, 6).await;
    assert_eq!(down.requests(), before);
}

#[tokio::test]
async fn times_to_answer_and_connections_are_kept() {
    let (quick, slow) = (Checked::start("quick").await, Checked::start("slow").await);
    slow.set_slow();
    let both = [&quick, &slow];
    let balance = "balance = \"peak-ewma\"\newma_decay = \"1h\"";
    let gateway = Gateway::start_with(&configuration(&both, balance, ""), &[]).await;
    eventually("both were tried", async || {
        ask(&gateway, 1).await;
        (quick.requests() > 0 && slow.requests() > 0).then_some(())
    })
    .await;
    let (known, connections) = (slow.requests(), [quick.connections(), slow.connections()]);
    let table = [
        format!("connections_max = 9\n{balance}"),
        format!("connect_timeout = \"2s\"\nidle_timeout = \"30s\"\n{balance}"),
        "balance = \"peak-ewma\"\newma_decay = \"2h\"".to_owned(),
        balance.to_owned(),
    ];
    for settings in table {
        reload(&gateway, &configuration(&both, &settings, "")).await;
        ask(&gateway, 10).await;
        assert_eq!(slow.requests(), known, "{settings}: it is known to be slow");
    }
    let after = [quick.connections(), slow.connections()];
    assert_eq!(after, connections, "none was opened anew");
}

#[tokio::test]
async fn ejections_slow_starts_and_open_breakers_are_kept() {
    // Ejected by two failures, for an hour.
    let (good, bad) = (
        Checked::start("good").await,
        crate::support::origin::nobody(),
    );
    let outlier =
        "outlier = { consecutive_failures = 2, ejection = \"1h\", ejection_max = \"1h\" }";
    let of_bad = format!("{{service=\"app\",instance=\"{bad}\"}}");
    let ejected = format!("weir_gateway_instance_ejected{of_bad}");
    let text = |more: &str| {
        let endpoints = service("app", &[good.address, bad], &format!("{more}\n{outlier}"));
        configuration(&[&good], "", "").replace(&service("app", &[good.address], ""), &endpoints)
    };
    let gateway = Gateway::start_with(&text(""), &[]).await;
    eventually("it is ejected", async || {
        ask(&gateway, 1).await;
        (gateway.metric(&ejected).await > 0.5).then_some(())
    })
    .await;
    for idle in 1..4 {
        reload(&gateway, &text(&format!("idle_timeout = \"{idle}s\""))).await;
        assert_eq!(gateway.metric(&ejected).await, 1.0);
    }

    // A new instance takes a tenth for most of an hour, whatever else is reloaded.
    let new = Checked::start("new").await;
    let text = |instances: &[&Checked], more: &str| {
        configuration(instances, &format!("slow_start = \"10h\"\n{more}"), "")
    };
    reload(&gateway, &text(&[&good], "")).await;
    reload(&gateway, &text(&[&good, &new], "")).await;
    for idle in 1..4 {
        let before = new.requests();
        ask(&gateway, 33).await;
        // One of eleven, and one more or less for where turns begin.
        let taken = new.requests() - before;
        assert!((2..=4).contains(&taken), "{taken} of 33");
        let settings = format!("idle_timeout = \"{idle}s\"");
        reload(&gateway, &text(&[&good, &new], &settings)).await;
    }

    // A breaker that is open for an hour.
    let breaker = "breaker = { requests_min = 2, open = \"1h\" }";
    let text = |more: &str| {
        let nobody = service("app", &[bad], &format!("{more}\n{breaker}"));
        configuration(&[&good], "", "").replace(&service("app", &[good.address], ""), &nobody)
    };
    reload(&gateway, &text("")).await;
    let refusal = async || client::get(gateway.address(), "/").await.refusal().1;
    eventually("it is open", async || {
        (refusal().await == "circuit-open").then_some(())
    })
    .await;
    for idle in 1..4 {
        reload(&gateway, &text(&format!("idle_timeout = \"{idle}s\""))).await;
        assert_eq!(refusal().await, "circuit-open");
    }
}

#[tokio::test]
async fn an_instance_known_to_be_down_gets_no_request_because_of_an_upgrade() {
    let (good, down) = (Checked::start("good").await, Checked::ill("down").await);
    let checks = "health = { path = \"/healthz\", every = \"1h\", timeout = \"1h\", \
        jitter_percent = 0, fall = 1, rise = 1 }";
    let gateway = Gateway::start_with(&configuration(&[&good, &down], checks, ""), &[]).await;
    down.is_found(&gateway, false).await;
    let before = down.requests();
    // From here on no check of it comes to an end.
    down.set_silent(true);
    let mut last = None;
    for round in 1..4 {
        last = Some(gateway.upgrade().await);
        ask(&gateway, 20).await;
        assert_eq!(down.requests(), before, "upgrade {round}");
    }
    // The new processes ask by themselves, and believe what they hear.
    down.set_well(true);
    down.set_silent(false);
    down.is_found(&gateway, true).await;
    assert!(down.checks() > 1, "{}", down.checks());
    ask(&gateway, 4).await;
    assert_eq!(down.requests() - before, 2);
    drop(last);
}

#[tokio::test]
async fn ejections_slow_starts_and_open_breakers_outlive_an_upgrade() {
    // Ejected by two failures, for an hour.
    let good = Checked::start("good").await;
    let bad = Hostile::answering("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
    let outlier =
        "outlier = { consecutive_failures = 2, ejection = \"1h\", ejection_max = \"1h\" }";
    let text = |endpoints: &[std::net::SocketAddr], more: &str| {
        configuration(&[&good], "", "").replace(
            &service("app", &[good.address], ""),
            &service("app", endpoints, more),
        )
    };
    let gateway = Gateway::start_with(&text(&[good.address, bad.address], outlier), &[]).await;
    let ejected = format!(
        "weir_gateway_instance_ejected{{service=\"app\",instance=\"{}\"}}",
        bad.address
    );
    eventually("it is ejected", async || {
        client::get(gateway.address(), "/").await;
        (gateway.metric(&ejected).await > 0.5).then_some(())
    })
    .await;
    let before = bad.requests();
    let last = gateway.upgrade().await;
    assert_eq!(gateway.metric(&ejected).await, 1.0);
    ask(&gateway, 20).await;
    assert_eq!(bad.requests(), before);

    // A new instance takes a tenth for most of an hour.
    let new = Checked::start("new").await;
    let slow = "slow_start = \"10h\"";
    reload(&gateway, &text(&[good.address], slow)).await;
    reload(&gateway, &text(&[good.address, new.address], slow)).await;
    let last = (gateway.upgrade().await, last).0;
    ask(&gateway, 33).await;
    // One of eleven, give or take where turns begin; the old process may have taken a few.
    let taken = new.requests();
    assert!((1..=6).contains(&taken), "{taken} of 33");

    // A breaker that is open for an hour.
    let nobody = crate::support::origin::nobody();
    let breaker = "breaker = { requests_min = 2, open = \"1h\" }";
    reload(&gateway, &text(&[nobody], breaker)).await;
    let refusal = async || client::get(gateway.address(), "/").await.refusal().1;
    eventually("it is open", async || {
        (refusal().await == "circuit-open").then_some(())
    })
    .await;
    let last = (gateway.upgrade().await, last).0;
    assert_eq!(refusal().await, "circuit-open");
    drop(last);
}
