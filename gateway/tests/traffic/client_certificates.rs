//! Certificates that clients show: who may come in, and what instances are told.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rcgen::DnType;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::certs::{Authority, Leaf};
use crate::support::client::{self, Answer};
use crate::support::eventually;
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::origin::Origin;

const ID: &str = "spiffe://test/client";
const FIELD: &str = "x-forwarded-client-cert";

/// Who issues what.
struct Issuers {
    /// Of the gateway's own certificate.
    server: Authority,
    known: Authority,
    unknown: Authority,
}

impl Issuers {
    fn new() -> Self {
        Self {
            server: Authority::new("server"),
            known: Authority::new("known"),
            unknown: Authority::new("unknown"),
        }
    }

    /// A client that trusts the gateway, and shows this.
    fn client(&self, shown: Option<&Leaf>, (http2, tls12): (bool, bool)) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.server.pem().as_bytes());
        roots.add(root.unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let version = if tls12 { [&TLS12] } else { [&TLS13] };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&version)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder
                .with_client_auth_cert(leaf.chain.clone(), leaf.key())
                .unwrap(),
        };
        let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    }

    /// A gateway with these listeners before an instance.
    async fn gateway(&self, origin: &Origin, listeners: &str, more: &[(&str, &str)]) -> Gateway {
        let configuration = [
            BASE.to_owned(),
            listeners.to_owned(),
            service("app", &[origin.address], ""),
            route("all", "/{*rest}", "app", ""),
        ];
        let (own, ca) = (
            self.server.issue(&["a.test", "b.test"]).pem,
            self.known.pem(),
        );
        let mut files = vec![("own.pem", own.as_str()), ("ca.pem", ca.as_str())];
        files.extend(more);
        Gateway::start_with(&configuration.concat(), &files).await
    }
}

fn listener(name: &str, tls: &str) -> String {
    format!(
        "[listeners.{name}]\nbind = \"127.0.0.1:0\"\n\
         tls = {{ certificates = [\"own.pem\"], client_ca = \"ca.pem\", {tls} }}\n"
    )
}

fn named(params: &mut rcgen::CertificateParams, serial: u64) {
    params.serial_number = Some(serial.into());
    params.distinguished_name.push(DnType::CommonName, "client");
}

async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("a.test").unwrap();
    TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
}

/// Asks for `/`, with a claim to be somebody. With TLS 1.3, clients learn only from the answer that
/// they were refused.
async fn ask(address: SocketAddr, config: &Arc<ClientConfig>) -> Option<Answer> {
    let stream = connect(address, config).await.ok()?;
    let body = Full::<Bytes>::default();
    if config.alpn_protocols[0] == b"h2" {
        let mut sender = client::handshake_http2(stream).await;
        let request = Request::get("https://a.test/").header(FIELD, "Hash=forged");
        let response = sender.send_request(request.body(body).unwrap()).await;
        return Some(Answer::read(response.ok()?).await.unwrap());
    }
    let mut sender = client::handshake(stream).await.unwrap();
    let request = client::request("/").header(FIELD, "Hash=forged");
    let response = sender.send_request(request.body(body).unwrap()).await;
    Some(Answer::read(response.ok()?).await.unwrap())
}

/// What the instance was told.
fn seen(answer: &Answer) -> Vec<String> {
    let fields = answer.json()["headers"].as_array().unwrap().clone();
    let values = fields.into_iter().filter(|field| field[0] == FIELD);
    values
        .map(|field| field[1].as_str().unwrap().to_owned())
        .collect()
}

fn hash(leaf: &Leaf) -> String {
    let digits = digest(&SHA256, &leaf.chain[0]);
    digits
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test]
async fn clients_come_in_by_what_they_show() {
    let issuers = Issuers::new();
    let below = issuers.known.subordinate("below");
    let valid = issuers
        .known
        .issue_as(&["c.test", ID], |params| named(params, 1));
    let subordinate = below.issue_as(&["c.test", ID], |params| named(params, 2));
    let revoked = issuers
        .known
        .issue_as(&["c.test"], |params| named(params, 3));
    let expired = issuers.known.issue_expired(&["c.test"]);
    let unknown = issuers.unknown.issue(&["c.test"]);
    let crl = issuers.known.revokes(&[3], true) + &below.revokes(&[1], true);
    let origin = Origin::start("one").await;
    let list = "client_crl = \"crl.pem\"";
    let listeners = [
        listener("required", list),
        listener(
            "optional",
            &format!("client_certificate = \"optional\", {list}"),
        ),
        listener(
            "fallback",
            &format!("client_certificate = \"insecure-fallback\", {list}"),
        ),
    ];
    let files = [("crl.pem", crl.as_str())];
    let mut gateway = issuers.gateway(&origin, &listeners.concat(), &files).await;

    // What is shown, what it counts as, whether instances are told of it; and who may come in: where
    // it is required, optional, and in any case.
    let table = [
        (Some(&valid), "valid", true, [true, true, true]),
        (Some(&subordinate), "valid", true, [true, true, true]),
        (Some(&revoked), "revoked", false, [false, false, true]),
        (Some(&expired), "expired", false, [false, false, true]),
        (
            Some(&unknown),
            "unknown-issuer",
            false,
            [false, false, true],
        ),
        (None, "missing", false, [false, true, true]),
    ];
    let ways = [(false, false), (true, false), (false, true), (true, true)];
    let mut counts = std::collections::BTreeMap::new();
    for (shown, outcome, told, comes_in) in table {
        for way in ways {
            let client = issuers.client(shown, way);
            let names = ["required", "optional", "fallback"];
            for (name, comes_in) in names.into_iter().zip(comes_in) {
                *counts.entry(outcome).or_insert(0.0) += 1.0;
                let answer = ask(gateway.listener(name), &client).await;
                assert_eq!(answer.is_some(), comes_in, "{outcome}, {name}, {way:?}");
                let Some(answer) = answer else { continue };
                let expected = shown.filter(|_| told).map(|leaf| {
                    let hash = hash(leaf);
                    format!("Hash={hash};Subject=\"CN=client\";URI={ID};DNS=c.test")
                });
                let expected: Vec<String> = expected.into_iter().collect();
                assert_eq!(seen(&answer), expected, "{outcome}, {name}, {way:?}");
            }
        }
    }
    for (outcome, count) in counts {
        let series = format!("weir_gateway_tls_client_certificates_total{{result=\"{outcome}\"}}");
        let counted = eventually("all are counted", async || {
            let counted = gateway.metric(&series).await;
            (counted >= count).then_some(counted)
        });
        assert!((counted.await - count).abs() < 0.5, "{outcome}");
    }
    assert!(gateway.says("client refused").await);
    let plain = client::request("/").header(FIELD, "Hash=forged");
    let plain = plain.body(Full::<Bytes>::default()).unwrap();
    let answer = client::send(gateway.address(), plain).await;
    assert!(seen(&answer).is_empty(), "in the clear too");
}

