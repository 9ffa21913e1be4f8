//! A certificate authority made at run time, and server certificates from it.

use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};

/// A certificate authority that exists only in this process.
pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate and private key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key, PKCS #8.
    pub key_pem: String,
}

impl Authority {
    /// A new authority with a key of its own.
    ///
    /// # Errors
    ///
    /// When the random number generator fails.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Weir test bed");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's certificate, PEM: what `curl --cacert` takes.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// A server certificate for DNS names or addresses.
    ///
    /// # Errors
    ///
    /// When a name is no DNS name.
    pub fn issue(&self, names: &[&str]) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names.clone())
            .with_context(|| format!("certificate for {names:?}"))?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// A TLS client that trusts only this authority and offers `protocols` by ALPN.
    ///
    /// # Errors
    ///
    /// When rustls refuses the authority's certificate.
    pub fn client(&self, protocols: &[&str]) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone())?;
        let mut client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Arc::new(client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_issues_pem_and_builds_a_client() {
        let authority = Authority::new().unwrap();
        let identity = authority.issue(&["api.example.com", "127.0.0.1"]).unwrap();
        assert!(
            identity
                .certificate_pem
                .starts_with("-----BEGIN CERTIFICATE-----")
        );
        assert!(identity.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_ne!(authority.certificate_pem(), identity.certificate_pem);
        assert_eq!(authority.client(&["h2"]).unwrap().alpn_protocols, [b"h2"]);
    }

    #[test]
    fn a_name_that_is_no_name_is_refused() {
        assert!(
            Authority::new()
                .unwrap()
                .issue(&["b\u{fc}cher.example"])
                .is_err()
        );
    }
}
