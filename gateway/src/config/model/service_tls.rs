//! TLS towards the instances of a service, as meant.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

/// How the instances of a service are reached over TLS. Two are equal if they were made from the
/// same settings and the same content of files.
#[derive(Clone)]
pub struct ServiceTls {
    /// What is asked for (SNI); `None`: nothing.
    pub server_name: Option<ServerName<'static>>,
    /// Issuers, names and the gateway's own certificate; without ALPN.
    pub client: Arc<ClientConfig>,
    /// The SHA-256 of all it was made from.
    pub made_from: [u8; SHA256_OUTPUT_LEN],
}

impl ServiceTls {
    /// The name of the service, where it has one that is no address.
    pub fn host(&self) -> Option<&str> {
        match &self.server_name {
            Some(ServerName::DnsName(name)) => Some(name.as_ref()),
            _ => None,
        }
    }
}

impl PartialEq for ServiceTls {
    fn eq(&self, other: &Self) -> bool {
        self.made_from == other.made_from
    }
}

impl Eq for ServiceTls {}

impl fmt::Debug for ServiceTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceTls({:?})", self.server_name)
    }
}
