//! Tokens good and bad, each bad one with its own reason; vectors from the RFCs.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// RFC 7515 appendix A.1 to A.3, RFC 8037 appendix A.
const RFC_KEYS: &str = r#"{"keys": [
  {"kid": "hs", "kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
  {"kid": "rs", "kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
  {"kid": "es", "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
  {"kid": "ed", "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"#;

const RFC_CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn policy() -> Policy {
    Policy {
        name: "partners".into(),
        issuer: "https://id.example.com/".to_owned(),
        audience: ["orders".to_owned(), "users".to_owned()].into(),
        scopes: Vec::new(),
        leeway_seconds: 30,
        token_bytes_max: 1000,
        tokens_cached_max: 100,
    }
}

/// A key set with one HMAC key and, under `other`, the RSA key of the RFC.
fn keys() -> KeySet {
    let secret = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, SECRET);
    let mut set: Value = serde_json::from_str(RFC_KEYS).unwrap();
    let rsa = set["keys"][1].take();
    let set = json!({ "keys": [{ "kid": "mine", "kty": "oct", "k": secret }, rsa] });
    KeySet::parse(&set.to_string(), &[]).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example.com/", "aud": "orders", "sub": "alice",
        "nbf": NOW - 10, "exp": NOW + 100,
    })
}

fn part(json: &Value) -> String {
    base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, json.to_string())
}

/// A token signed with HMAC, whatever its header says.
fn token(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn mine() -> Value {
    json!({ "alg": "HS256", "kid": "mine", "typ": "JWT" })
}

/// The usual claims with one of them changed, or taken out with null.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn verify_at(token: &str, now: u64) -> Result<String, Reject> {
    let jwt = Jwt::new(policy(), keys());
    let mut headers = HeaderMap::new();
    headers.insert(
        AUTHORIZATION,
        HeaderValue::try_from(format!("Bearer {token}")).unwrap(),
    );
    jwt.decide(&headers, now)
        .map(|identity| identity.subject.clone())
}

#[test]
fn the_vectors_of_the_rfcs_are_genuine() {
    let keys = KeySet::parse(RFC_KEYS, &[]).unwrap();
    let policy = Policy {
        issuer: "joe".to_owned(),
        ..policy()
    };
    let text = "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let vectors = [
        // (header, claims, signature, what is wrong behind the genuine signature)
        (
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            RFC_CLAIMS,
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            Reject::TokenAudience,
        ),
        (
            "eyJhbGciOiJSUzI1NiJ9",
            RFC_CLAIMS,
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            Reject::TokenAudience,
        ),
        (
            "eyJhbGciOiJFUzI1NiJ9",
            RFC_CLAIMS,
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            Reject::TokenAudience,
        ),
        (
            "eyJhbGciOiJFZERTQSJ9",
            text,
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            Reject::TokenMalformed,
        ),
    ];
    for (header, claims, signature, expected) in vectors {
        let check = |claims: &str, signature: &str| {
            let token = format!("{header}.{claims}.{signature}");
            verify::verify(token.as_bytes(), &keys, &policy, NOW).unwrap_err()
        };
        assert_eq!(check(claims, signature), expected, "{header}");
        assert_eq!(
            check(&part(&json!({})), signature),
            Reject::TokenSignature,
            "{header}"
        );
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{first}{}", &signature[1..]);
        assert_eq!(check(claims, &forged), Reject::TokenSignature, "{header}");
    }
}

#[test]
fn tokens_of_other_key_pairs_are_accepted_and_forgeries_are_not() {
    let curves = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
        (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
    ];
    for (kind, algorithm) in curves {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let other = rcgen::KeyPair::generate_for(kind).unwrap();
        let encode =
            |bytes: &[u8]| base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, bytes);
        let raw = pair.public_key_raw();
        let key = match algorithm {
            Algorithm::EdDSA => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(raw) }),
            _ => {
                let (x, y) = raw[1..].split_at(raw.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
        };
        let keys = KeySet::parse(&json!({ "keys": [key] }).to_string(), &[]).unwrap();
        let sign = |pair: &rcgen::KeyPair| {
            let key = match algorithm {
                Algorithm::EdDSA => EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()),
                _ => EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()),
            };
            let header = jsonwebtoken::Header::new(algorithm);
            jsonwebtoken::encode(&header, &claims(), &key.unwrap()).unwrap()
        };
        let verify = |token: String| verify::verify(token.as_bytes(), &keys, &policy(), NOW);
        assert_eq!(
            verify(sign(&pair)).unwrap().identity.subject,
            "alice",
            "{algorithm:?}"
        );
        assert_eq!(
            verify(sign(&other)).unwrap_err(),
            Reject::TokenSignature,
            "{algorithm:?}"
        );
    }
}

