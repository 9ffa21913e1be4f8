//! Instances that are found: by DNS, in a file; and what stays when they change.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use http_body_util::Empty;

use crate::support::client;
use crate::support::gateway::{Gateway, route};
use crate::support::names::{Manner, Names};
use crate::support::origin::Origin;
use crate::support::{eventually, skip};

/// A gateway with one service whose instances are found.
async fn gateway(discover: &str, files: &[(&str, &str)]) -> Gateway {
    let base = crate::support::gateway::BASE;
    let service = format!("[services.app]\ndiscover = {{ {discover} }}\n");
    let route = route("all", "/{*rest}", "app", "");
    Gateway::start_with(&format!("{base}{service}{route}"), files).await
}

/// The instances that answer ten requests, or the reasons of refusals.
async fn answering(gateway: &Gateway) -> BTreeSet<String> {
    let mut answering = BTreeSet::new();
    for _ in 0..10 {
        let answer = client::get(gateway.address(), "/").await.json();
        let name = answer["instance"].as_str().or(answer["reason"].as_str());
        answering.insert(name.unwrap().to_owned());
    }
    answering
}

async fn until(gateway: &Gateway, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    eventually(&format!("{expected:?} answer"), async || {
        (answering(gateway).await == expected).then_some(())
    })
    .await;
}

fn listed(addresses: &[SocketAddr]) -> String {
    let listed: Vec<String> = addresses.iter().map(|one| format!("\"{one}\"")).collect();
    format!("endpoints = [{}]\n", listed.join(", "))
}

/// Puts a new file in the place of another, as a whole.
fn replace(gateway: &Gateway, name: &str, text: &str) {
    let fresh = gateway.file("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, gateway.file(name)).unwrap();
}

#[tokio::test]
async fn a_file_is_followed_and_a_bad_one_changes_nothing() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let file = listed(&[one.address]);
    let gateway = gateway("file = \"app.toml\"", &[("app.toml", &file)]).await;
    assert_eq!(
        answering(&gateway).await,
        BTreeSet::from(["one".to_owned()]),
        "from the start"
    );
    let connections = one.connections();

    replace(&gateway, "app.toml", &listed(&[one.address, two.address]));
    until(&gateway, &["one", "two"]).await;
    assert!(
        one.connections() <= connections + 2,
        "an instance that stays keeps its connections: {connections} before, {} after",
        one.connections()
    );

    replace(&gateway, "app.toml", "endpoints = [\"nonsense\"]");
    eventually("the bad file is counted", async || {
        let series = "weir_gateway_discovery_stale{service=\"app\"}";
        (gateway.metric(series).await > 0.5).then_some(())
    })
    .await;
    until(&gateway, &["one", "two"]).await;

    replace(&gateway, "app.toml", &listed(&[two.address]));
    until(&gateway, &["two"]).await;
    replace(&gateway, "app.toml", "endpoints = []");
    until(&gateway, &["no-instance"]).await;
    std::fs::remove_file(gateway.file("app.toml")).unwrap();
    replace(&gateway, "app.toml", &listed(&[one.address]));
    until(&gateway, &["one"]).await;
}

#[tokio::test]
async fn a_name_is_followed_and_its_last_addresses_are_kept() {
    let origin = Origin::start("one").await;
    let names = Names::start(1).await;
    let host = "app.test";
    names.set(host, &[origin.address.ip()]);
    let discover = format!(
        "dns = \"{host}:{}\", servers = [\"{}\"], refresh_min = \"100ms\", hold = \"500ms\"",
        origin.address.port(),
        names.address
    );
    let gateway = gateway(&discover, &[]).await;
    assert_eq!(
        answering(&gateway).await,
        BTreeSet::from(["one".to_owned()]),
        "from the start"
    );

    names.set_manner(Manner::Failing);
    eventually("failures are counted", async || {
        let failed = "weir_gateway_discovery_answers_total{service=\"app\",result=\"failed\"}";
        (gateway.metric(failed).await > 1.5).then_some(())
    })
    .await;
    until(&gateway, &["one"]).await;

    // A name that is gone is believed to be, after a while.
    names.set_manner(Manner::Well);
    names.forget(host);
    until(&gateway, &["no-instance"]).await;
    names.set(host, &[origin.address.ip()]);
    until(&gateway, &["one"]).await;
}

