//! A new configuration, by signal, command or change of the file, takes effect without losing a
//! request; a bad one changes nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::Empty;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::failure::load;
use crate::support::client::{self, Answer, read_until};
use crate::support::eventually;
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::origin::Origin;

/// The configuration with one service at `origin`, a route for everything, and `more`.
fn configuration(origin: &Origin, more: &str) -> String {
    let service = service("app", &[origin.address], "");
    format!(
        "{BASE}{service}{}{more}",
        route("all", "/{*rest}", "app", "")
    )
}

/// Reloads by signal.
async fn reload(gateway: &Gateway, configuration: &str, result: &str) {
    let series = format!("weir_gateway_reloads_total{{result=\"{result}\"}}");
    let before = gateway.metric(&series).await;
    std::fs::write(gateway.file("gateway.toml"), configuration).unwrap();
    gateway.signal("-HUP").await;
    eventually(result, async || {
        (gateway.metric(&series).await > before + 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reloads_under_load_lose_nothing() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let gateway = Gateway::start_with(&configuration(&old, ""), &[]).await;
    let mut tunnel = TcpStream::connect(gateway.address()).await.unwrap();
    let ask =
        b"GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    tunnel.write_all(ask).await.unwrap();
    read_until(&mut tunnel, "\r\n\r\n").await;
    let held = tokio::spawn(client::get(gateway.address(), "/hold"));
    old.holds(1).await;

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(load(gateway.address(), Arc::clone(&stop))))
        .collect();
    for round in 0..20 {
        let origin = if round % 2 == 0 { &new } else { &old };
        reload(&gateway, &configuration(origin, ""), "applied").await;
    }
    reload(&gateway, &configuration(&new, ""), "applied").await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (sent, failed) = client.await.unwrap();
        assert_eq!(failed, Vec::<String>::new(), "of {sent}");
    }
    assert_eq!(
        client::get(gateway.address(), "/").await.json()["instance"],
        "new"
    );

    old.release();
    assert_eq!(
        held.await.unwrap().json()["instance"],
        "old",
        "a request keeps what it began with"
    );
    tunnel.write_all(b"still here!").await.unwrap();
    read_until(&mut tunnel, "still here!").await;
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::start_with(&configuration(&origin, ""), &[]).await;
    let table = [
        "nonsense".to_owned(),
        configuration(
            &origin,
            "[routes.other]\nmatch = { path = \"/x\" }\nservice = \"unknown\"\n",
        ),
        configuration(&origin, "").replace("workers = 2", "workers = 3"),
        // Nobody has this address (RFC 5737), so it cannot be bound.
        configuration(&origin, "").replace("127.0.0.1:0", "192.0.2.1:0"),
        configuration(
            &origin,
            "[listeners.other]\nbind = \"127.0.0.1:0\"\n[listeners.third]\nbind = \"192.0.2.1:80\"\n",
        ),
    ];
    for bad in table {
        reload(&gateway, &bad, "refused").await;
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    }
    let other = route("other", "/other", "app", "timeout = \"1s\"");
    reload(&gateway, &configuration(&origin, &other), "applied").await;
    client::get(gateway.address(), "/other").await;
    assert_eq!(gateway.logged("/other").await["route"], "other");
}

#[tokio::test]
async fn counters_go_on_across_a_reload() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::start_with(&configuration(&origin, ""), &[]).await;
    client::get(gateway.address(), "/").await;
    let more = route("more", "/more", "app", "");
    reload(&gateway, &configuration(&origin, &more), "applied").await;
    client::get(gateway.address(), "/").await;
    let labels = r#"route="all",service="app""#;
    let series = format!("weir_gateway_requests_total{{{labels},status=\"2xx\"}}");
    eventually("both are counted", async || {
        (gateway.metric(&series).await > 1.5).then_some(())
    })
    .await;
}

