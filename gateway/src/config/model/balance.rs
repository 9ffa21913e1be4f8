//! The instances of a service and how one is chosen, as meant.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::filter::key::RequestKey;

/// Instances of one service at most, listed and discovered.
pub const ENDPOINTS_MAX: usize = 4096;

/// An instance as configured or discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Where it is reached.
    pub address: SocketAddr,
    /// Its share of the requests, beside the weights of the others; 0: none but those that stick
    /// to it.
    pub weight: u16,
    /// Instances of a higher number are used when those of lower ones cannot bear the load.
    pub priority: u16,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
}

impl EndpointConfig {
    /// An instance like most.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            weight: 1,
            priority: 0,
            zone: None,
        }
    }
}

/// The address, and what of the rest is not as usual.
impl fmt::Display for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::new(self.address);
        let rest = [
            (self.weight != usual.weight).then(|| format!("weight {}", self.weight)),
            (self.priority != usual.priority).then(|| format!("priority {}", self.priority)),
            self.zone.as_ref().map(|zone| format!("zone {zone}")),
        ];
        let rest: Vec<String> = rest.into_iter().flatten().collect();
        match &*rest {
            [] => write!(f, "{}", self.address),
            rest => write!(f, "{} ({})", self.address, rest.join(", ")),
        }
    }
}

/// How an instance is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    /// Among equals.
    pub method: Method,
    /// The time over which an instance that is new or healthy again comes to its full share;
    /// `None`: it has it at once. Consistent hashing knows no slow start.
    pub slow_start: Option<Duration>,
    /// Between priorities and zones.
    pub failover: Failover,
    /// Requests that carry the gateway's cookie return to the same instance.
    pub sticky: Option<Sticky>,
}

/// How an instance is chosen among equals.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// Each in turn, by weight.
    RoundRobin,
    /// The one of two random instances with fewer requests in flight for its weight.
    LeastRequest,
    /// The one of two random instances that is likely to answer first.
    PeakEwma {
        /// After which a slow answer counts for 1/e of what it did; more than nothing.
        decay: Duration,
    },
    /// Any, by weight.
    Random,
    /// The same instance for the same key, as far as instances stay.
    ConsistentHash {
        /// The key; requests without it go by turns.
        by: RequestKey,
        /// How much of the mean load, by weight, an instance may have, in percent, at least 100;
        /// beyond it the request goes to the next. `None`: any.
        load_percent_max: Option<u32>,
    },
}

/// Between priorities and zones.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// How much more than its usual load a group of instances can bear, at least 1: with 1.4, a
    /// group of which 72 % are usable still takes all.
    pub overprovisioning: f64,
    /// When a smaller share than this is usable, from 0 to 1, all are used.
    pub panic_below: f64,
    /// The gateway's own zone, preferred; `None`: zones do not matter.
    pub zone: Option<Arc<str>>,
}

/// The cookie that names an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Its name: a token.
    pub cookie: Arc<str>,
    /// `Path`, beginning with a slash.
    pub path: Arc<str>,
    /// `Domain`; `None`: only the host that was asked.
    pub domain: Option<Arc<str>>,
    /// `Max-Age`; `None`: until the browser is closed.
    pub max_age: Option<Duration>,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Secure`; `None`: where the client came by TLS.
    pub secure: Option<bool>,
    /// `HttpOnly`.
    pub http_only: bool,
    /// What instances are named by; `None`: by a key made up when the process started.
    pub key: Option<StickyKey>,
}

/// The key of a sticky cookie. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct StickyKey(pub Arc<[u8]>);

impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickyKey(…)")
    }
}

/// `SameSite` of a cookie (RFC 6265bis section 5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Sent with requests from the same site only.
    Strict,
    /// And when a link leads there.
    Lax,
    /// Always; browsers ask for `Secure` too.
    None,
}
