//! What of a request stands for its sender: the key of rate limits and of consistent hashing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use aws_lc_rs::digest::{Context as Digest, SHA256, SHA256_OUTPUT_LEN};
use http::HeaderName;
use http::request::Parts;
use serde_json::Value;

use super::Context;
use crate::route::cookie;

/// Bits of an IPv6 address that tell clients apart: one site usually holds a whole /64
/// (RFC 6177), and could otherwise send from 2^64 addresses.
const IPV6_PREFIX_BITS: u32 = 64;

/// The part of a request that tells one sender from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestKey {
    /// `client-ip`: the address; of an IPv6 address its /64.
    ClientIp,
    /// `jwt.CLAIM`: a claim of the accepted token, usually `jwt.sub`.
    Claim(String),
    /// `api-key`: the name of the accepted API key.
    ApiKey,
    /// `header.NAME`: the value of a request header.
    Header(HeaderName),
    /// `cookie.NAME`: the value of a cookie.
    Cookie(String),
    /// `query.NAME`: the value of a query parameter, as sent.
    Query(String),
    /// `route`: one key for all requests of the route.
    Route,
}

impl RequestKey {
    /// All forms, for error texts.
    pub const FORMS: &str = "`client-ip`, `jwt.CLAIM`, `api-key`, `header.NAME`, `cookie.NAME`, \
        `query.NAME` or `route`";

    /// The type of authentication that finds it out, if one must.
    pub fn authentication(&self) -> Option<&'static str> {
        match self {
            Self::Claim(_) => Some("jwt"),
            Self::ApiKey => Some("api-key"),
            _ => None,
        }
    }

    /// The key of this request as bytes of fixed length, or nothing if the request has none (no
    /// such header or claim, not authenticated). Equal senders give equal bytes in every gateway,
    /// and no sender can find text that gives another's (a digest of 128 bits).
    ///
    /// `head` is the request's, `route` the name of the route it takes.
    pub fn of(&self, context: &Context, head: &Parts, route: &str) -> Option<[u8; 16]> {
        match self {
            Self::ClientIp => Some(client_bytes(context.client)),
            _ => self.text(context, head, route, |kind, text| {
                *digest(kind, text)
                    .first_chunk()
                    .expect("a digest has 32 bytes")
            }),
        }
    }

    /// The same for tables of this process alone: short texts as they are, which costs no digest.
    pub(super) fn sender(&self, context: &Context, head: &Parts, route: &str) -> Option<SenderKey> {
        match self {
            Self::ClientIp => Some(SenderKey::client(context.client)),
            _ => self.text(context, head, route, SenderKey::new),
        }
    }

    /// What `make` makes of the text that tells senders apart, and of where it comes from.
    fn text<T>(
        &self,
        context: &Context,
        head: &Parts,
        route: &str,
        make: impl FnOnce(Origin, &[u8]) -> T,
    ) -> Option<T> {
        match self {
            Self::ClientIp => Some(make(Origin::Client, &client_bytes(context.client))),
            Self::Claim(claim) => {
                let identity = context.identity.as_ref()?;
                // The usual one stands beside the claims, and needs no search among them.
                if claim == "sub" && !identity.subject.is_empty() {
                    return Some(make(Origin::Claim, identity.subject.as_bytes()));
                }
                match identity.claims.get(claim)? {
                    Value::String(text) => Some(make(Origin::Claim, text.as_bytes())),
                    Value::Null => None,
                    other => Some(make(Origin::ClaimJson, other.to_string().as_bytes())),
                }
            }
            Self::ApiKey => {
                let subject = &context.api_key.as_ref()?.subject;
                Some(make(Origin::ApiKey, subject.as_bytes()))
            }
            Self::Header(name) => {
                let value = head.headers.get(name)?;
                Some(make(Origin::Header, value.as_bytes()))
            }
            Self::Cookie(name) => {
                let value = cookie::first(&head.headers, name)?;
                Some(make(Origin::Cookie, value))
            }
            Self::Query(name) => {
                let value = parameter(head.uri.query()?, name)?;
                Some(make(Origin::Query, value.as_bytes()))
            }
            Self::Route => Some(make(Origin::Route, route.as_bytes())),
        }
    }
}

