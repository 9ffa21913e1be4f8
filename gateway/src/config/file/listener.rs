//! `[listeners.NAME]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::model::{AddedHeader, ClientCertificate};
use super::{Certificate, Placed};

/// `[listeners.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port, such as `0.0.0.0:443` or `[::]:443`.
    pub bind: Placed<String>,
    /// Whether `[::]` takes IPv6 alone; otherwise IPv4 clients reach it too.
    #[serde(default)]
    pub ipv6_only: bool,
    /// TLS; left out: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Networks whose `Forwarded`, `X-Forwarded-*`, `X-Request-Id` and `traceparent` are believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<Placed<String>>,
    /// The fields that tell instances of the client, and others of the gateway. Those left out are
    /// not added; what untrusted peers send of them is taken out either way, `via` excepted.
    #[serde(default = "all_added")]
    pub added_headers: Vec<AddedHeader>,
}

fn all_added() -> Vec<AddedHeader> {
    AddedHeader::ALL.to_vec()
}

/// `tls = { … }` of a listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Chosen by SNI; the first one serves clients that send none.
    pub certificates: Placed<Vec<Placed<Certificate>>>,
    /// A PEM file with the issuers of clients' certificates, of which the client shows one; left
    /// out: clients are not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<Placed<String>>,
    /// What becomes of clients by their certificate; left out: `required`, if there is `client_ca`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<Placed<ClientCertificate>>,
    /// A PEM file with the revocation lists of all issuers, root and subordinate ones; left out:
    /// nobody's certificate is revoked. With a list that is out of date, no certificate is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_crl: Option<Placed<String>>,
}

impl Tls {
    /// What becomes of clients by their certificate, where they are asked for one.
    pub(in crate::config) fn client_certificate(&self) -> ClientCertificate {
        let given = self.client_certificate.as_ref();
        given.map_or(ClientCertificate::Required, |given| **given)
    }

    /// Writes out the defaults that depend on other keys.
    pub(super) fn complete(&mut self) {
        if self.client_ca.is_some() {
            self.client_certificate = Some(Placed::absent(self.client_certificate()));
        }
    }
}
