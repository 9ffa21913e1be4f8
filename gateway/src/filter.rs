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

use http::{HeaderMap, HeaderName, HeaderValue};

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
    /// What filters tell the client, whether the request is forwarded or refused.
    pub told: Told,
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
            told: Told::default(),
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

/// Fields that filters add to the response: `RateLimit` and `RateLimit-Policy`. They are few and
/// looked up by nobody, so they are no map.
#[derive(Debug, Default)]
pub struct Told(Vec<(HeaderName, HeaderValue, Order)>);

/// Which of the fields of one name it is.
#[derive(Clone, Copy, Debug)]
enum Order {
    First,
    Further,
}

impl Told {
    /// Adds a field, after those of the same name.
    pub fn add(&mut self, name: HeaderName, value: HeaderValue) {
        let order = match self.values(&name).next() {
            None => Order::First,
            Some(_) => Order::Further,
        };
        self.0.push((name, value, order));
    }

    /// The values of a field, in the order they were added.
    pub fn values(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        let fields = self.0.iter().filter(move |(known, ..)| known == name);
        fields.map(|(_, value, _)| value)
    }

    /// Puts the fields in the place of those that the response has by these names: an instance
    /// knows nothing of the gateway's limits.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        for (name, value, order) in self.0 {
            match order {
                Order::First => drop(headers.insert(name, value)),
                Order::Further => drop(headers.append(name, value)),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_filters_tell_stands_in_the_place_of_what_the_instance_says() {
        const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ratelimit", "theirs"),
            ("server", "app"),
            ("ratelimit", "2"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut told = Told::default();
        told.add(LIMIT, HeaderValue::from_static("first"));
        told.add(LIMIT, HeaderValue::from_static("second"));
        told.write(&mut headers);
        let limits: Vec<_> = headers.get_all(LIMIT).iter().collect();
        assert_eq!(limits, ["first", "second"]);
        assert_eq!(headers["server"], "app");
    }
}
