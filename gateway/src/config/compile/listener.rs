//! Listeners: addresses, certificates, trusted proxies.

use std::collections::BTreeMap;

use ipnet::IpNet;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::super::error::Problem;
use super::super::file::{Certificate, Listener, Named, Placed, Tls};
use super::super::model::{CertificateConfig, ListenerConfig, TlsConfig};
use super::Compiler;

impl Compiler<'_> {
    pub(super) fn listeners(&mut self, typed: &Named<Listener>) -> Vec<ListenerConfig> {
        if typed.is_empty() {
            self.refuse(
                Problem::whole("there is no listener")
                    .hint("add `[listeners.public]` with `bind = \"0.0.0.0:8080\"`"),
            );
        }
        let mut bound = BTreeMap::new();
        let mut listeners = Vec::new();
        for (name, listener) in typed {
            let bind = self.address(&listener.bind);
            // Port 0 is a port of its own each time.
            let earlier = bound
                .insert(bind, (name, &listener.bind))
                .filter(|_| bind.port() != 0);
            if let Some((other, earlier)) = earlier {
                let (earlier, this) = (earlier.span(), listener.bind.span());
                let later = if earlier.start > this.start {
                    earlier
                } else {
                    this
                };
                let message = format!("`{bind}` is bound by listeners `{other}` and `{name}`");
                self.refuse(Problem::at(later, message));
            }
            listeners.push(ListenerConfig {
                name: name.to_string(),
                bind,
                ipv6_only: listener.ipv6_only,
                tls: listener.tls.as_ref().map(|tls| self.tls(tls)),
                trusted_proxies: self.networks(&listener.trusted_proxies),
                added_headers: listener.added_headers.iter().copied().collect(),
            });
        }
        listeners
    }

    fn tls(&mut self, tls: &Tls) -> TlsConfig {
        if tls.certificates.is_empty() {
            self.refuse(
                Problem::at(
                    tls.certificates.span(),
                    "TLS needs at least one certificate",
                )
                .hint("name a PEM file with the chain and its key"),
            );
        }
        let certificates = tls
            .certificates
            .iter()
            .map(|files| self.certificate(files))
            .collect();
        TlsConfig {
            certificates,
            clients: self.client_certificates(tls),
        }
    }

    /// Checks that the files hold a chain and its key. They are read again when TLS is set up.
    fn certificate(&mut self, files: &Placed<Certificate>) -> CertificateConfig {
        self.certificate_pair(files);
        CertificateConfig {
            cert_chain_path: self.path(&files.chain),
            key_path: self.path(&files.key),
        }
    }

    /// A chain and its key, both PEM.
    pub(super) fn certificate_pair(
        &mut self,
        files: &Placed<Certificate>,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let chain = self.read(&files.chain, files.span());
        let key = match files.key == files.chain {
            true => chain.clone(),
            false => self.read(&files.key, files.span()),
        };
        let (chain, key) = (chain?, key?);
        if let Err((reason, hint)) = check_pair(&chain, &key) {
            self.refuse(Problem::at(files.span(), reason).hint(hint));
            return None;
        }
        Some((chain, key))
    }

    fn networks(&mut self, texts: &[Placed<String>]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for text in texts {
            let address = text
                .parse()
                .map(|address: std::net::IpAddr| IpNet::from(address));
            let Ok(network) = text.parse().or(address) else {
                self.refuse(
                    Problem::at(text.span(), format!("`{text}` is no network"))
                        .hint("write a network such as \"10.0.0.0/8\", or a single address"),
                );
                continue;
            };
            if network != network.trunc() {
                let message = format!("`{network}` has bits set behind its prefix");
                let hint = format!("did you mean `{}`?", network.trunc());
                self.refuse(Problem::at(text.span(), message).hint(hint));
            }
            networks.push(network);
        }
        networks
    }
}

/// Whether PEM texts are a certificate chain and the key of its first certificate; if not, the
/// reason and what to do.
fn check_pair(chain: &[u8], key: &[u8]) -> Result<(), (&'static str, &'static str)> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| ("the certificates cannot be read", "a PEM file is expected"))?;
    if chain.is_empty() {
        return Err((
            "there is no certificate in the file",
            "a PEM file is expected",
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        let hint = "put the key into the same PEM file, or write { chain = \"…\", key = \"…\" }";
        ("there is no private key in the file", hint)
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err((
            "the private key belongs to another certificate",
            "the chain begins with the certificate the key was made for",
        )),
        Err(_) => Err((
            "certificate or key is of a kind TLS cannot use",
            "use RSA of at least 2048 bits, P-256, P-384 or Ed25519",
        )),
    }
}
