//! Sticky sessions: a cookie that names the instance a client was served by.
//!
//! The name is a keyed hash (HMAC-SHA256, cut to 128 bits) of service and address: it tells nobody
//! how the services are laid out, and nobody can make one up. It depends on nothing else, so every
//! gateway with the same key knows it, whatever else it is configured to do.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};

use crate::config::{EndpointConfig, SameSite, Sticky};
use crate::route::cookie;

/// Bytes of an instance's name.
const TOKEN_BYTES: usize = 16;

/// The key of services that have none configured, made up by this process.
static PROCESS_KEY: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut key = [0; 32];
    rand::fill(&mut key).expect("the operating system gives random bytes");
    key
});

/// The cookies of one service.
#[derive(Debug)]
pub(super) struct StickyTable {
    cookie: Arc<str>,
    secure: Option<bool>,
    positions: HashMap<[u8; TOKEN_BYTES], usize>,
    /// By position of the endpoint: without and with `Secure`.
    cookies: Vec<[HeaderValue; 2]>,
}

impl StickyTable {
    pub(super) fn new(config: &Sticky, service: &str, endpoints: &[EndpointConfig]) -> Self {
        let key = config.key.as_ref().map_or(&PROCESS_KEY[..], |key| &key.0);
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let tokens: Vec<_> = endpoints
            .iter()
            .map(|endpoint| token(&key, service, endpoint))
            .collect();
        let both = |token: &[u8; TOKEN_BYTES]| {
            [false, true].map(|secure| set_cookie(config, token, secure))
        };
        Self {
            cookie: Arc::clone(&config.cookie),
            secure: config.secure,
            cookies: tokens.iter().map(both).collect(),
            positions: tokens.into_iter().zip(0..).collect(),
        }
    }

    /// The position of the instance the request wants to return to.
    pub(super) fn find(&self, headers: &HeaderMap) -> Option<usize> {
        let value = cookie::first(headers, &self.cookie)?;
        let mut token = [0; TOKEN_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut token).ok()?;
        (length == TOKEN_BYTES)
            .then(|| self.positions.get(&token).copied())
            .flatten()
    }

    /// The `Set-Cookie` that brings the client back to the instance at `position`; `tls`: how the
    /// client came.
    pub(super) fn cookie(&self, position: usize, tls: bool) -> Option<&HeaderValue> {
        let secure = self.secure.unwrap_or(tls);
        Some(&self.cookies.get(position)?[usize::from(secure)])
    }
}

fn token(key: &hmac::Key, service: &str, endpoint: &EndpointConfig) -> [u8; TOKEN_BYTES] {
    let named = format!("{service}\0{}", endpoint.address);
    let tag = hmac::sign(key, named.as_bytes());
    let token = tag.as_ref().first_chunk();
    *token.expect("HMAC-SHA256 gives 32 bytes")
}

fn set_cookie(config: &Sticky, token: &[u8; TOKEN_BYTES], secure: bool) -> HeaderValue {
    let token = URL_SAFE_NO_PAD.encode(token);
    let mut text = format!("{}={token}; Path={}", config.cookie, config.path);
    // Writing to a string cannot fail.
    if let Some(domain) = &config.domain {
        let _ = write!(text, "; Domain={domain}");
    }
    if let Some(age) = config.max_age {
        let _ = write!(text, "; Max-Age={}", age.as_secs().max(1));
    }
    let _ = write!(
        text,
        "; SameSite={}",
        match config.same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        }
    );
    if secure {
        text.push_str("; Secure");
    }
    if config.http_only {
        text.push_str("; HttpOnly");
    }
    HeaderValue::try_from(text).expect("names and attributes were checked when loaded")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::COOKIE;

    use super::*;
    use crate::config::StickyKey;

    fn config() -> Sticky {
        Sticky {
            cookie: "weir-instance".into(),
            path: "/".into(),
            domain: None,
            max_age: None,
            same_site: SameSite::Lax,
            secure: None,
            http_only: true,
            key: Some(StickyKey((*b"0123456789abcdef").into())),
        }
    }

    fn endpoints() -> Vec<EndpointConfig> {
        let addresses = ["10.0.0.1:80", "10.0.0.2:80"];
        let endpoint = |address: &str| EndpointConfig::new(address.parse().unwrap());
        addresses.into_iter().map(endpoint).collect()
    }

    fn text(table: &StickyTable, position: usize, tls: bool) -> &str {
        table.cookie(position, tls).unwrap().to_str().unwrap()
    }

    fn asking(table: &StickyTable, cookie: &str) -> Option<usize> {
        let headers = HeaderMap::from_iter([(COOKIE, cookie.parse().unwrap())]);
        table.find(&headers)
    }

    #[test]
    fn a_cookie_leads_back_to_its_instance() {
        let table = StickyTable::new(&config(), "app", &endpoints());
        for position in 0..2 {
            let cookie = text(&table, position, false);
            let (pair, _) = cookie.split_once(';').unwrap();
            assert_eq!(asking(&table, pair), Some(position));
            assert_eq!(asking(&table, &format!("a=b; {pair}; c=d")), Some(position));
        }
        for wrong in [
            "weir-instance=",
            "weir-instance=AAAAAAAAAAAAAAAAAAAAAA",
            "weir-instance=10.0.0.1:80",
            "weir-instance=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "other=AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(asking(&table, wrong), None, "{wrong}");
        }
        assert_eq!(table.find(&HeaderMap::new()), None);
    }

    #[test]
    fn attributes_are_as_configured() {
        let token = "VdF4yKDhKIk2gzoO3HCHDw";
        let full = Sticky {
            cookie: "id".into(),
            path: "/app".into(),
            domain: Some("example.com".into()),
            max_age: Some(Duration::from_secs(3600)),
            same_site: SameSite::None,
            secure: Some(true),
            http_only: false,
            ..config()
        };
        let attributes = |config: &Sticky, tls| {
            let table = StickyTable::new(config, "app", &endpoints());
            let text = text(&table, 0, tls).to_owned();
            let (name, rest) = text.split_once('=').unwrap();
            let (value, rest) = rest.split_once("; ").unwrap();
            assert_eq!(value.len(), token.len());
            format!("{name}; {rest}")
        };
        let table = [
            (
                config(),
                false,
                "weir-instance; Path=/; SameSite=Lax; HttpOnly",
            ),
            (
                config(),
                true,
                "weir-instance; Path=/; SameSite=Lax; Secure; HttpOnly",
            ),
            (
                full,
                false,
                "id; Path=/app; Domain=example.com; Max-Age=3600; SameSite=None; Secure",
            ),
        ];
        for (config, tls, expected) in table {
            assert_eq!(attributes(&config, tls), expected);
        }
    }

    #[test]
    fn names_depend_on_key_service_and_address_alone() {
        let name = |config: &Sticky, service: &str, position: usize| {
            let table = StickyTable::new(config, service, &endpoints());
            text(&table, position, false).to_owned()
        };
        let one = name(&config(), "app", 0);
        assert_eq!(one, name(&config(), "app", 0));
        assert_ne!(one, name(&config(), "app", 1));
        assert_ne!(one, name(&config(), "other", 0));
        let other_key = Sticky {
            key: Some(StickyKey((*b"fedcba9876543210").into())),
            ..config()
        };
        assert_ne!(one, name(&other_key, "app", 0));
        let made_up = Sticky {
            key: None,
            ..config()
        };
        assert_eq!(name(&made_up, "app", 0), name(&made_up, "app", 0));
        assert_ne!(one, name(&made_up, "app", 0));
    }
}
