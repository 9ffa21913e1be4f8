//! Instances behind TLS: whatever comes is passed on to a plain server, as `stunnel` would.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certs::Leaf;

/// A running front. Stopped when dropped.
pub(crate) struct Secure {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

/// What was agreed on in a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) resumed: bool,
    /// Whether the client has shown a certificate.
    pub(crate) client: bool,
}

/// What a server wants of TLS.
pub(crate) struct Wants {
    /// Whose certificates clients must show; `None`: nobody is asked.
    pub(crate) client_ca: Option<RootCertStore>,
    pub(crate) alpn: &'static [&'static str],
    pub(crate) tls12: bool,
}

impl Default for Wants {
    fn default() -> Self {
        Self {
            client_ca: None,
            alpn: &["h2", "http/1.1"],
            tls12: false,
        }
    }
}

impl Secure {
    /// A front of a plain server.
    pub(crate) async fn before(plain: SocketAddr, leaf: &Leaf) -> Self {
        Self::wanting(plain, leaf, Wants::default()).await
    }

    /// The same, particular about its clients.
    pub(crate) async fn wanting(plain: SocketAddr, leaf: &Leaf, wants: Wants) -> Self {
        Self::serving(leaf, wants, move |mut stream| async move {
            let mut plain = TcpStream::connect(plain).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
        })
        .await
    }

    /// A server that does as it likes with each connection.
    pub(crate) async fn serving<F>(
        leaf: &Leaf,
        wants: Wants,
        serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let acceptor = TlsAcceptor::from(Arc::new(config(leaf, wants)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
                let serve = serve.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        noted.lock().unwrap().push(Seen::of(&stream));
                        serve(stream).await;
                    }
                });
            }
        });
        Self {
            address,
            seen,
            task: task.abort_handle(),
        }
    }

    /// Every handshake that was completed.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn of(stream: &TlsStream<TcpStream>) -> Self {
        let session = stream.get_ref().1;
        let alpn = session.alpn_protocol();
        Self {
            server_name: session.server_name().map(ToOwned::to_owned),
            alpn: alpn.map(|alpn| String::from_utf8(alpn.to_vec()).unwrap()),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            client: session.peer_certificates().is_some(),
        }
    }
}

fn config(leaf: &Leaf, wants: Wants) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = match wants.tls12 {
        true => [&TLS12],
        false => [&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .unwrap();
    let builder = match wants.client_ca {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder
        .with_single_cert(leaf.chain.clone(), leaf.key())
        .unwrap();
    config.alpn_protocols = wants.alpn.iter().map(|one| one.as_bytes().into()).collect();
    config
}
