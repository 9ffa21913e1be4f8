//! Listeners: addresses, certificates, trusted proxies.

use std::collections::BTreeMap;

use ipnet::IpNet;
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
                tls: listener.tls.as_ref().map(|tls| self.tls(tls)),
                trusted_proxies: self.networks(&listener.trusted_proxies),
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
        TlsConfig { certificates }
    }

    /// Checks that the files hold what they should. What they hold is read when TLS is set up.
    fn certificate(&mut self, files: &Placed<Certificate>) -> CertificateConfig {
        let chain = self.read(&files.chain, files.span());
        if let Some(chain) = &chain
            && CertificateDer::from_pem_slice(chain).is_err()
        {
            let message = format!("{} holds no certificate", files.chain);
            self.refuse(Problem::at(files.span(), message).hint("a PEM file is expected"));
        }
        let key_file = if files.key == files.chain {
            chain
        } else {
            self.read(&files.key, files.span())
        };
        if let Some(key) = key_file
            && PrivateKeyDer::from_pem_slice(&key).is_err()
        {
            let message = format!("{} holds no private key", files.key);
            self.refuse(Problem::at(files.span(), message).hint(
                "put the key into the same PEM file, or write { chain = \"…\", key = \"…\" }",
            ));
        }
        CertificateConfig {
            cert_chain_path: self.path(&files.chain),
            key_path: self.path(&files.key),
        }
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
