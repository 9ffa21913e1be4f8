//! The keys of an issuer: a JWK set (RFC 7517), each key bound to one algorithm.
//!
//! The algorithm is a property of the key and never taken from the token: a token that asks for
//! another one (`none`, or HMAC with the text of a public key) is refused before any cryptography
//! (RFC 8725 section 3.1).

use std::sync::Once;

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::super::reject::Reject;

/// Keys of a set at most. An issuer has two or three, while it changes them.
const KEYS_MAX: usize = 100;

/// Bits of an RSA modulus at least (RFC 7518 section 3.3).
const RSA_BITS_MIN: usize = 2048;

/// The algorithms understood, by name (RFC 7518 section 3.1, RFC 8037 section 3.1).
pub const ALGORITHMS: [&str; 12] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256",
    "HS384", "HS512",
];

/// The keys of an issuer.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    /// SHA-256 of the text it was read from.
    text: [u8; 32],
}

/// One key and the one algorithm it is for.
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// Shows nothing of the key itself, which may be a secret.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Why a key set is refused. Texts name keys by their place and never show any of their content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or not a JSON object with an array `keys`.
    #[error("it is no JWK set: a JSON object with an array `keys`")]
    NoSet,
    /// More keys than anyone needs.
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    /// A key of a known type that cannot be used as it is.
    #[error("key {place} ({id}) cannot be used: {reason}")]
    Key {
        /// From 1.
        place: usize,
        /// Its `kid`, or `no kid`.
        id: String,
        /// In one line.
        reason: &'static str,
    },
    /// Two keys that a token could not tell apart.
    #[error("two keys have the kid `{0}`")]
    SameId(String),
    /// Nothing is left once unknown types, encryption keys and other algorithms are set aside.
    #[error("none of its keys can check a signature with the algorithms allowed")]
    Empty,
}

impl KeySet {
    /// Reads a JWK set. Keys of unknown type or for encryption are skipped (RFC 7517 section 5),
    /// and so are keys for algorithms not in `allowed`, unless that is empty.
    pub fn parse(json: &str, allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        install_crypto();
        let set: Value = serde_json::from_str(json).map_err(|_| KeySetError::NoSet)?;
        let members = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(KeySetError::NoSet)?;
        if members.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let mut keys: Vec<Key> = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let id = member.get("kid").and_then(Value::as_str);
            let key = read_key(member).map_err(|reason| KeySetError::Key {
                place: index + 1,
                id: id.map_or("no kid".to_owned(), |id| format!("kid `{id}`")),
                reason,
            })?;
            let Some(key) = key else { continue };
            if !allowed.is_empty() && !allowed.contains(&key.algorithm) {
                continue;
            }
            if let Some(same) = keys
                .iter()
                .find(|other| key.id.is_some() && other.id == key.id)
            {
                return Err(KeySetError::SameId(same.id.clone().unwrap_or_default()));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        let text = digest(&SHA256, json.as_bytes());
        let text = *text.as_ref().first_chunk().expect("SHA-256 gives 32 bytes");
        Ok(Self { keys, text })
    }

    /// Whether both were read from the same text and hold the same keys of it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let algorithms =
            |set: &Self| -> Vec<_> { set.keys.iter().map(|key| key.algorithm).collect() };
        self.text == other.text && algorithms(self) == algorithms(other)
    }

    /// The key a token is to be checked with. A token without `kid` is accepted if only one key
    /// comes into question.
    pub(super) fn find(&self, id: Option<&str>, algorithm: &str) -> Result<&Key, Reject> {
        let asked: Option<Algorithm> = algorithm.parse().ok();
        if id.is_none() {
            let mut fitting = self.keys.iter().filter(|key| Some(key.algorithm) == asked);
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Ok(key),
                (Some(_), Some(_)) => Err(Reject::TokenKeyUnknown),
                (None, _) => Err(Reject::TokenAlgorithm),
            };
        }
        let key = self.keys.iter().find(|key| key.id.as_deref() == id);
        let key = key.ok_or(Reject::TokenKeyUnknown)?;
        if Some(key.algorithm) == asked {
            Ok(key)
        } else {
            Err(Reject::TokenAlgorithm)
        }
    }
}

/// Reads one member of the set; nothing if it is to be skipped.
fn read_key(member: &Value) -> Result<Option<Key>, &'static str> {
    let kind = member
        .get("kty")
        .and_then(Value::as_str)
        .ok_or("`kty` is missing")?;
    let curve = member
        .get("crv")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let known = match kind {
        "RSA" | "oct" => true,
        "EC" => matches!(curve, "P-256" | "P-384"),
        "OKP" => curve == "Ed25519",
        _ => false,
    };
    let for_encryption = member.get("use").is_some_and(|usage| usage == "enc");
    if !known || for_encryption {
        return Ok(None);
    }
    let named = member
        .get("alg")
        .map(|name| name.as_str().unwrap_or_default());
    if named.is_some_and(|name| !ALGORITHMS.contains(&name)) {
        return Err("`alg` is no signature algorithm Weir understands");
    }
    // The message of the reader is dropped: it may quote the key.
    let jwk: Jwk = serde_json::from_value(member.clone()).map_err(|_| "a member is malformed")?;
    let algorithm = algorithm_of(&jwk, named)?;
    let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| "a member is not base64url")?;
    check_strength(&jwk, algorithm, &decoding)?;
    Ok(Some(Key {
        id: jwk.common.key_id,
        algorithm,
        decoding,
    }))
}

/// The algorithm a key is for: the one it names, else the usual one of its type.
fn algorithm_of(jwk: &Jwk, named: Option<&str>) -> Result<Algorithm, &'static str> {
    use Algorithm as A;
    let fitting: &[A] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => {
            &[A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512]
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => &[A::ES256],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => &[A::ES384],
        AlgorithmParameters::OctetKeyPair(_) => &[A::EdDSA],
        AlgorithmParameters::OctetKey(_) => &[A::HS256, A::HS384, A::HS512],
        _ => return Err("`kty` and `crv` do not belong together"),
    };
    match named {
        None => Ok(fitting[0]),
        Some(name) => {
            let named = name
                .parse()
                .ok()
                .filter(|algorithm| fitting.contains(algorithm));
            named.ok_or("`alg` does not belong to `kty` and `crv`")
        }
    }
}

/// Refuses keys that are weaker than their algorithm allows.
fn check_strength(jwk: &Jwk, algorithm: Algorithm, key: &DecodingKey) -> Result<(), &'static str> {
    match &jwk.algorithm {
        // Six bits a character, to within the last one.
        AlgorithmParameters::RSA(rsa) if rsa.n.len() * 6 < RSA_BITS_MIN => {
            return Err("an RSA key must have at least 2048 bits");
        }
        AlgorithmParameters::OctetKey(_) => {
            // As long as the hash (RFC 7518 section 3.2).
            let bytes_min = match algorithm {
                Algorithm::HS256 => 32,
                Algorithm::HS384 => 48,
                _ => 64,
            };
            if key.try_get_as_bytes().map_or(0, <[u8]>::len) < bytes_min {
                return Err("an HMAC key must be as long as its hash: 32, 48 or 64 bytes");
            }
        }
        _ => {}
    }
    Ok(())
}

/// jsonwebtoken panics at the first signature unless it was told whose cryptography to use.
fn install_crypto() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Fails only if the program around has chosen already, which is as good.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    });
}
