//! `[auth.NAME]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Named, Placed, Source};
use crate::config::units::{Duration, Size};

/// `[auth.NAME]`; which keys belong depends on `type`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// `jwt` or `api-key`.
    #[serde(rename = "type")]
    pub kind: AuthKind,
    /// jwt: the only accepted `iss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Placed<String>>,
    /// jwt: one of these must be in `aud`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<Placed<Vec<String>>>,
    /// jwt: the key set (RFC 7517). `alg` of a key is binding; without it RSA means RS256,
    /// P-256 ES256, P-384 ES384, Ed25519 EdDSA, `oct` HS256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Placed<Source>>,
    /// jwt: keys for other algorithms are left out of the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Placed<Vec<Placed<String>>>>,
    /// jwt: all of these must be in `scope` (or `scp`); otherwise 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Placed<Vec<String>>>,
    /// jwt: how far clocks may differ; default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leeway: Option<Placed<Duration>>,
    /// jwt: bytes of a token; default 8KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_bytes_max: Option<Placed<Size>>,
    /// jwt: verified tokens remembered, of 2KiB on average at most; default 10000, 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_cached_max: Option<Placed<usize>>,
    /// api-key: the header that carries the key; default `x-api-key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Placed<String>>,
    /// api-key: name = `sha256:…` for each key, as `weir-gateway hash-key` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Placed<Named<Placed<String>>>>,
}

impl Auth {
    /// How far clocks may differ.
    pub fn leeway(&self) -> Placed<Duration> {
        self.leeway
            .clone()
            .unwrap_or_else(|| Placed::absent(Duration::from_secs(30)))
    }

    /// Bytes of a token.
    pub fn token_bytes_max(&self) -> Placed<Size> {
        self.token_bytes_max
            .clone()
            .unwrap_or_else(|| Placed::absent(Size(8 << 10)))
    }

    /// Verified tokens remembered.
    pub fn tokens_cached_max(&self) -> Placed<usize> {
        self.tokens_cached_max
            .clone()
            .unwrap_or_else(|| Placed::absent(10_000))
    }

    /// The header that carries the API key.
    pub fn header(&self) -> Placed<String> {
        self.header
            .clone()
            .unwrap_or_else(|| Placed::absent("x-api-key".to_owned()))
    }

    /// Writes out the defaults that depend on the type.
    pub(super) fn complete(&mut self) {
        match self.kind {
            AuthKind::Jwt => {
                self.leeway = Some(self.leeway());
                self.token_bytes_max = Some(self.token_bytes_max());
                self.tokens_cached_max = Some(self.tokens_cached_max());
            }
            AuthKind::ApiKey => self.header = Some(self.header()),
        }
    }
}

/// How senders prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuthKind {
    /// A signed token in `Authorization: Bearer` (RFC 7519, RFC 6750).
    Jwt,
    /// A secret in a header, of which the file holds only the hash.
    ApiKey,
}
