//! TLS of a listener: rustls with the certificates of the configuration.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client_certificate::Clients;
use super::sni::{Certificates, Resolver};
use crate::config::{CertificateConfig, TlsConfig};
use crate::socket::Socket;

/// TLS of a listener.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    /// Chooses the certificates.
    pub(crate) resolver: Arc<Resolver>,
    /// `None`: clients are not asked for certificates.
    pub(super) clients: Option<Arc<Clients>>,
}

/// Makes TLS ready, with its certificates loaded.
pub(crate) fn prepare(config: &TlsConfig) -> anyhow::Result<Tls> {
    with_resolver(config, Arc::new(Resolver::new(certificates(config)?)))
}

/// The same after a reload. Connections can go on resuming their sessions unless clients are
/// checked in another way now; the certificates are still those of before.
pub(super) fn renewed(config: &TlsConfig, before: Tls) -> anyhow::Result<Tls> {
    let same = before.clients.as_ref().map(|clients| &clients.config) == config.clients.as_ref();
    match same {
        true => Ok(before),
        false => with_resolver(config, before.resolver),
    }
}

fn with_resolver(config: &TlsConfig, resolver: Arc<Resolver>) -> anyhow::Result<Tls> {
    let clients = config.clients.as_ref();
    let clients = clients.map(|clients| Arc::new(Clients::new(Arc::clone(clients))));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
    };
    let mut server = builder.with_cert_resolver(Arc::clone(&resolver) as _);
    match &clients {
        // Tickets let clients resume at any worker, without a table that workers would share.
        None => server.ticketer = aws_lc_rs::Ticketer::new()?,
        Some(_) => Clients::resume_nothing(&mut server),
    }
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(server));
    Ok(Tls {
        acceptor,
        resolver,
        clients,
    })
}

/// Loads the certificates of a listener.
pub(crate) fn certificates(config: &TlsConfig) -> anyhow::Result<Certificates> {
    let keys: anyhow::Result<Vec<_>> = config.certificates.iter().map(certified_key).collect();
    Certificates::new(keys?)
}

fn certified_key(config: &CertificateConfig) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain_path = &config.cert_chain_path;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(chain_path)?)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not a PEM certificate chain", chain_path.display()))?;
    let key_path = &config.key_path;
    let key = PrivateKeyDer::from_pem_slice(&read(key_path)?)
        .with_context(|| format!("{} holds no PEM private key", key_path.display()))?;
    let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    let key = key.with_context(|| {
        format!(
            "{} and {} do not belong together",
            chain_path.display(),
            key_path.display()
        )
    })?;
    Ok(Arc::new(key))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Finishes the handshake, or gives up after `timeout`.
pub(super) async fn handshake(
    tls: &Tls,
    stream: Socket,
    timeout: Duration,
) -> io::Result<TlsStream<Socket>> {
    tokio::time::timeout(timeout, tls.acceptor.accept(stream)).await?
}
