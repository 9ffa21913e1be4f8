//! A token issuer made at run time: its signing key, its JWKS document, and tokens good and bad.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::Serialize;
use serde_json::json;

/// Signs tokens with ES256 (RFC 7518 section 3.4).
pub struct TokenIssuer {
    issuer: String,
    audience: String,
    key_id: String,
    key: KeyPair,
}

/// The registered claims of RFC 7519 section 4.1 that the gateway reads; times in Unix seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Claims {
    /// Who made the token.
    pub iss: String,
    /// Whom it is for.
    pub aud: String,
    /// Whom it speaks of.
    pub sub: String,
    /// From when it is valid.
    pub nbf: u64,
    /// Until when it is valid.
    pub exp: u64,
}

impl TokenIssuer {
    /// An issuer with a new key.
    ///
    /// # Errors
    ///
    /// When the random number generator fails.
    pub fn new(issuer: &str, audience: &str) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            key_id: "test-bed-1".to_owned(),
            key,
        })
    }

    /// The public key as a JWK set (RFC 7517), JSON.
    #[must_use]
    pub fn jwks(&self) -> String {
        let (x, y) = coordinates(self.key.public_key_raw());
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
            "kid": self.key_id, "x": x, "y": y,
        });
        json!({ "keys": [key] }).to_string()
    }

    /// Claims for `subject`, valid from now for `lifetime`.
    #[must_use]
    pub fn claims(&self, subject: &str, lifetime: Duration) -> Claims {
        let now = unix_seconds();
        Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: subject.to_owned(),
            nbf: now,
            exp: now + lifetime.as_secs(),
        }
    }

    /// A signed token that says `claims`.
    ///
    /// # Errors
    ///
    /// When signing fails.
    pub fn sign(&self, claims: &Claims) -> Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes())?;
        Ok(encode(&header, claims, &key)?)
    }

    /// A good token for `subject`, valid for a day: as long as anybody plays with the demo.
    ///
    /// # Errors
    ///
    /// As [`TokenIssuer::sign`].
    pub fn token(&self, subject: &str) -> Result<String> {
        self.sign(&self.claims(subject, Duration::from_secs(24 * 3600)))
    }

    /// A token that expired an hour ago.
    ///
    /// # Errors
    ///
    /// As [`TokenIssuer::sign`].
    pub fn expired_token(&self, subject: &str) -> Result<String> {
        let mut claims = self.claims(subject, Duration::ZERO);
        claims.nbf -= 7200;
        claims.exp -= 3600;
        self.sign(&claims)
    }
}

/// The point of an uncompressed P-256 key (SEC 1, section 2.3.3: 4, x, y), base64url.
fn coordinates(point: &[u8]) -> (String, String) {
    assert!(
        point.len() == 65 && point[0] == 4,
        "a P-256 public key is an uncompressed point"
    );
    (
        URL_SAFE_NO_PAD.encode(&point[1..33]),
        URL_SAFE_NO_PAD.encode(&point[33..]),
    )
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970")
        .as_secs()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Validation, decode};

    use super::*;

    fn verify(token: &str, jwks: &str) -> Result<String, jsonwebtoken::errors::Error> {
        let set: JwkSet = serde_json::from_str(jwks).unwrap();
        let key = DecodingKey::from_jwk(set.find("test-bed-1").unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&["https://id.example.com/"]);
        validation.set_audience(&["api"]);
        let token = decode::<serde_json::Value>(token, &key, &validation)?;
        Ok(token.claims["sub"].as_str().unwrap().to_owned())
    }

    #[test]
    fn only_a_fresh_token_of_the_same_key_verifies() {
        let issuer = TokenIssuer::new("https://id.example.com/", "api").unwrap();
        let stranger = TokenIssuer::new("https://id.example.com/", "api").unwrap();
        let jwks = issuer.jwks();
        assert_eq!(
            verify(&issuer.token("alice").unwrap(), &jwks).unwrap(),
            "alice"
        );
        assert!(verify(&issuer.expired_token("alice").unwrap(), &jwks).is_err());
        assert!(verify(&stranger.token("alice").unwrap(), &jwks).is_err());
    }
}