#[tokio::test]
async fn service_records_bring_ports_and_priorities() {
    let (first, second) = (Origin::start("first").await, Origin::start("second").await);
    let names = Names::start(1).await;
    names.set("host.test", &[first.address.ip()]);
    let service = "_http._tcp.app.test";
    let records = |of_first: u16| {
        let first = (of_first, 5, first.address.port(), "host.test.");
        names.set_services(
            service,
            &[first, (1, 5, second.address.port(), "host.test.")],
        );
    };
    records(0);
    let servers = names.address;
    let discover =
        format!("srv = \"{service}\", servers = [\"{servers}\"], refresh_min = \"100ms\"");
    let gateway = gateway(&discover, &[]).await;
    assert_eq!(
        answering(&gateway).await,
        BTreeSet::from(["first".to_owned()])
    );
    records(2);
    until(&gateway, &["second"]).await;
    records(1);
    until(&gateway, &["first", "second"]).await;
    assert!(names.questions(service, RecordType::SRV).len() > 2);
}

/// `discover` for a name.
fn by_name(names: &Names, host: &str, port: u16, more: &str) -> String {
    let servers = names.address;
    format!("dns = \"{host}:{port}\", servers = [\"{servers}\"], {more}")
}

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_answer_ends_and_not_before() {
    let origin = Origin::start("one").await;
    let port = origin.address.port();
    // What answers are valid for, in seconds; settings; the least time between two questions.
    let table = [
        (1, "refresh_min = \"100ms\"", 1000),
        (0, "refresh_min = \"700ms\"", 700),
        (1, "refresh_min = \"1500ms\"", 1500),
        (
            3600,
            "refresh_min = \"100ms\", refresh_max = \"700ms\"",
            700,
        ),
    ];
    let cases = table.map(async |(ttl, settings, least)| {
        let names = Names::start(ttl).await;
        names.set("app.test", &[origin.address.ip()]);
        let gateway = gateway(&by_name(&names, "app.test", port, settings), &[]).await;
        let questions = eventually(&format!("{ttl} s, {settings}: asked again"), async || {
            let asked = names.questions("app.test", RecordType::A);
            (asked.len() >= 4).then_some(asked)
        })
        .await;
        // Answers count from when they come, questions from when they are read here.
        let least = Duration::from_millis(least - 50);
        let between = questions.windows(2).map(|pair| pair[1].at - pair[0].at);
        let between: Vec<_> = between.collect();
        assert!(
            between.iter().all(|time| *time >= least),
            "{ttl} s, {settings}: {between:?}"
        );
        until(&gateway, &["one"]).await;

        // Asked for anew by a reload only where it looks elsewhere.
        let text = std::fs::read_to_string(gateway.file("gateway.toml")).unwrap();
        let before = names.questions("app.test", RecordType::A).len();
        for round in 0..3 {
            let idle = format!("[services.app]\nidle_timeout = \"{}s\"\n", round + 1);
            let text = text.replace("[services.app]\n", &idle);
            std::fs::write(gateway.file("gateway.toml"), text).unwrap();
            assert_eq!(gateway.command(&["reload"]).await.code, Some(0));
        }
        let questions = names.questions("app.test", RecordType::A);
        let late = questions[before - 1..]
            .windows(2)
            .map(|pair| pair[1].at - pair[0].at);
        assert!(
            late.into_iter().all(|time| time >= least),
            "{ttl} s, {settings}"
        );
    });
    futures_util::future::join_all(cases).await;
}