/// Where a text comes from; keeps equal texts of different origin apart.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Client,
    Claim,
    ClaimJson,
    ApiKey,
    Header,
    Cookie,
    Query,
    Route,
}

impl Origin {
    /// In digests.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Client => b"client",
            Self::Claim => b"claim",
            Self::ClaimJson => b"claim-json",
            Self::ApiKey => b"api-key",
            Self::Header => b"header",
            Self::Cookie => b"cookie",
            Self::Query => b"query",
            Self::Route => b"route",
        }
    }
}

/// What the limits of this process know a sender by. A text of up to [`SHORT_BYTES_MAX`] bytes
/// stands in it as it is, so that no two senders can ever be taken for one; for a longer one stand
/// 240 bits of its SHA-256. All take up the same room, whatever clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SenderKey([u8; 2 + SHORT_BYTES_MAX]);

/// Bytes of a text that is its own key.
const SHORT_BYTES_MAX: usize = 30;
/// In place of the length of a text: what stands there is a digest.
const LONG: u8 = u8::MAX;

impl SenderKey {
    /// The key of a client address.
    pub(super) fn client(client: IpAddr) -> Self {
        Self::new(Origin::Client, &client_bytes(client))
    }

    fn new(origin: Origin, text: &[u8]) -> Self {
        let mut key = [0; 2 + SHORT_BYTES_MAX];
        let [kind, length, place @ ..] = &mut key;
        *kind = origin as u8;
        if let Some(place) = place.get_mut(..text.len()) {
            place.copy_from_slice(text);
            *length = text.len() as u8;
        } else {
            let digest = digest(origin, text);
            place.copy_from_slice(&digest[..SHORT_BYTES_MAX]);
            *length = LONG;
        }
        Self(key)
    }
}

/// The first value of a query parameter, as sent.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// The key of a client address. IPv4-mapped IPv6 addresses are the IPv4 clients they stand for.
pub fn client_bytes(client: IpAddr) -> [u8; 16] {
    match client.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & (u128::MAX << (128 - IPV6_PREFIX_BITS));
            prefix.to_be_bytes()
        }
    }
}

/// A digest of a text and of where it comes from.
fn digest(origin: Origin, text: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut digest = Digest::new(&SHA256);
    digest.update(origin.name());
    digest.update(&[0]);
    digest.update(text);
    let digest = digest.finish();
    *digest
        .as_ref()
        .first_chunk()
        .expect("SHA-256 gives 32 bytes")
}

/// Text that names no part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRequestKey;

impl FromStr for RequestKey {
    type Err = NoRequestKey;

