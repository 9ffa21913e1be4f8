//! TLS: the certificate follows the name the client asks for, and ALPN picks the protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::client::{self, Answer, read_to_end};
use crate::support::eventually;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

/// A certificate for these names: PEM of chain and key in one, and the certificate itself.
fn certificate(names: &[&str]) -> (String, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    (
        cert.pem() + &signing_key.serialize_pem(),
        cert.der().clone(),
    )
}

struct Bed {
    gateway: Gateway,
    certificates: Vec<CertificateDer<'static>>,
    _origin: Origin,
}

/// A gateway with certificates for `a.test` (the default) and `*.b.test`.
async fn bed() -> Bed {
    let origin = Origin::start("one").await;
    let ((pem_a, a), (pem_b, b)) = (certificate(&["a.test"]), certificate(&["*.b.test"]));
    let configuration = format!(
        "[server]\nhandshake_timeout = \"300ms\"\n\
         [listeners.public]\nbind = \"127.0.0.1:0\"\ntls = {{ certificates = [\"a.pem\", \"b.pem\"] }}\n\
         [admin]\nbind = \"127.0.0.1:0\"\n[access_log]\nto = \"file\"\npath = \"access.log\"\n{}{}",
        service("app", &[origin.address], ""),
        route("all", "/{*rest}", "app", ""),
    );
    let files = [("a.pem", pem_a.as_str()), ("b.pem", pem_b.as_str())];
    let gateway = Gateway::start_with(&configuration, &files).await;
    Bed {
        gateway,
        certificates: vec![a, b],
        _origin: origin,
    }
}

impl Bed {
    /// A TLS connection that accepts either certificate, if the name fits.
    async fn connect(&self, name: &str, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.certificates {
            roots.add(certificate.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(self.address()).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address()
    }
}

fn presented(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

#[tokio::test]
async fn the_certificate_follows_the_name() {
    let bed = bed().await;
    for (name, expected) in [("a.test", 0), ("x.b.test", 1), ("y.b.test", 1)] {
        let stream = bed.connect(name, &[]).await.unwrap();
        assert_eq!(presented(&stream), bed.certificates[expected], "{name}");
    }
    for name in ["unknown.test", "x.y.b.test", "127.0.0.1"] {
        let error = bed.connect(name, &[]).await.unwrap_err();
        assert!(
            error.to_string().contains("certificate"),
            "the default one is no fit: {error}"
        );
    }
}

#[tokio::test]
async fn alpn_picks_http2_or_http1() {
    let bed = bed().await;
    let stream = bed.connect("a.test", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut sender = client::handshake_http2(stream).await;
    let request = Request::get("https://a.test/two")
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = Answer::read(sender.send_request(request).await.unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let line = bed.gateway.logged("/two").await;
    assert_eq!(
        (&line["protocol"], &line["tls"]),
        (&"HTTP/2".into(), &"TLSv1.3".into())
    );

    for alpn in [&[&b"http/1.1"[..]][..], &[]] {
        let stream = bed.connect("a.test", alpn).await.unwrap();
        let mut sender = client::handshake(stream).await.unwrap();
        let request = client::request("/one")
            .body(Full::<Bytes>::default())
            .unwrap();
        let answer = Answer::read(sender.send_request(request).await.unwrap())
            .await
            .unwrap();
        let fields = answer.json()["headers"].to_string();
        assert!(
            fields.contains("[\"x-forwarded-proto\",\"https\"]"),
            "{fields}"
        );
    }
}

#[tokio::test]
async fn a_request_for_another_certificate_is_misdirected() {
    let bed = bed().await;
    let stream = bed.connect("x.b.test", &[b"h2"]).await.unwrap();
    let mut sender = client::handshake_http2(stream).await;
    // A host with the same certificate, one with another, one that no certificate names.
    for (host, status) in [("y.b.test", 200), ("a.test", 421), ("other.test", 200)] {
        let request = Request::get(format!("https://{host}/")).body(Full::<Bytes>::default());
        let answer = Answer::read(sender.send_request(request.unwrap()).await.unwrap()).await;
        assert_eq!(answer.unwrap().status, status, "{host}");
    }
}

#[tokio::test]
async fn certificates_are_renewed_by_a_reload() {
    let mut bed = bed().await;
    let (pem, renewed) = certificate(&["a.test"]);
    bed.certificates.push(renewed.clone());
    let before = bed.connect("a.test", &[]).await.unwrap();
    assert_eq!(presented(&before), bed.certificates[0]);

    std::fs::write(bed.gateway.file("a.pem"), pem).unwrap();
    bed.gateway.signal("-HUP").await;
    eventually("the renewed certificate", async || {
        let stream = bed.connect("a.test", &[]).await.unwrap();
        (presented(&stream) == renewed).then_some(())
    })
    .await;
    let mut sender = client::handshake(before).await.unwrap();
    let request = client::request("/").body(Full::<Bytes>::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200, "connections from before live on");

    std::fs::write(bed.gateway.file("a.pem"), "no certificate").unwrap();
    bed.gateway.signal("-HUP").await;
    eventually("a refusal", async || {
        let series = "weir_gateway_reloads_total{result=\"refused\"}";
        (bed.gateway.metric(series).await > 0.5).then_some(())
    })
    .await;
    let stream = bed.connect("a.test", &[]).await.unwrap();
    assert_eq!(presented(&stream), renewed);
}

#[tokio::test]
async fn framing_is_checked_inside_tls_too() {
    let bed = bed().await;
    let mut stream = bed.connect("a.test", &[]).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost : a.test\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    let _ = tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_counted() {
    let bed = bed().await;
    let mut stream = TcpStream::connect(bed.address()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(!answer.contains("HTTP/1.1"), "{answer:?}");
    let mut silent = TcpStream::connect(bed.address()).await.unwrap();
    assert_eq!(
        read_to_end(&mut silent).await,
        "",
        "a handshake that never starts ends"
    );
    eventually("both are counted", async || {
        let failed = bed
            .gateway
            .metric("weir_gateway_tls_handshakes_failed_total")
            .await;
        (failed > 1.5).then_some(())
    })
    .await;
}
