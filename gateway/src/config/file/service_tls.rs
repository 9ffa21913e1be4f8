//! `[services.NAME.tls]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Certificate, Placed};

/// `[services.NAME.tls]`: instances are reached over TLS. An instance whose certificate is not the
/// right one gets no request.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceTls {
    /// A PEM file with the issuers that are trusted; left out: those the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<Placed<String>>,
    /// The name that is asked for (SNI) and that the certificate must hold; left out: the name in
    /// `discover.dns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<Placed<String>>,
    /// Names of which the certificate must hold one instead: DNS names, addresses, or URIs such as
    /// a SPIFFE id. `server_name` then only says what is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Placed<String>>,
    /// What the gateway shows instances that ask who it is; left out: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Placed<Certificate>>,
}