/// Reloads by command.
async fn command(gateway: &Gateway, configuration: &str) {
    std::fs::write(gateway.file("gateway.toml"), configuration).unwrap();
    let said = gateway.command(&["reload"]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

/// Where each listener is, by name.
async fn listeners(gateway: &Gateway) -> HashMap<String, SocketAddr> {
    let status = gateway.status().await;
    let listeners = status["listeners"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    listeners
        .map(|one| (text(&one["name"]), text(&one["address"]).parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn listeners_come_change_and_go() {
    let origin = Origin::start("one").await;
    let before = configuration(&origin, "");
    let gateway = Gateway::start_with(&before, &[]).await;
    let public = gateway.address();
    let extra = "[listeners.extra]\nbind = \"127.0.0.1:0\"\n";
    command(&gateway, &format!("{before}{extra}")).await;
    let found = listeners(&gateway).await;
    assert_eq!(found["public"], public, "its socket stays");
    let extra_at = found["extra"];
    let mut kept = client::connect(extra_at).await.unwrap();
    let ask = || client::request("/").body(Empty::<Bytes>::new()).unwrap();
    let answer = Answer::read(kept.send_request(ask()).await.unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status, 200);

    // The same place with another setting: the forwarded address is believed now.
    let forwarded = client::request("/").header("x-forwarded-for", "192.0.2.7");
    let forwarded = forwarded.body(Empty::<Bytes>::new()).unwrap();
    let trusted = format!("{before}{extra}trusted_proxies = [\"127.0.0.0/8\"]\n");
    command(&gateway, &trusted).await;
    assert_eq!(listeners(&gateway).await["extra"], extra_at);
    client::send(extra_at, forwarded).await;
    eventually("the client's own address is logged", async || {
        let lines = gateway.log_lines();
        lines
            .iter()
            .any(|line| line["client"] == "192.0.2.7")
            .then_some(())
    })
    .await;

    command(&gateway, &before).await;
    assert!(!listeners(&gateway).await.contains_key("extra"));
    eventually("the listener is gone", async || {
        TcpStream::connect(extra_at).await.is_err().then_some(())
    })
    .await;
    let answer = Answer::read(kept.send_request(ask()).await.unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "its connections are served on");
    assert_eq!(client::get(public, "/").await.status, 200);
}

#[tokio::test]
async fn the_admin_listener_moves() {
    let origin = Origin::start("one").await;
    let before = configuration(&origin, "");
    let gateway = Gateway::start_with(&before, &[]).await;
    let old = gateway.listener("admin");
    let without = before.replace("[admin]\nbind = \"127.0.0.1:0\"\n", "[admin]\n");
    command(&gateway, &without).await;
    eventually("nobody listens any more", async || {
        TcpStream::connect(old).await.is_err().then_some(())
    })
    .await;
    let moved = without.replace("[admin]\n", &format!("[admin]\nbind = \"{old}\"\n"));
    command(&gateway, &moved).await;
    assert_eq!(gateway.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_command_says_what_is_wrong_and_the_status_remembers() {
    let origin = Origin::start("one").await;
    let good = configuration(&origin, "");
    let gateway = Gateway::start_with(&good, &[]).await;
    let table = [
        (
            good.replace("workers = 2", "workers = x"),
            "gateway.toml:3:11: ",
        ),
        (
            good.replace("workers = 2", "workers = 3"),
            "`weir-gateway upgrade` applies it",
        ),
        (
            good.replace("127.0.0.1:0", "192.0.2.1:0"),
            "cannot bind 192.0.2.1:0",
        ),
    ];
    for (bad, reason) in table {
        std::fs::write(gateway.file("gateway.toml"), bad).unwrap();
        let said = gateway.command(&["reload"]).await;
        assert_eq!(said.code, Some(3), "{}", said.stdout);
        assert!(
            said.stderr.contains("nothing has changed"),
            "{}",
            said.stderr
        );
        assert!(said.stderr.contains(reason), "{}", said.stderr);
        let status = gateway.command(&["status"]).await.stdout;
        assert!(
            status.contains(reason) && status.contains(": serving\n"),
            "{status}"
        );
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    }
    command(&gateway, &good).await;
    let status = gateway.status().await;
    assert_eq!(status["configuration"]["refused"], serde_json::Value::Null);
    assert_eq!(status["configuration"]["reloads"], 1);
    let nobody = gateway.file("other.sock");
    let mut elsewhere = tokio::process::Command::new(env!("CARGO_BIN_EXE_weir-gateway"));
    let elsewhere = elsewhere.arg("status").arg("--socket").arg(nobody);
    assert_eq!(elsewhere.output().await.unwrap().status.code(), Some(1));
}

#[tokio::test]
async fn a_file_that_changes_is_loaded() {
    let origin = Origin::start("one").await;
    let watched = configuration(&origin, "").replace("[server]\n", "[server]\nwatch = true\n");
    let gateway = Gateway::start_with(&watched, &[]).await;
    let file = gateway.file("gateway.toml");
    let takes = async |name: &str, text: &str| {
        eventually(text, async || {
            client::get(gateway.address(), &format!("/{name}")).await;
            let lines = gateway.log_lines();
            lines.iter().any(|line| line["route"] == name).then_some(())
        })
        .await;
    };
    let with = |name: &str| format!("{watched}{}", route(name, &format!("/{name}"), "app", ""));

    // As editors do.
    std::fs::write(gateway.file("swap"), with("renamed")).unwrap();
    std::fs::rename(gateway.file("swap"), &file).unwrap();
    takes("renamed", "a rename is seen").await;
    // As Kubernetes does.
    for version in ["..1", "..2"] {
        let folder = gateway.file(version);
        std::fs::create_dir(&folder).unwrap();
        let name = version.trim_start_matches('.');
        std::fs::write(folder.join("gateway.toml"), with(&format!("mounted{name}"))).unwrap();
    }
    symlink("..1", gateway.file("..data")).unwrap();
    symlink("..data/gateway.toml", gateway.file("link")).unwrap();
    std::fs::rename(gateway.file("link"), &file).unwrap();
    takes("mounted1", "a link is followed").await;
    symlink("..2", gateway.file("..data_tmp")).unwrap();
    std::fs::rename(gateway.file("..data_tmp"), gateway.file("..data")).unwrap();
    takes("mounted2", "a link that turns is seen").await;
    // A bad file changes nothing, and the next good one is seen.
    std::fs::write(gateway.file("..2/gateway.toml"), "nonsense").unwrap();
    eventually("it is refused", async || {
        let status = gateway.status().await;
        (!status["configuration"]["refused"].is_null()).then_some(())
    })
    .await;
    std::fs::write(gateway.file("..2/gateway.toml"), with("repaired")).unwrap();
    takes("repaired", "a file written in place is seen").await;
}

/// Reloads under load, each of a file that has changed.
const RELOADS: usize = 1000;
/// Every so many of them change a route too.
const ROUTE_CHANGES_EVERY: usize = 50;
/// Routes of the configuration.
const ROUTES: usize = 10_000;

#[tokio::test]
async fn a_thousand_reloads_of_ten_thousand_routes_lose_nothing() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let many: String = (0..ROUTES - 1)
        .map(|n| route(&format!("r{n}"), &format!("/api/{n}/{{*rest}}"), "app", ""))
        .collect();
    let texts = [&old, &new].map(|origin| configuration(origin, &many));
    let gateway = Gateway::start_with(&texts[0], &[]).await;
    let mut tunnel = TcpStream::connect(gateway.address()).await.unwrap();
    let ask =
        b"GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    tunnel.write_all(ask).await.unwrap();
    read_until(&mut tunnel, "\r\n\r\n").await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(load(gateway.address(), Arc::clone(&stop))))
        .collect();
    let mut control = UnixStream::connect(gateway.file("gateway.sock"))
        .await
        .unwrap();
    for round in 0..RELOADS {
        let mut text = texts[(round + 1) % 2].clone();
        if round % ROUTE_CHANGES_EVERY == 0 {
            // The last section of the file is one of a route.
            text += &format!("timeout = \"{}s\"\n", round + 1);
        }
        std::fs::write(gateway.file("gateway.toml"), text).unwrap();
        let ask = b"POST /v1/reload HTTP/1.1\r\nHost: weir\r\n\r\n";
        control.write_all(ask).await.unwrap();
        let said = read_until(&mut control, "}").await;
        assert!(said.starts_with("HTTP/1.1 200 "), "round {round}: {said}");
        assert!(said.contains(&format!("\"routes\":{ROUTES}")), "{said}");
        // Often enough for a tunnel not to fall idle, however slow the machine is.
        if round % 10 == 0 {
            tunnel.write_all(b"still here!").await.unwrap();
            read_until(&mut tunnel, "still here!").await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (sent, failed) = client.await.unwrap();
        assert_eq!(failed, Vec::<String>::new(), "of {sent}");
        assert!(sent > 0);
    }
    let status = gateway.status().await;
    assert_eq!(status["configuration"]["reloads"], RELOADS);
    let answer = client::get(gateway.address(), "/").await.json();
    assert_eq!(answer["instance"], "old", "the last change was back to it");
    tunnel.write_all(b"to the end!").await.unwrap();
    read_until(&mut tunnel, "to the end!").await;
}