#[test]
fn each_wrong_header_has_its_reason() {
    let unsigned = |header: Value| format!("{}.{}.", part(&header), part(&claims()));
    let cases = [
        ("good", token(&mine(), &claims(), SECRET), Ok("alice")),
        (
            "no kid, one key fits",
            token(&json!({ "alg": "HS256" }), &claims(), SECRET),
            Ok("alice"),
        ),
        ("empty", String::new(), Err(Reject::TokenMissing)),
        ("no parts", "abc".to_owned(), Err(Reject::TokenMalformed)),
        (
            "two parts",
            "abc.def".to_owned(),
            Err(Reject::TokenMalformed),
        ),
        (
            "five parts",
            "a.b.c.d.e".to_owned(),
            Err(Reject::TokenMalformed),
        ),
        ("no base64", "!.!.!".to_owned(), Err(Reject::TokenMalformed)),
        (
            "no JSON",
            "YQ.YQ.YQ".to_owned(),
            Err(Reject::TokenMalformed),
        ),
        (
            "padded",
            token(&mine(), &claims(), SECRET) + "=",
            Err(Reject::TokenSignature),
        ),
        (
            "no alg",
            unsigned(json!({ "kid": "mine" })),
            Err(Reject::TokenMalformed),
        ),
        (
            "none",
            unsigned(json!({ "alg": "none" })),
            Err(Reject::TokenAlgorithm),
        ),
        (
            "None",
            unsigned(json!({ "alg": "None", "kid": "mine" })),
            Err(Reject::TokenAlgorithm),
        ),
        (
            "no signature",
            unsigned(mine()),
            Err(Reject::TokenSignature),
        ),
        (
            "wrong key",
            token(&mine(), &claims(), b"another secret"),
            Err(Reject::TokenSignature),
        ),
        (
            "another algorithm of the same kind",
            token(&json!({ "alg": "HS512", "kid": "mine" }), &claims(), SECRET),
            Err(Reject::TokenAlgorithm),
        ),
        (
            "HMAC with a public key",
            token(
                &json!({ "alg": "HS256", "kid": "rs" }),
                &claims(),
                b"ofgWCuLjybRlzo0t",
            ),
            Err(Reject::TokenAlgorithm),
        ),
        (
            "unknown kid",
            token(&json!({ "alg": "HS256", "kid": "old" }), &claims(), SECRET),
            Err(Reject::TokenKeyUnknown),
        ),
        (
            "kid of the wrong type",
            token(&json!({ "alg": "HS256", "kid": 1 }), &claims(), SECRET),
            Err(Reject::TokenMalformed),
        ),
        (
            "crit",
            token(
                &json!({ "alg": "HS256", "kid": "mine", "crit": ["exp"] }),
                &claims(),
                SECRET,
            ),
            Err(Reject::TokenMalformed),
        ),
    ];
    for (description, token, expected) in cases {
        assert_eq!(
            verify_at(&token, NOW),
            expected.map(str::to_owned),
            "{description}"
        );
    }
}

