//! What every request must pass before it is forwarded: who sent it, and may they send more.
//!
//! Filters decide on the request head alone, without I/O, and change nothing but the
//! [`Context`]. Their order is fixed, and written once, in [`chain`].

pub mod api_key;
pub mod chain;
pub mod jwt;
pub mod key;
pub mod rate_limit;
pub mod reject;

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

/// What the gateway knows about one request beside its head; filters add to it.
#[derive(Debug)]
pub struct Context {
    /// The client's address, after trusted proxies were looked through.
    pub client: IpAddr,
    /// Who sent the request, once an authentication filter has accepted it.
    pub identity: Option<Arc<Identity>>,
    /// Fields to add to the response, whether it is forwarded or refused: `RateLimit` and
    /// `RateLimit-Policy`.
    pub response_headers: HeaderMap,
}

impl Context {
    /// A context that knows only where the request came from.
    pub fn new(client: IpAddr) -> Self {
        Self {
            client,
            identity: None,
            response_headers: HeaderMap::new(),
        }
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
