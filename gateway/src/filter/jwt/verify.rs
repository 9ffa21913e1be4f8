//! From the text of a token to the identity it proves: pure, `now` is given.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::Identity;
use super::super::reject::Reject;
use super::{KeySet, Policy};

/// A token that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) identity: Arc<Identity>,
    /// The first second, since 1970, at which the token is refused as expired.
    pub(super) valid_until: u64,
}

/// What the gateway reads of a token's header (RFC 7515 section 4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Checks a token in compact form. `now` is in seconds since 1970.
pub(super) fn verify(
    token: &[u8],
    keys: &KeySet,
    policy: &Policy,
    now: u64,
) -> Result<Accepted, Reject> {
    let token = str::from_utf8(token).map_err(|_| Reject::TokenMalformed)?;
    let (message, signature) = token.rsplit_once('.').ok_or(Reject::TokenMalformed)?;
    let (header, claims) = message.split_once('.').ok_or(Reject::TokenMalformed)?;
    if claims.contains('.') {
        // Five parts: an encrypted token (RFC 7516).
        return Err(Reject::TokenMalformed);
    }
    let header: Header = decode(header)?;
    if header.crit.is_some() {
        // Must be refused by whoever does not understand it (RFC 7515 section 4.1.11).
        return Err(Reject::TokenMalformed);
    }
    let key = keys.find(header.kid.as_deref(), &header.alg)?;
    let genuine =
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, key.algorithm);
    if !genuine.unwrap_or(false) {
        return Err(Reject::TokenSignature);
    }
    let claims: Map<String, Value> = decode(claims)?;
    let valid_until = check_claims(&claims, policy, now)?;
    let subject = claims
        .get("sub")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let identity = Identity {
        auth: Arc::clone(&policy.name),
        subject,
        claims,
    };
    Ok(Accepted {
        identity: Arc::new(identity),
        valid_until,
    })
}

/// Base64url without padding, then JSON.
fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Reject> {
    let json = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Reject::TokenMalformed)?;
    serde_json::from_slice(&json).map_err(|_| Reject::TokenMalformed)
}

/// Checks the claims of a genuine token; gives the second at which it expires.
fn check_claims(claims: &Map<String, Value>, policy: &Policy, now: u64) -> Result<u64, Reject> {
    if claims.get("iss").and_then(Value::as_str) != Some(&policy.issuer) {
        return Err(Reject::TokenIssuer);
    }
    let in_audience = texts(claims.get("aud")).any(|name| policy.audience.contains(name));
    if !in_audience {
        return Err(Reject::TokenAudience);
    }
    let expires = seconds(claims, "exp")?.ok_or(Reject::TokenMalformed)?;
    let valid_until = expires.saturating_add(policy.leeway_seconds);
    if now >= valid_until {
        return Err(Reject::TokenExpired);
    }
    if let Some(begins) = seconds(claims, "nbf")?
        && begins > now.saturating_add(policy.leeway_seconds)
    {
        return Err(Reject::TokenNotYetValid);
    }
    let granted: Vec<&str> = scopes(claims).collect();
    if !policy
        .scopes
        .iter()
        .all(|scope| granted.contains(&scope.as_str()))
    {
        return Err(Reject::TokenScope);
    }
    Ok(valid_until)
}

/// A time in seconds since 1970; fractions are allowed (RFC 7519 section 2) and cut off.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Reject> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    if let Some(whole) = value.as_u64() {
        return Ok(Some(whole));
    }
    match value.as_f64() {
        // Up to 2^53 every second has a number of its own; the cast is exact after the cut.
        Some(time) if (0.0..9_007_199_254_740_992.0).contains(&time) => Ok(Some(time as u64)),
        _ => Err(Reject::TokenMalformed),
    }
}

/// A claim that may be one text or an array of texts.
fn texts(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = claim
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    claim
        .and_then(Value::as_str)
        .into_iter()
        .chain(list.iter().filter_map(Value::as_str))
}

/// What a token grants: `scope`, divided by spaces (RFC 8693 section 4.2), or the array `scp`.
fn scopes(claims: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let both = texts(claims.get("scope")).chain(texts(claims.get("scp")));
    both.flat_map(str::split_ascii_whitespace)
}