/// An instance of each family, both with one port; an error on a host without IPv6.
async fn of_both_families() -> std::io::Result<(Origin, Origin)> {
    loop {
        let four = Origin::start("four").await;
        let address = (Ipv6Addr::LOCALHOST, four.address.port()).into();
        match Origin::start_at("six", address).await {
            Ok(six) => return Ok((four, six)),
            // The port is somebody else's there.
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
}

#[tokio::test]
async fn addresses_of_both_families_are_used() {
    let (four, six) = match of_both_families().await {
        Ok(both) => both,
        Err(error) => {
            return skip(
                "discovery by AAAA",
                &format!("no IPv6 on loopback: {error}"),
            );
        }
    };
    let port = four.address.port();
    let names = Names::start(1).await;
    names.set("app.test", &[four.address.ip(), six.address.ip()]);
    let gateway = gateway(
        &by_name(&names, "app.test", port, "refresh_min = \"100ms\""),
        &[],
    )
    .await;
    until(&gateway, &["four", "six"]).await;
    names.set("app.test", &[six.address.ip()]);
    until(&gateway, &["six"]).await;
    names.set("app.test", &[four.address.ip()]);
    until(&gateway, &["four"]).await;
}

#[tokio::test]
async fn service_records_bring_weights() {
    let (light, heavy) = (Origin::start("light").await, Origin::start("heavy").await);
    let names = Names::start(1).await;
    names.set("host.test", &[light.address.ip()]);
    let service = "_http._tcp.app.test";
    let set = |of_light: u16, of_heavy: u16| {
        let light = (0, of_light, light.address.port(), "host.test.");
        names.set_services(
            service,
            &[light, (0, of_heavy, heavy.address.port(), "host.test.")],
        );
    };
    set(1, 3);
    let servers = names.address;
    let discover =
        format!("srv = \"{service}\", servers = [\"{servers}\"], refresh_min = \"100ms\"");
    let gateway = gateway(&discover, &[]).await;
    let spread = async || {
        // By one connection: each worker takes its own turns.
        let mut sender = client::connect(gateway.address()).await.unwrap();
        let mut of_light = 0;
        for _ in 0..40 {
            let request = client::request("/")
                .body(Empty::<bytes::Bytes>::new())
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            let answer = client::Answer::read(response).await.unwrap();
            of_light += usize::from(answer.json()["instance"] == "light");
            sender.ready().await.unwrap();
        }
        of_light
    };
    assert_eq!(spread().await, 10);
    // No weight means hardly any, not none (RFC 2782).
    for (weights, expected) in [((0, 3), 10), ((1, 1), 20), ((4, 1), 32)] {
        set(weights.0, weights.1);
        eventually(&format!("weights {weights:?}"), async || {
            (spread().await == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn whatever_is_no_answer_changes_nothing() {
    let origin = Origin::start("one").await;
    let failed = "weir_gateway_discovery_answers_total{service=\"app\",result=\"failed\"}";
    let nothing = "weir_gateway_discovery_answers_total{service=\"app\",result=\"nothing\"}";
    // How questions are answered; whether the name is known; what is counted.
    let table = [
        (Manner::Failing, true, failed),
        (Manner::Silent, true, failed),
        // Nobody believes that at once.
        (Manner::Well, false, nothing),
    ];
    let cases = table.map(async |(manner, known, counted)| {
        let names = Names::start(1).await;
        names.set("app.test", &[origin.address.ip()]);
        let settings = "refresh_min = \"100ms\", hold = \"1h\"";
        let discover = by_name(&names, "app.test", origin.address.port(), settings);
        let gateway = gateway(&discover, &[]).await;
        until(&gateway, &["one"]).await;
        names.set_manner(manner);
        if !known {
            names.forget("app.test");
        }
        eventually(&format!("{manner:?} is counted"), async || {
            (gateway.metric(counted).await > 0.5).then_some(())
        })
        .await;
        assert_eq!(
            answering(&gateway).await,
            BTreeSet::from(["one".to_owned()]),
            "{manner:?}"
        );
        // And a reload does not forget them.
        assert_eq!(gateway.command(&["reload"]).await.code, Some(0));
        assert_eq!(
            answering(&gateway).await,
            BTreeSet::from(["one".to_owned()]),
            "{manner:?}"
        );
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_asked_for_over_tcp() {
    let origin = Origin::start("one").await;
    let names = Names::start(1).await;
    names.set("app.test", &[origin.address.ip()]);
    names.set_manner(Manner::Truncated);
    let discover = by_name(
        &names,
        "app.test",
        origin.address.port(),
        "refresh_min = \"1s\"",
    );
    let gateway = gateway(&discover, &[]).await;
    until(&gateway, &["one"]).await;
    let questions = names.questions("app.test", RecordType::A);
    let over = |tcp: bool| questions.iter().filter(|one| one.tcp == tcp).count();
    assert!(over(false) > 0 && over(true) > 0, "{questions:?}");
}

#[tokio::test]
async fn the_newest_answer_holds_however_reloads_fall_in_between() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let gateway = gateway(
        "file = \"app.toml\"",
        &[("app.toml", &listed(&[one.address]))],
    )
    .await;
    let text = std::fs::read_to_string(gateway.file("gateway.toml")).unwrap();
    let (origins, names) = ([&one, &two], ["one", "two"]);
    for round in 1..6 {
        let at = round % 2;
        replace(&gateway, "app.toml", &listed(&[origins[at].address]));
        // The file is looked at twice a second, so somewhere among these.
        let mut reloads = 0;
        eventually(&format!("round {round}"), async || {
            reloads += 1;
            let idle = format!("[services.app]\nidle_timeout = \"{}s\"\n", reloads % 9 + 1);
            let text = text.replace("[services.app]\n", &idle);
            std::fs::write(gateway.file("gateway.toml"), text).unwrap();
            assert_eq!(gateway.command(&["reload"]).await.code, Some(0));
            (answering(&gateway).await == BTreeSet::from([names[at].to_owned()])).then_some(())
        })
        .await;
        // And no earlier one comes back.
        for _ in 0..3 {
            assert_eq!(gateway.command(&["reload"]).await.code, Some(0));
            assert_eq!(
                answering(&gateway).await,
                BTreeSet::from([names[at].to_owned()])
            );
        }
    }
}
