//! Certificates that clients of a listener show, as meant.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use rustls::server::danger::ClientCertVerifier;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of a connection by the certificate its client shows, or does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    /// There must be one, and it must be valid.
    Required,
    /// There may be none. One that is not valid is refused.
    Optional,
    /// The connection goes on whatever there is; instances are told of valid ones only.
    InsecureFallback,
}

/// Which certificates are valid, and what becomes of others. Two are equal if they were made from
/// the same settings and the same content of files.
#[derive(Clone)]
pub struct ClientCertificates {
    /// What becomes of connections.
    pub demand: ClientCertificate,
    /// Refuses what is not valid, and nobody who shows nothing unless `demand` does.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// The SHA-256 of all it was made from.
    pub made_from: [u8; SHA256_OUTPUT_LEN],
}

impl PartialEq for ClientCertificates {
    fn eq(&self, other: &Self) -> bool {
        self.made_from == other.made_from
    }
}

impl Eq for ClientCertificates {}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCertificates({:?})", self.demand)
    }
}
