//! Bearer tokens: signed JWTs (RFC 7519) from one issuer, checked against its key set.
//!
//! Runs after API keys and before the limits. A token is refused for the first thing wrong with
//! it, each with a reason code of its own: form, key, algorithm, signature, then the claims.
//! Nothing in a token is believed before its signature is checked, except which key to check
//! it with.

mod cache;
mod keys;
mod verify;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

pub use self::cache::CacheCounts;
use self::cache::TokenCache;
pub use self::keys::{ALGORITHMS, KeySet, KeySetError};
use super::reject::Reject;
use super::{Context, Identity};

/// What tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The only accepted `iss`.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audience: HashSet<String>,
    /// All of these must be in `scope` or `scp`.
    pub scopes: Vec<String>,
    /// Seconds by which clocks may differ.
    pub leeway_seconds: u64,
    /// Bytes of a token at most.
    pub token_bytes_max: usize,
    /// Verified tokens remembered at most.
    pub tokens_cached_max: usize,
}

/// Accepts requests with a valid bearer token.
#[derive(Debug)]
pub struct Jwt {
    policy: Policy,
    keys: KeySet,
    cache: TokenCache,
}

impl Jwt {
    /// Accepts tokens that meet the policy and are signed with one of the keys.
    pub fn new(policy: Policy, keys: KeySet) -> Self {
        let cache = TokenCache::new(policy.tokens_cached_max);
        Self {
            policy,
            keys,
            cache,
        }
    }

    /// Whether this is what [`new`](Self::new) would make again.
    pub fn is_for(&self, policy: &Policy, keys: &KeySet) -> bool {
        self.policy == *policy && self.keys.is_same(keys)
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        &self.policy.name
    }

    /// How often the signature check could be spared.
    pub fn cache_counts(&self) -> CacheCounts {
        self.cache.counts()
    }

    /// Accepts or refuses a request, and notes whom its token speaks for.
    pub fn run(&self, context: &mut Context, head: &Parts, now: SystemTime) -> Result<(), Reject> {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        context.identity = Some(self.decide(&head.headers, now)?);
        Ok(())
    }

    /// Whom the request's token speaks for. `now` is in seconds since 1970, as in the claims.
    fn decide(&self, headers: &HeaderMap, now: u64) -> Result<Arc<Identity>, Reject> {
        let token = bearer_token(headers)?;
        if token.len() > self.policy.token_bytes_max {
            return Err(Reject::TokenTooLarge);
        }
        if let Some(identity) = self.cache.find(token, now) {
            return Ok(identity);
        }
        let accepted = verify::verify(token, &self.keys, &self.policy, now)?;
        self.cache
            .insert(token, Arc::clone(&accepted.identity), accepted.valid_until);
        Ok(accepted.identity)
    }
}

/// The token in `Authorization: Bearer` (RFC 6750 section 2.1). Another scheme is no token; two
/// fields are one too many for all readers to agree on.
fn bearer_token(headers: &HeaderMap) -> Result<&[u8], Reject> {
    let mut values = headers
        .get_all(AUTHORIZATION)
        .iter()
        .map(HeaderValue::as_bytes);
    let value = values.next().ok_or(Reject::TokenMissing)?;
    if values.next().is_some() {
        return Err(Reject::TokenMalformed);
    }
    let (scheme, token) = value.split_at(value.len().min("bearer".len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Reject::TokenMissing);
    }
    match token.trim_ascii_start() {
        b"" => Err(Reject::TokenMissing),
        // `Bearerxyz` is another scheme.
        trimmed if trimmed.len() == token.len() => Err(Reject::TokenMissing),
        trimmed => Ok(trimmed),
    }
}

#[cfg(test)]
mod tests;