#[test]
fn each_wrong_claim_has_its_reason() {
    let cases = [
        (
            "no issuer",
            with("iss", Value::Null),
            Some(Reject::TokenIssuer),
        ),
        (
            "another issuer",
            with("iss", json!("https://evil.example/")),
            Some(Reject::TokenIssuer),
        ),
        (
            "issuer without slash",
            with("iss", json!("https://id.example.com")),
            Some(Reject::TokenIssuer),
        ),
        (
            "issuers",
            with("iss", json!(["https://id.example.com/"])),
            Some(Reject::TokenIssuer),
        ),
        (
            "no audience",
            with("aud", Value::Null),
            Some(Reject::TokenAudience),
        ),
        (
            "another audience",
            with("aud", json!("admin")),
            Some(Reject::TokenAudience),
        ),
        (
            "audiences, one ours",
            with("aud", json!(["admin", "users"])),
            None,
        ),
        (
            "audiences, none ours",
            with("aud", json!(["admin", 1])),
            Some(Reject::TokenAudience),
        ),
        (
            "no expiry",
            with("exp", Value::Null),
            Some(Reject::TokenMalformed),
        ),
        (
            "expiry as text",
            with("exp", json!("tomorrow")),
            Some(Reject::TokenMalformed),
        ),
        (
            "negative expiry",
            with("exp", json!(-1)),
            Some(Reject::TokenMalformed),
        ),
        (
            "expires with a fraction",
            with("exp", json!(NOW as f64 + 0.5)),
            None,
        ),
        ("expired within leeway", with("exp", json!(NOW - 29)), None),
        (
            "expired",
            with("exp", json!(NOW - 30)),
            Some(Reject::TokenExpired),
        ),
        ("never expires", with("exp", json!(u64::MAX)), None),
        ("no beginning", with("nbf", Value::Null), None),
        ("begins within leeway", with("nbf", json!(NOW + 30)), None),
        (
            "begins later",
            with("nbf", json!(NOW + 31)),
            Some(Reject::TokenNotYetValid),
        ),
        (
            "beginning as text",
            with("nbf", json!("now")),
            Some(Reject::TokenMalformed),
        ),
        (
            "claims are no object",
            json!([1]),
            Some(Reject::TokenMalformed),
        ),
    ];
    for (description, claims, expected) in cases {
        let outcome = verify_at(&token(&mine(), &claims, SECRET), NOW);
        assert_eq!(outcome.err(), expected, "{description}");
    }
    let nameless = token(&mine(), &with("sub", Value::Null), SECRET);
    assert_eq!(verify_at(&nameless, NOW), Ok(String::new()));
}

#[test]
fn scopes_must_all_be_granted() {
    let policy = Policy {
        scopes: vec!["read".to_owned(), "write".to_owned()],
        ..policy()
    };
    let cases = [
        (json!("read write admin"), true),
        (json!("read"), false),
        (json!("readwrite"), false),
        (json!(["read", "write"]), true),
        (Value::Null, false),
    ];
    for (scope, expected) in cases {
        for claim in ["scope", "scp"] {
            let token = token(&mine(), &with(claim, scope.clone()), SECRET);
            let outcome = verify::verify(token.as_bytes(), &keys(), &policy, NOW);
            assert_eq!(outcome.is_ok(), expected, "{claim}: {scope}");
            assert!(expected || outcome.unwrap_err() == Reject::TokenScope);
        }
    }
}

#[test]
fn a_token_comes_once_and_in_the_bearer_scheme() {
    let good = token(&mine(), &claims(), SECRET);
    let longest = format!("Bearer {}", "a".repeat(1000));
    let too_long = format!("{longest}a");
    let cases: [(&[&str], Option<Reject>); 10] = [
        (&[&format!("Bearer {good}")], None),
        (&[&format!("bEARER   {good}")], None),
        (&[], Some(Reject::TokenMissing)),
        (&["Basic abc"], Some(Reject::TokenMissing)),
        (&["Bear"], Some(Reject::TokenMissing)),
        (&["Bearer"], Some(Reject::TokenMissing)),
        (&[&format!("Bearer{good}")], Some(Reject::TokenMissing)),
        (
            &[&format!("Bearer {good}"), "Basic abc"],
            Some(Reject::TokenMalformed),
        ),
        (&[&longest], Some(Reject::TokenMalformed)),
        (&[&too_long], Some(Reject::TokenTooLarge)),
    ];
    for (values, expected) in cases {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let outcome = Jwt::new(policy(), keys()).decide(&headers, NOW);
        assert_eq!(outcome.err(), expected, "{values:?}");
    }
}

#[test]
fn no_token_changed_in_one_character_is_accepted() {
    let (keys, policy) = (keys(), policy());
    let good = token(&mine(), &claims(), SECRET);
    assert!(verify::verify(good.as_bytes(), &keys, &policy, NOW).is_ok());
    for place in 0..good.len() {
        for other in "ABgw19-_.="
            .chars()
            .filter(|c| !good[place..].starts_with(*c))
        {
            let mut changed = good.clone();
            changed.replace_range(place..=place, other.encode_utf8(&mut [0; 4]));
            let outcome = verify::verify(changed.as_bytes(), &keys, &policy, NOW);
            assert!(outcome.is_err(), "`{other}` at {place}");
        }
    }
    for length in 0..good.len() {
        let outcome = verify::verify(&good.as_bytes()[..length], &keys, &policy, NOW);
        assert!(outcome.is_err(), "cut at {length}");
    }
}