#[tokio::test]
async fn trusted_proxies_are_believed_and_the_field_may_be_left_out() {
    let issuers = Issuers::new();
    let origin = Origin::start("one").await;
    let listeners = [
        listener("trusting", "") + "trusted_proxies = [\"127.0.0.0/8\"]\n",
        listener("silent", "") + "added_headers = [\"via\"]\n",
    ];
    let gateway = issuers.gateway(&origin, &listeners.concat(), &[]).await;
    let leaf = issuers.known.issue_as(&[], |params| named(params, 1));
    let client = issuers.client(Some(&leaf), (false, false));
    let told = format!("Hash={};Subject=\"CN=client\"", hash(&leaf));
    let answer = ask(gateway.listener("trusting"), &client).await.unwrap();
    assert_eq!(seen(&answer), [format!("Hash=forged, {told}")]);
    let answer = ask(gateway.listener("silent"), &client).await.unwrap();
    assert!(seen(&answer).is_empty());
}

#[tokio::test]
async fn nobody_comes_in_by_an_earlier_session() {
    let issuers = Issuers::new();
    let origin = Origin::start("one").await;
    let open = "[listeners.open]\nbind = \"127.0.0.1:0\"\ntls = { certificates = [\"own.pem\"] }\n";
    let listeners = listener("shut", "") + open;
    let gateway = issuers.gateway(&origin, &listeners, &[]).await;
    let leaf = issuers.known.issue(&["c.test"]);
    for tls12 in [false, true] {
        // Full or resumed, of two connections.
        for (name, second) in [
            ("open", HandshakeKind::Resumed),
            ("shut", HandshakeKind::Full),
        ] {
            let client = issuers.client(Some(&leaf), (false, tls12));
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let stream = connect(gateway.listener(name), &client).await.unwrap();
                kinds.push(stream.get_ref().1.handshake_kind());
                // Tickets come with the answer.
                let mut sender = client::handshake(stream).await.unwrap();
                let request = client::request("/").body(Full::<Bytes>::default());
                let response = sender.send_request(request.unwrap()).await.unwrap();
                assert_eq!(Answer::read(response).await.unwrap().status, 200);
            }
            let first = Some(HandshakeKind::Full);
            assert_eq!(kinds, [first, Some(second)], "{name}, TLS 1.2: {tls12}");
        }
    }
}

#[tokio::test]
async fn a_reload_changes_who_is_known() {
    let issuers = Issuers::new();
    let origin = Origin::start("one").await;
    let crl = issuers.known.revokes(&[9], true);
    let listeners = listener("shut", "client_crl = \"crl.pem\"");
    let files = [("crl.pem", crl.as_str())];
    let gateway = issuers.gateway(&origin, &listeners, &files).await;
    let address = gateway.listener("shut");
    let leaf = issuers
        .known
        .issue_as(&["c.test"], |params| named(params, 1));
    let known = issuers.client(Some(&leaf), (false, false));
    let other = issuers.unknown.issue(&["c.test"]);
    let unknown = issuers.client(Some(&other), (false, false));
    let comes_in = async |client| ask(address, client).await.is_some();
    let reload = async |file: &str, text: &str| {
        std::fs::write(gateway.file(file), text).unwrap();
        gateway.command(&["reload"]).await.code
    };
    assert!(comes_in(&known).await && !comes_in(&unknown).await);
    let before = connect(address, &known).await.unwrap();
    let mut before = client::handshake(before).await.unwrap();

    // Revoked; the list out of date; another issuer; and what is no list.
    assert_eq!(
        reload("crl.pem", &issuers.known.revokes(&[1], true)).await,
        Some(0)
    );
    assert!(!comes_in(&known).await);
    assert_eq!(
        reload("crl.pem", &issuers.known.revokes(&[9], false)).await,
        Some(0)
    );
    assert!(!comes_in(&known).await);
    assert_eq!(reload("crl.pem", &crl).await, Some(0));
    assert!(comes_in(&known).await);
    let both = issuers.unknown.revokes(&[], true);
    assert_eq!(reload("crl.pem", &both).await, Some(0));
    assert_eq!(reload("ca.pem", &issuers.unknown.pem()).await, Some(0));
    assert!(!comes_in(&known).await && comes_in(&unknown).await);
    assert_ne!(reload("crl.pem", "no list").await, Some(0));
    assert!(comes_in(&unknown).await);

    let request = client::request("/").body(Full::<Bytes>::default()).unwrap();
    let response = before.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200, "connections from before live on");
}
