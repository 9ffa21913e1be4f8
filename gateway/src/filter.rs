//! What every request must pass before it is forwarded: who sent it, and may they send more.
//!
//! Filters decide on the request head alone, without I/O, and change nothing but the
//! [`Context`]. Their order is fixed, and written once, in [`chain`].

pub mod api_key;
pub mod chain;
mod hashed;
pub mod in_flight;
pub mod jwt;
pub mod key;
pub mod rate_limit;
pub mod reject;

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use crate::route::changes::Settled;

/// What the gateway knows about one request beside its head; filters add to it.
#[derive(Debug)]
pub struct Context {
    /// The client's address, after trusted proxies were looked through.
    pub client: IpAddr,
    /// Whom an accepted token speaks for.
    pub identity: Option<Arc<Identity>>,
    /// Whose API key was accepted.
    pub api_key: Option<Arc<Identity>>,
    /// Fields to add to the response, whether it is forwarded or refused: `RateLimit` and
    /// `RateLimit-Policy`.
    pub response_headers: HeaderMap,
    /// Places the request holds among those its sender may have.
    pub places: Vec<in_flight::Place>,
    /// What the route changes in the header fields of the answer, whoever gives it.
    pub response_changes: Vec<Arc<Settled>>,
}

impl Context {
    /// A context that knows only where the request came from.
    pub fn new(client: IpAddr) -> Self {
        Self {
            client,
            identity: None,
            api_key: None,
            response_headers: HeaderMap::new(),
            places: Vec::new(),
            response_changes: Vec::new(),
        }
    }

    /// Who sent the request, for the access log: the token's subject, else the API key's name.
    pub fn subject(&self) -> Option<&str> {
        let identity = self.identity.as_ref().or(self.api_key.as_ref())?;
        Some(&identity.subject)
    }
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The name of the authentication in the configuration that vouches for this.
    pub auth: Arc<str>,
    /// The token's `sub`, or the API key's name in the configuration; may be empty for a token
    /// without `sub`.
    pub subject: String,
    /// The token's claims; empty for an API key.
    pub claims: serde_json::Map<String, serde_json::Value>,
}