#[test]
fn a_remembered_token_still_expires() {
    let jwt = Jwt::new(policy(), keys());
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", token(&mine(), &claims(), SECRET));
    headers.insert(AUTHORIZATION, HeaderValue::try_from(bearer).unwrap());
    for _ in 0..3 {
        assert!(jwt.decide(&headers, NOW).is_ok());
    }
    assert_eq!(jwt.cache_counts(), CacheCounts { hits: 2, misses: 1 });
    assert!(jwt.decide(&headers, NOW + 129).is_ok(), "within leeway");
    assert_eq!(jwt.decide(&headers, NOW + 130), Err(Reject::TokenExpired));
}

#[test]
fn key_sets_are_read_leniently_where_the_rfc_asks_and_strictly_where_safety_does() {
    let ec = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;
    let key = |reason| KeySetError::Key {
        place: 1,
        id: "no kid".to_owned(),
        reason,
    };
    let cases = [
        ("good", format!(r#"{{"keys":[{{{ec}}}]}}"#), None),
        (
            "unknown type beside",
            format!(r#"{{"keys":[{{"kty":"AKP"}},{{{ec}}}]}}"#),
            None,
        ),
        (
            "unknown curve beside",
            format!(r#"{{"keys":[{{"kty":"OKP","crv":"X25519"}},{{{ec}}}]}}"#),
            None,
        ),
        (
            "for encryption",
            format!(r#"{{"keys":[{{{ec},"use":"enc"}}]}}"#),
            Some(KeySetError::Empty),
        ),
        (
            "empty",
            r#"{"keys":[]}"#.to_owned(),
            Some(KeySetError::Empty),
        ),
        (
            "no JSON",
            "-----BEGIN PUBLIC KEY-----".to_owned(),
            Some(KeySetError::NoSet),
        ),
        (
            "a key, not a set",
            format!("{{{ec}}}"),
            Some(KeySetError::NoSet),
        ),
        (
            "no type",
            r#"{"keys":[{}]}"#.to_owned(),
            Some(key("`kty` is missing")),
        ),
        (
            "algorithm of another type",
            format!(r#"{{"keys":[{{{ec},"alg":"RS256"}}]}}"#),
            Some(key("`alg` does not belong to `kty` and `crv`")),
        ),
        (
            "algorithm none",
            format!(r#"{{"keys":[{{{ec},"alg":"none"}}]}}"#),
            Some(key("`alg` is no signature algorithm Weir understands")),
        ),
        (
            "short secret",
            r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#.to_owned(),
            Some(key(
                "an HMAC key must be as long as its hash: 32, 48 or 64 bytes",
            )),
        ),
        (
            "short RSA key",
            r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#.to_owned(),
            Some(key("an RSA key must have at least 2048 bits")),
        ),
        (
            "same kid",
            format!(r#"{{"keys":[{{{ec},"kid":"a"}},{{{ec},"kid":"a"}}]}}"#),
            Some(KeySetError::SameId("a".to_owned())),
        ),
        (
            "too many",
            format!(r#"{{"keys":[{}]}}"#, vec!["{}"; 101].join(",")),
            Some(KeySetError::TooMany),
        ),
    ];
    for (description, json, expected) in cases {
        assert_eq!(KeySet::parse(&json, &[]).err(), expected, "{description}");
    }
}

#[test]
fn without_kid_a_token_must_leave_no_choice() {
    let set: Value = serde_json::from_str(RFC_KEYS).unwrap();
    let (mut first, mut second) = (set["keys"][2].clone(), set["keys"][2].clone());
    first["kid"] = json!("one");
    second["kid"] = json!("two");
    let keys = KeySet::parse(&json!({ "keys": [first, second] }).to_string(), &[]).unwrap();
    assert_eq!(
        keys.find(None, "ES256").err(),
        Some(Reject::TokenKeyUnknown)
    );
    assert_eq!(keys.find(None, "RS256").err(), Some(Reject::TokenAlgorithm));
    assert!(keys.find(Some("two"), "ES256").is_ok());
}