    fn from_str(text: &str) -> Result<Self, NoRequestKey> {
        match text {
            "client-ip" => return Ok(Self::ClientIp),
            "api-key" => return Ok(Self::ApiKey),
            "route" => return Ok(Self::Route),
            _ => {}
        }
        match text.split_once('.') {
            Some(("jwt", claim)) if !claim.is_empty() => Ok(Self::Claim(claim.to_owned())),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            Some(("header", name)) => HeaderName::try_from(name)
                .map(Self::Header)
                .map_err(|_| NoRequestKey),
            _ => Err(NoRequestKey),
        }
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client-ip"),
            Self::Claim(claim) => write!(f, "jwt.{claim}"),
            Self::ApiKey => f.write_str("api-key"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Cookie(name) => write!(f, "cookie.{name}"),
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Route => f.write_str("route"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Identity;
    use super::*;

    fn request() -> (Context, Parts) {
        let mut context = Context::new("192.0.2.1".parse().unwrap());
        let claims = serde_json::json!({ "sub": "alice", "tenant": 7, "none": null });
        let claims = claims.as_object().unwrap().clone();
        let subject = "alice".to_owned();
        context.identity = Some(Arc::new(Identity {
            auth: "a".into(),
            subject,
            claims,
        }));
        let request = http::Request::builder()
            .uri("/a?user=7&empty=&flag&user=8")
            .header("cookie", "a=1; session=s%20")
            .header("x-tenant", "acme")
            .body(())
            .unwrap();
        (context, request.into_parts().0)
    }

    #[test]
    fn a_request_has_the_keys_it_carries() {
        let cases = [
            ("client-ip", true),
            ("jwt.sub", true),
            ("jwt.tenant", true),
            ("jwt.none", false),
            ("jwt.missing", false),
            ("api-key", false),
            ("header.x-tenant", true),
            ("header.x-other", false),
            ("cookie.session", true),
            ("cookie.sess", false),
            ("query.user", true),
            ("query.empty", true),
            ("query.flag", false),
            ("query.other", false),
            ("route", true),
        ];
        let (context, head) = request();
        for (text, expected) in cases {
            let key: RequestKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
            assert_eq!(
                key.of(&context, &head, "orders").is_some(),
                expected,
                "{text}"
            );
        }
        for text in [
            "",
            "ip",
            "jwt",
            "jwt.",
            "header",
            "header.",
            "header.a b",
            "cookie.",
            "query.",
            "route.x",
        ] {
            assert_eq!(text.parse::<RequestKey>(), Err(NoRequestKey), "{text}");
        }
    }

    #[test]
    fn a_subject_that_is_no_text_is_a_sender_too() {
        let (mut context, head) = request();
        let claims = serde_json::json!({ "sub": 7 });
        context.identity = Some(Arc::new(Identity {
            auth: "a".into(),
            subject: String::new(),
            claims: claims.as_object().unwrap().clone(),
        }));
        let key = RequestKey::Claim("sub".into()).sender(&context, &head, "r");
        assert_eq!(key, Some(SenderKey::new(Origin::ClaimJson, b"7")));
    }

    #[test]
    fn clients_of_one_ipv6_site_are_one_and_mapped_addresses_are_ipv4() {
        let bytes = |text: &str| client_bytes(text.parse().unwrap());
        assert_eq!(bytes("2001:db8::1"), bytes("2001:db8::ffff:2"));
        assert_ne!(bytes("2001:db8::1"), bytes("2001:db8:0:1::1"));
        assert_eq!(bytes("192.0.2.1"), bytes("::ffff:192.0.2.1"));
        assert_ne!(bytes("192.0.2.1"), bytes("192.0.2.2"));
    }

    #[test]
    fn the_same_text_from_different_places_gives_different_keys() {
        let (context, mut head) = request();
        head.headers
            .insert("x-tenant", http::HeaderValue::from_static("alice"));
        let claim = RequestKey::Claim("sub".into());
        let header = RequestKey::Header(HeaderName::from_static("x-tenant"));
        assert_ne!(
            claim.of(&context, &head, "r"),
            header.of(&context, &head, "r")
        );
        let sender = |key: &RequestKey| key.sender(&context, &head, "r").unwrap();
        assert_ne!(sender(&claim), sender(&header));
        assert_eq!(sender(&claim), SenderKey::new(Origin::Claim, b"alice"));
    }

    #[test]
    fn keys_of_senders_are_equal_only_for_equal_texts() {
        let short = "a".repeat(SHORT_BYTES_MAX);
        let long = format!("{short}a");
        // What a digest looks like must not be taken for one.
        let forged = digest(Origin::Header, long.as_bytes())[..SHORT_BYTES_MAX].to_vec();
        let texts: [&[u8]; 9] = [
            b"",
            b"\0",
            b"\0\0",
            b"a",
            b"a\0",
            &short.as_bytes()[1..],
            short.as_bytes(),
            long.as_bytes(),
            &forged,
        ];
        for (place, one) in texts.iter().enumerate() {
            for (other_place, other) in texts.iter().enumerate() {
                let keys = [one, other].map(|text| SenderKey::new(Origin::Header, text));
                assert_eq!(
                    keys[0] == keys[1],
                    place == other_place,
                    "{one:?} {other:?}"
                );
            }
        }
    }
}
