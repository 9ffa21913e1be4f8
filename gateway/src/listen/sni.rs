//! Which certificate a client gets, by the server name it asks for (SNI, RFC 6066 section 3).
//!
//! An exact name wins over a wildcard, which stands for one label (RFC 9525 section 6.3). A client
//! that names nothing, or something unknown, gets the first certificate of the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

/// The certificates of one listener.
#[derive(Debug)]
pub(crate) struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    names: Names,
}

impl Certificates {
    /// The certificates, the default first.
    pub(super) fn new(keys: Vec<Arc<CertifiedKey>>) -> anyhow::Result<Self> {
        let mut names = Names::default();
        for (index, key) in keys.iter().enumerate() {
            let leaf = key.cert.first().context("a certificate chain is empty")?;
            let leaf = EndEntityCert::try_from(leaf).context("a certificate cannot be read")?;
            for name in leaf.valid_dns_names() {
                names.add(name, index);
            }
        }
        Ok(Self { keys, names })
    }
}

/// Chooses among certificates that a reload may replace.
#[derive(Debug)]
pub(crate) struct Resolver(ArcSwap<Certificates>);

impl Resolver {
    pub(super) fn new(certificates: Certificates) -> Self {
        Self(ArcSwap::from_pointee(certificates))
    }

    /// Whether a connection that was opened for `name` must not carry requests for `host`: another
    /// certificate is meant for it, so another configuration may be (RFC 9110 section 15.5.20).
    pub(crate) fn differ(&self, name: &str, host: &str) -> bool {
        let certificates = self.0.load();
        let presented = certificates.names.find(name).unwrap_or(0);
        certificates
            .names
            .find(host)
            .is_some_and(|meant| meant != presented)
    }

    /// Uses these certificates from the next handshake on.
    pub(crate) fn replace(&self, certificates: Certificates) {
        self.0.store(Arc::new(certificates));
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        let named = hello
            .server_name()
            .and_then(|name| certificates.names.find(name));
        certificates.keys.get(named.unwrap_or(0)).cloned()
    }
}

/// Names to positions in the list of certificates.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, usize>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, usize>,
}

impl Names {
    /// Where two certificates hold a name, the first one keeps it.
    fn add(&mut self, name: &str, index: usize) {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(suffix) => self.wildcard.entry(suffix.to_owned()).or_insert(index),
            None => self.exact.entry(name).or_insert(index),
        };
    }

    fn find(&self, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        let suffix = name.split_once('.').map(|(_, suffix)| suffix);
        let wildcard = || self.wildcard.get(suffix?);
        self.exact.get(&name).or_else(wildcard).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_win_over_wildcards() {
        let mut names = Names::default();
        let held = [
            "a.example",
            "*.b.example",
            "special.b.example",
            "A.example",
            "*.example",
        ];
        for (index, name) in held.into_iter().enumerate() {
            names.add(name, index);
        }
        let table = [
            ("a.example", Some(0)),
            ("A.EXAMPLE", Some(0)),
            ("x.b.example", Some(1)),
            ("special.b.example", Some(2)),
            ("c.example", Some(4)),
            ("x.y.b.example", None),
            ("b.example", Some(4)),
            ("example", None),
            ("other.test", None),
        ];
        for (name, expected) in table {
            assert_eq!(names.find(name), expected, "{name}");
        }
    }
}
