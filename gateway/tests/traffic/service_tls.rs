//! TLS to services: which instances are trusted, what they are shown, and what a refusal looks like.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::certs::{Authority, Leaf};
use crate::support::client::{self, Answer, read_until};
use crate::support::eventually;
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::origin::Origin;
use crate::support::secure::{Secure, Wants};

const ID: &str = "spiffe://test/ns/shop/sa/app";

/// A service called `app` with this `tls` section, and files beside the configuration.
async fn gateway(
    endpoints: &[SocketAddr],
    (tls, of_service): (&str, &str),
    files: &[(&str, &str)],
) -> Gateway {
    let tls = format!("{of_service}\n[services.app.tls]\n{tls}");
    let app = service("app", endpoints, &tls);
    let route = route("all", "/{*rest}", "app", "retry = { attempts = 0 }");
    Gateway::start_with(&format!("{BASE}{app}{route}"), files).await
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.pem().as_bytes());
    roots.add(certificate.unwrap()).unwrap();
    roots
}

async fn ask(gateway: &Gateway, method: Method, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", "public.test");
    let request = request.body(Full::<Bytes>::from("body")).unwrap();
    client::send(gateway.address(), request).await
}

#[tokio::test]
async fn the_certificate_must_be_the_right_one() {
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    let below = known.subordinate("below");
    let many: Vec<String> = (0..4000).map(|n| format!("{n:04}.app.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let one = "names = [\"other.test\", \"app.test\"]";
    let id = format!("names = [\"{ID}\"]");
    let app = "server_name = \"app.test\"";
    // What it is, the instance's certificate, the service's section, what the log says if it is
    // not trusted.
    let table: [(&str, Leaf, String, Option<&str>); 15] = [
        ("good", known.issue(&["app.test"]), app.into(), None),
        (
            "wildcard",
            known.issue(&["*.app.test"]),
            "server_name = \"one.app.test\"".into(),
            None,
        ),
        ("subordinate", below.issue(&["app.test"]), app.into(), None),
        (
            "address",
            known.issue(&["127.0.0.1"]),
            "server_name = \"127.0.0.1\"".into(),
            None,
        ),
        (
            "issuer",
            unknown.issue(&["app.test"]),
            app.into(),
            Some("unknown issuer"),
        ),
        (
            "expired",
            known.issue_expired(&["app.test"]),
            app.into(),
            Some("certificate expired"),
        ),
        (
            "name",
            known.issue(&["other.test"]),
            app.into(),
            Some("not valid for name \"app.test\""),
        ),
        ("large", known.issue(&many), app.into(), Some("no TLS")),
        ("one-of", known.issue(&["app.test"]), one.into(), None),
        ("id", known.issue(&[ID]), id.clone(), None),
        (
            "id-among-others",
            known.issue(&["x.test", "spiffe://test/x", ID]),
            id.clone(),
            None,
        ),
        (
            "none-of",
            known.issue(&["app.test.other"]),
            one.into(),
            Some("the certificate holds none of other.test, app.test"),
        ),
        (
            "another-id",
            known.issue(&["spiffe://test/ns/shop/sa/app2"]),
            id.clone(),
            Some("the certificate holds none of spiffe://test/ns/shop/sa/app"),
        ),
        (
            "id-of-stranger",
            unknown.issue(&[ID]),
            id.clone(),
            Some("unknown issuer"),
        ),
        (
            "name-in-place-of-id",
            known.issue(&["app.test"]),
            format!("{app}\n{id}"),
            Some("the certificate holds none of"),
        ),
    ];
    let origin = Origin::start("one").await;
    let mut configuration = BASE.to_owned();
    let mut fronts = Vec::new();
    for (what, leaf, tls, _) in &table {
        let front = Secure::before(origin.address, leaf).await;
        let tls = format!("[services.{what}.tls]\nca = \"ca.pem\"\n{tls}");
        configuration += &service(what, &[front.address], &tls);
        configuration += &route(what, &format!("/{what}"), what, "");
        fronts.push(front);
    }
    let mut gateway = Gateway::start_with(&configuration, &[("ca.pem", &known.pem())]).await;
    for (what, _, _, said) in table {
        let answer = ask(&gateway, Method::GET, &format!("/{what}")).await;
        let Some(said) = said else {
            assert_eq!(answer.status, 200, "{what}: {answer:?}");
            continue;
        };
        let expected = (502, "upstream-tls".to_owned());
        assert_eq!(answer.refusal(), expected, "{what}");
        assert!(gateway.says(said).await, "{what}");
        let series = "weir_gateway_refusals_total{reason=\"upstream-tls\"}";
        assert!(gateway.metric(series).await > 0.5, "{what}");
    }
}

#[tokio::test]
async fn what_is_asked_for_follows_the_section() {
    let authority = Authority::new("known");
    let leaf = authority.issue(&["app.test", "127.0.0.1", ID]);
    let origin = Origin::start("one").await;
    // The section, the name that is sent, the protocol of the service, what is agreed on.
    let table = [
        ("server_name = \"app.test\"", Some("app.test"), "http1"),
        ("server_name = \"app.test\"", Some("app.test"), "http2"),
        ("server_name = \"127.0.0.1\"", None, "http1"),
        ("names = [\"spiffe://test/ns/shop/sa/app\"]", None, "http1"),
        (
            "server_name = \"sni.test\"\nnames = [\"app.test\"]",
            Some("sni.test"),
            "http2",
        ),
    ];
    for (tls, server_name, protocol) in table {
        let front = Secure::before(origin.address, &leaf).await;
        let tls = format!("ca = \"ca.pem\"\n{tls}");
        let of_service = format!("protocol = \"{protocol}\"");
        let ca = authority.pem();
        let files = [("ca.pem", ca.as_str())];
        let gateway = gateway(&[front.address], (&tls, &of_service), &files).await;
        let answer = ask(&gateway, Method::POST, "/x").await.json();
        let expected = match protocol {
            "http1" => ("http/1.1", "HTTP/1.1", "/x"),
            _ => ("h2", "HTTP/2.0", "https://public.test/x"),
        };
        let seen = &front.seen()[0];
        assert_eq!(seen.server_name.as_deref(), server_name, "{tls}");
        assert_eq!(seen.alpn.as_deref(), Some(expected.0), "{tls}");
        assert_eq!(answer["version"], expected.1, "{tls}");
        assert_eq!(answer["uri"], expected.2, "{tls}");
        assert_eq!(answer["body"], "body");
    }
}

#[tokio::test]
async fn http2_must_be_agreed_on() {
    let authority = Authority::new("known");
    let leaf = authority.issue(&["app.test"]);
    let origin = Origin::start("one").await;
    let tls = "ca = \"ca.pem\"\nserver_name = \"app.test\"";
    let ca = authority.pem();
    let files = [("ca.pem", ca.as_str())];
    // What the instance offers, what the service speaks, and whether that goes.
    let table: [(&'static [&'static str], &str, bool); 5] = [
        (&[], "http1", true),
        (&[], "http2", false),
        (&["http/1.1"], "http2", false),
        (&["h2"], "http1", false),
        (&["h2"], "http2", true),
    ];
    for (alpn, protocol, goes) in table {
        let wants = Wants {
            alpn,
            ..Wants::default()
        };
        let front = Secure::wanting(origin.address, &leaf, wants).await;
        let of_service = format!("protocol = \"{protocol}\"");
        let gateway = gateway(&[front.address], (tls, &of_service), &files).await;
        let answer = ask(&gateway, Method::GET, "/x").await;
        let expected = if goes { 200 } else { 502 };
        assert_eq!(answer.status, expected, "{alpn:?} {protocol}");
        if !goes {
            assert_eq!(answer.refusal().1, "upstream-tls");
        }
    }
}

#[tokio::test]
async fn instances_that_ask_are_shown_the_gateways_certificate() {
    let (authority, clients) = (Authority::new("known"), Authority::new("clients"));
    let leaf = authority.issue(&["app.test"]);
    let files = [
        ("ca.pem", authority.pem()),
        ("good.pem", clients.issue(&["gateway.test"]).pem),
        ("expired.pem", clients.issue_expired(&["gateway.test"]).pem),
        ("other.pem", authority.issue(&["gateway.test"]).pem),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let origin = Origin::start("one").await;
    let table = [
        ("certificate = \"good.pem\"", true),
        (
            "certificate = { chain = \"good.pem\", key = \"good.pem\" }",
            true,
        ),
        ("", false),
        ("certificate = \"expired.pem\"", false),
        ("certificate = \"other.pem\"", false),
    ];
    for tls12 in [false, true] {
        for (certificate, good) in table {
            let wants = Wants {
                client_ca: Some(roots(&clients)),
                tls12,
                ..Wants::default()
            };
            let front = Secure::wanting(origin.address, &leaf, wants).await;
            let tls = format!("ca = \"ca.pem\"\nserver_name = \"app.test\"\n{certificate}");
            let mut gateway = gateway(&[front.address], (&tls, ""), &files).await;
            let answer = ask(&gateway, Method::GET, "/x").await;
            if good {
                assert_eq!(answer.status, 200, "{certificate} {tls12}");
                assert!(front.seen()[0].client);
            } else {
                let expected = (502, "upstream-tls".to_owned());
                assert_eq!(answer.refusal(), expected, "{certificate} {tls12}");
                assert!(gateway.says("received fatal alert").await);
            }
        }
    }
}

#[tokio::test]
async fn upgrades_pass_through_tls() {
    let authority = Authority::new("known");
    let origin = Origin::start("one").await;
    let front = Secure::before(origin.address, &authority.issue(&["app.test"])).await;
    let tls = "ca = \"ca.pem\"\nserver_name = \"app.test\"";
    let gateway = gateway(&[front.address], (tls, ""), &[("ca.pem", &authority.pem())]).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let ask =
        "GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for round in 0..3 {
        let frame = format!("\u{1}frame {round}\0!");
        stream.write_all(frame.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut stream, "!").await, frame);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(client::read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn checks_go_over_tls_unless_told_otherwise() {
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    let (good, bad) = (known.issue(&["app.test"]), unknown.issue(&["app.test"]));
    let origin = Origin::start("one").await;
    let check = |more: &str| {
        format!("health = {{ every = \"100ms\", timeout = \"100ms\", fall = 1, rise = 1, {more} }}")
    };
    let port = origin.address.port();
    let (http, tcp) = ("path = \"/\"", "type = \"tcp\"");
    let elsewhere = format!("{http}, port = {port}, tls = false");
    let wrongly = format!("{http}, port = {port}");
    // The check, the protocol, whether the certificate is good, whether the instance is well.
    let table = [
        (http, "http1", true, true),
        (http, "http2", true, true),
        (tcp, "http1", true, true),
        (http, "http1", false, false),
        (tcp, "http1", false, false),
        (elsewhere.as_str(), "http1", true, true),
        (wrongly.as_str(), "http1", true, false),
    ];
    for (health, protocol, trusted, well) in table {
        let leaf = if trusted { &good } else { &bad };
        let front = Secure::before(origin.address, leaf).await;
        let of_service = format!("protocol = \"{protocol}\"\n{}", check(health));
        let tls = "ca = \"ca.pem\"\nserver_name = \"app.test\"";
        let before = origin.requests();
        let ca = known.pem();
        let files = [("ca.pem", ca.as_str())];
        let mut gateway = gateway(&[front.address], (tls, &of_service), &files).await;
        if !well {
            assert!(gateway.says("instance is unhealthy").await, "{health}");
            let answer = ask(&gateway, Method::GET, "/x").await;
            assert_eq!(answer.refusal(), (503, "no-instance".to_owned()));
            continue;
        }
        eventually("three checks that were passed", async || {
            let seen = match health == tcp {
                true => front.seen().len() as u64,
                false => origin.requests() - before,
            };
            (seen > 2).then_some(())
        })
        .await;
        let series = format!(
            "weir_gateway_instance_healthy{{service=\"app\",instance=\"{}\"}}",
            front.address
        );
        assert!(gateway.metric(&series).await > 0.5, "{health}");
        let answer = ask(&gateway, Method::GET, "/x").await;
        assert_eq!(answer.status, 200, "{health}");
    }
}

#[tokio::test]
async fn changed_files_hold_from_the_reload_on() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let origin = Origin::start("one").await;
    let front = Secure::before(origin.address, &one.issue(&["app.test"])).await;
    let tls = "ca = \"ca.pem\"\nserver_name = \"app.test\"";
    let gateway = gateway(&[front.address], (tls, ""), &[("ca.pem", &one.pem())]).await;
    let ask = async || ask(&gateway, Method::GET, "/x").await;
    let reload = async |ca: &str| {
        std::fs::write(gateway.file("ca.pem"), ca).unwrap();
        gateway.command(&["reload"]).await.code
    };
    assert_eq!(ask().await.status, 200);
    assert_eq!(reload(&one.pem()).await, Some(0), "the same again");
    for _ in 0..20 {
        assert_eq!(ask().await.status, 200);
    }
    let connections = front.seen().len();
    assert!(connections <= 2, "one for each worker: {connections}");

    // Connections that were trusted before stand still, but nobody uses them any more.
    assert_eq!(reload(&two.pem()).await, Some(0));
    assert_eq!(ask().await.refusal().1, "upstream-tls");
    let (both, nothing) = (one.pem() + &two.pem(), "no certificate");
    assert_eq!(reload(&both).await, Some(0));
    assert_eq!(ask().await.status, 200);
    assert_ne!(reload(nothing).await, Some(0), "refused");
    assert_eq!(ask().await.status, 200, "and the last good one is in force");
}

#[tokio::test]
async fn an_answer_cut_short_is_no_answer() {
    let authority = Authority::new("known");
    let leaf = authority.issue(&["app.test"]);
    let ca = authority.pem();
    let files = [("ca.pem", ca.as_str())];
    for orderly in [true, false] {
        // The body ends with the connection: only TLS can tell whether all of it has come.
        let server = Secure::serving(&leaf, Wants::default(), move |mut stream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nso far";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            match orderly {
                true => stream.shutdown().await.unwrap(),
                false => stream.get_mut().0.shutdown().await.unwrap(),
            }
        })
        .await;
        let tls = "ca = \"ca.pem\"\nserver_name = \"app.test\"";
        let gateway = gateway(&[server.address], (tls, ""), &files).await;
        let request = client::request("/x").body(Full::<Bytes>::default());
        let answer = client::try_send(gateway.address(), request.unwrap()).await;
        match orderly {
            true => assert_eq!(answer.unwrap().text(), "so far"),
            false => assert!(answer.is_err(), "{answer:?}"),
        }
    }
}

#[tokio::test]
async fn a_refused_certificate_is_tried_elsewhere() {
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    let origin = Origin::start("good").await;
    let good = Secure::before(origin.address, &known.issue(&["app.test"])).await;
    let bad = Secure::before(origin.address, &unknown.issue(&["app.test"])).await;
    let configuration = [
        BASE.to_owned(),
        service(
            "app",
            &[bad.address, good.address],
            "retry_budget = { percent = 1000 }\n[services.app.tls]\nca = \"ca.pem\"\nserver_name = \"app.test\"",
        ),
        route("all", "/{*rest}", "app", ""),
    ];
    let gateway = Gateway::start_with(&configuration.concat(), &[("ca.pem", &known.pem())]).await;
    // A POST too: nothing of it was sent.
    for method in [Method::GET, Method::POST].iter().cycle().take(8) {
        let answer = ask(&gateway, method.clone(), "/x").await;
        assert_eq!(answer.json()["body"], "body", "{method}");
    }
    let lines = eventually("a log line for each", async || {
        Some(gateway.log_lines()).filter(|lines| lines.len() == 8)
    })
    .await;
    let retried = lines.iter().filter(|line| line["retries"] == 1).count();
    assert!(retried > 0, "the bad instance was asked: {lines:?}");
}

#[tokio::test]
async fn the_handshake_is_part_of_the_connect_timeout() {
    // Takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let ca = Authority::new("known").pem();
    let tls = "ca = \"ca.pem\"\nserver_name = \"app.test\"";
    let of_service = "connect_timeout = \"300ms\"";
    let gateway = gateway(&[address], (tls, of_service), &[("ca.pem", &ca)]).await;
    let answer = ask(&gateway, Method::GET, "/x").await;
    let expected = (504, "upstream-connect-timeout".to_owned());
    assert_eq!(answer.refusal(), expected);
}

#[tokio::test]
async fn sessions_are_resumed_and_connections_ended_in_order() {
    let authority = Authority::new("known");
    let leaf = authority.issue(&["app.test"]);
    for tls12 in [false, true] {
        let wants = Wants {
            tls12,
            ..Wants::default()
        };
        let (sender, mut ends) = tokio::sync::mpsc::unbounded_channel();
        // Closes after each answer.
        let server = Secure::serving(&leaf, wants, move |mut stream| {
            let sender = sender.clone();
            async move {
                read_until(&mut stream, "\r\n\r\n").await;
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                stream.write_all(answer.as_bytes()).await.unwrap();
                // Without a `close_notify` from the gateway this fails.
                let end = stream.read_to_end(&mut Vec::new()).await;
                let _ = sender.send(end.map_err(|error| error.to_string()));
            }
        })
        .await;
        let tls = "ca = \"ca.pem\"\nserver_name = \"app.test\"";
        let ca = authority.pem();
        let files = [("ca.pem", ca.as_str())];
        let gateway = gateway(&[server.address], (tls, ""), &files).await;
        let mut sender = client::connect(gateway.address()).await.unwrap();
        for _ in 0..3 {
            sender.ready().await.unwrap();
            let request = client::request("/x").body(Full::<Bytes>::default());
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            assert_eq!(Answer::read(answer).await.unwrap().text(), "ok");
        }
        let resumed: Vec<bool> = server.seen().iter().map(|seen| seen.resumed).collect();
        assert_eq!(resumed, [false, true, true], "TLS 1.2: {tls12}");
        for _ in 0..3 {
            assert_eq!(ends.recv().await.unwrap(), Ok(0));
        }
    }
}
