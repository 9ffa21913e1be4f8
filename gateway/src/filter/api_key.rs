//! API keys: a secret in a header, of which the configuration holds only the SHA-256.
//!
//! Runs first of all filters. Refuses requests without the header, with several, or with a key
//! whose hash is not configured. A plain hash is enough because keys are long and random
//! (`hash-key` refuses short ones): there is no dictionary to try.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use subtle::ConstantTimeEq;

use super::reject::Reject;
use super::{Context, Identity};

/// Before the hexadecimal digits of a hash in the configuration.
const HASH_PREFIX: &str = "sha256:";

/// Bytes of a key at most; what is longer is not even hashed.
pub const KEY_BYTES_MAX: usize = 1024;

/// The SHA-256 of an API key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key as it stands in the request header.
    pub fn of(key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(hash)
    }
}

/// Text that is no key hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKeyHash;

impl FromStr for KeyHash {
    type Err = NoKeyHash;

    fn from_str(text: &str) -> Result<Self, NoKeyHash> {
        let hex = text.strip_prefix(HASH_PREFIX).ok_or(NoKeyHash)?.as_bytes();
        let mut hash = [0; 32];
        if hex.len() != 2 * hash.len() {
            return Err(NoKeyHash);
        }
        for (byte, digits) in hash.iter_mut().zip(hex.chunks_exact(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16).ok_or(NoKeyHash);
            let both = value(digits[0])? << 4 | value(digits[1])?;
            *byte = u8::try_from(both).map_err(|_| NoKeyHash)?;
        }
        Ok(Self(hash))
    }
}

/// As the configuration has it.
impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Accepts requests with a configured API key.
#[derive(Debug, PartialEq)]
pub struct ApiKeys {
    name: Arc<str>,
    header: HeaderName,
    /// By the first bytes of the hash. Finding the bucket takes time that depends on the hash of
    /// what the client sent, which the client can compute anyway; hashes are then compared in
    /// constant time.
    keys: HashMap<u64, Vec<(KeyHash, Arc<Identity>)>>,
}

impl ApiKeys {
    /// Accepts the given keys, each a name and a hash, in the given header.
    pub fn new(
        name: Arc<str>,
        header: HeaderName,
        hashes: impl IntoIterator<Item = (String, KeyHash)>,
    ) -> Self {
        let mut keys: HashMap<u64, Vec<_>> = HashMap::new();
        for (subject, hash) in hashes {
            let claims = serde_json::Map::new();
            let identity = Arc::new(Identity {
                auth: Arc::clone(&name),
                subject,
                claims,
            });
            keys.entry(bucket(&hash))
                .or_default()
                .push((hash, identity));
        }
        Self { name, header, keys }
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Accepts or refuses a request, and notes who sent it.
    pub fn run(&self, context: &mut Context, head: &Parts) -> Result<(), Reject> {
        context.api_key = Some(Arc::clone(self.decide(&head.headers)?));
        Ok(())
    }

    /// Whose key a request carries.
    fn decide(&self, headers: &HeaderMap) -> Result<&Arc<Identity>, Reject> {
        let mut values = headers.get_all(&self.header).iter();
        let key = values.next().ok_or(Reject::ApiKeyMissing)?;
        if values.next().is_some() || key.len() > KEY_BYTES_MAX {
            return Err(Reject::ApiKeyUnknown);
        }
        let hash = KeyHash::of(key.as_bytes());
        let candidates = self.keys.get(&bucket(&hash)).map_or(&[][..], Vec::as_slice);
        let known = candidates
            .iter()
            .find(|(known, _)| known.0.ct_eq(&hash.0).into());
        known
            .map(|(_, identity)| identity)
            .ok_or(Reject::ApiKeyUnknown)
    }
}

fn bucket(hash: &KeyHash) -> u64 {
    let first = hash
        .0
        .first_chunk()
        .expect("a hash of 32 bytes has a first 8");
    u64::from_ne_bytes(*first)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The SHA-256 of `abc` (RFC 6234 section 8.5).
    const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn filter() -> ApiKeys {
        let hash = KeyHash::of(b"correct-horse-battery");
        let header = HeaderName::from_static("x-api-key");
        ApiKeys::new("internal".into(), header, [("ci".to_owned(), hash)])
    }

    #[test]
    fn only_a_known_key_sent_once_is_accepted() {
        let long = "a".repeat(KEY_BYTES_MAX + 1);
        let cases: [(&str, &[&str], Result<&str, Reject>); 6] = [
            ("known", &["correct-horse-battery"], Ok("ci")),
            ("missing", &[], Err(Reject::ApiKeyMissing)),
            ("empty", &[""], Err(Reject::ApiKeyUnknown)),
            (
                "unknown",
                &["correct-horse-batterz"],
                Err(Reject::ApiKeyUnknown),
            ),
            (
                "twice",
                &["correct-horse-battery"; 2],
                Err(Reject::ApiKeyUnknown),
            ),
            ("too long", &[&long], Err(Reject::ApiKeyUnknown)),
        ];
        for (description, values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-api-key", HeaderValue::from_str(value).unwrap());
            }
            let filter = filter();
            let subject = filter
                .decide(&headers)
                .map(|identity| identity.subject.as_str());
            assert_eq!(subject, expected, "{description}");
        }
    }

    #[test]
    fn hashes_are_read_and_written_back() {
        let hash: KeyHash = HASH.parse().unwrap();
        assert_eq!(hash.to_string(), HASH);
        let digits = &HASH["sha256:".len()..];
        let wrong = [
            digits,
            "sha256:",
            &HASH[..70],
            "sha1:00",
            "correct-horse-battery",
        ];
        for text in wrong {
            assert_eq!(text.parse::<KeyHash>(), Err(NoKeyHash), "{text}");
        }
        assert_eq!(
            format!("sha256:{}", "+1".repeat(32)).parse::<KeyHash>(),
            Err(NoKeyHash)
        );
    }

    #[test]
    fn the_hash_is_the_one_others_compute() {
        assert_eq!(KeyHash::of(b"abc").to_string(), HASH);
    }
}
