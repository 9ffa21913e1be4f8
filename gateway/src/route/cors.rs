//! Which other web sites' pages may call a route (the CORS protocol of the Fetch standard).
//!
//! The gateway answers preflights itself, before authentication: they carry no credentials. In
//! other answers it replaces what the instance says on the matter, so that one place decides.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

use super::changes::Settled;

/// What the instance may have said, which the gateway says itself.
const OURS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What pages of other origins may do.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Which origins.
    pub origins: Box<[Origin]>,
    /// Which methods, as the value of a field; `None`: any.
    pub methods: Option<HeaderValue>,
    /// Which request headers, as the value of a field; `None`: any.
    pub headers: Option<HeaderValue>,
    /// Which response headers pages may read.
    pub expose: Option<HeaderValue>,
    /// Whether requests carry cookies and the like.
    pub credentials: bool,
    /// How long browsers remember the answer to a preflight, in seconds.
    pub max_age: HeaderValue,
}

/// Which origins may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Every one.
    Any,
    /// This one: scheme, host and port, in lower case.
    Exact(Box<str>),
    /// Those between: `https://*.example.com` is every origin below it.
    Below {
        /// Scheme and `://`.
        scheme: Box<str>,
        /// From the dot on, with the port.
        end: Box<str>,
    },
}

impl Origin {
    /// Reads an origin. The error is a reason in one line.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        let (scheme, authority) = lower.split_once("://").ok_or("it has no scheme")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let host = authority.strip_prefix('*').unwrap_or(authority);
        let whole = scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if scheme.is_empty() || !whole || host.is_empty() || !host.bytes().all(plain) {
            return Err("it is no scheme and host, with a port where that is not the usual one");
        }
        let default = match scheme {
            "https" => ":443",
            _ => ":80",
        };
        if authority.ends_with(default) {
            return Err("browsers leave out the scheme's own port");
        }
        match authority.strip_prefix('*') {
            None => Ok(Self::Exact(lower.into())),
            Some(end) if end.starts_with('.') => Ok(Self::Below {
                scheme: format!("{scheme}://").into(),
                end: end.into(),
            }),
            Some(_) => Err("a wildcard stands for whole labels, as in `https://*.example.com`"),
        }
    }

    fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(wanted) => wanted.eq_ignore_ascii_case(origin),
            Self::Below { scheme, end } => {
                let origin = origin.to_ascii_lowercase();
                let host = origin.strip_prefix(&**scheme);
                let label = host.and_then(|host| host.strip_suffix(&**end));
                // A page cannot name a path or a user in its origin; others may try.
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
                label.is_some_and(|label| !label.is_empty() && label.bytes().all(plain))
            }
        }
    }
}

/// The method a preflight asks about; nothing for what is no preflight.
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

impl Cors {
    /// The answer to a preflight. To an origin that may not call it says nothing, which makes
    /// the browser refuse.
    pub fn answer_preflight(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        let Some(origin) = self.allowed(headers) else {
            answer.insert(VARY, HeaderValue::from_static("origin"));
            return response;
        };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        // `*` means nothing but itself to a request with credentials: the very thing asked for
        // is named instead.
        let method = self.methods.as_ref();
        let method = method.or_else(|| headers.get(ACCESS_CONTROL_REQUEST_METHOD));
        if let Some(methods) = method {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        }
        let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(asked) = asked {
            let allowed = self.headers.as_ref().unwrap_or(asked);
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
        }
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        let vary = "origin, access-control-request-method, access-control-request-headers";
        answer.insert(VARY, HeaderValue::from_static(vary));
        response
    }

    /// What is changed in the answer to any other request.
    pub fn changes(&self, headers: &HeaderMap) -> Arc<Settled> {
        let mut changes = Settled {
            remove: OURS.to_vec(),
            ..Settled::default()
        };
        if !self.answers_alike() {
            changes.add.push((VARY, HeaderValue::from_static("origin")));
        }
        if let Some(origin) = self.allowed(headers) {
            changes.set.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin));
            if self.credentials {
                changes.set.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE));
            }
            if let Some(expose) = &self.expose {
                changes
                    .set
                    .push((ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone()));
            }
        }
        Arc::new(changes)
    }

    /// Whether every origin gets the same answer.
    fn answers_alike(&self) -> bool {
        !self.credentials && self.origins.contains(&Origin::Any)
    }

    /// The value of `Access-Control-Allow-Origin`, if the request's origin may call.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        let allowed = self.origins.iter().any(|one| one.allows(text));
        let named = || {
            if self.answers_alike() {
                ANY
            } else {
                origin.clone()
            }
        };
        allowed.then(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let origins = origins.iter().map(|text| Origin::parse(text).unwrap());
        Cors {
            origins: origins.collect(),
            methods: Some(HeaderValue::from_static("GET, PUT")),
            headers: Some(HeaderValue::from_static("x-a, x-b")),
            expose: Some(HeaderValue::from_static("x-total")),
            credentials,
            max_age: HeaderValue::from_static("5"),
        }
    }

    fn asking(origin: &str, method: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        if let Some(method) = method {
            headers.insert(ACCESS_CONTROL_REQUEST_METHOD, method.parse().unwrap());
            headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, "x-z".parse().unwrap());
        }
        headers
    }

    #[test]
    fn origins_are_those_written() {
        let cases = [
            ("*", "https://a.test", true),
            ("https://a.test", "https://a.test", true),
            ("https://A.test", "https://a.TEST", true),
            ("https://a.test", "http://a.test", false),
            ("https://a.test", "https://a.test:8443", false),
            ("https://a.test:8443", "https://a.test:8443", true),
            ("https://*.a.test", "https://b.a.test", true),
            ("https://*.a.test", "https://c.b.a.test", true),
            ("https://*.a.test", "https://a.test", false),
            ("https://*.a.test", "https://evil-a.test", false),
            ("https://*.a.test", "https://evil/x.a.test", false),
            ("https://*.a.test", "https://evil.test:1.a.test", false),
            ("https://*.a.test", "http://b.a.test", false),
            ("https://*.a.test:81", "https://b.a.test:81", true),
            ("http://a.test", "null", false),
        ];
        for (pattern, origin, expected) in cases {
            let allowed = Origin::parse(pattern).unwrap().allows(origin);
            assert_eq!(allowed, expected, "{pattern} {origin}");
        }
        let wrong = [
            "",
            "a.test",
            "https://",
            "https://a/b",
            "https://*a.test",
            "https://*",
            "https://a.test:443",
        ];
        for text in wrong {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn preflights_are_told_what_is_allowed() {
        let answer = |cors: &Cors, origin| {
            let response = cors.answer_preflight(&asking(origin, Some("PUT")));
            assert_eq!(response.status(), 204);
            let field = |name: HeaderName| {
                let value = response.headers().get(name);
                value.map_or("", |value| value.to_str().unwrap()).to_owned()
            };
            [
                field(ACCESS_CONTROL_ALLOW_ORIGIN),
                field(ACCESS_CONTROL_ALLOW_METHODS),
                field(ACCESS_CONTROL_ALLOW_HEADERS),
                field(ACCESS_CONTROL_ALLOW_CREDENTIALS),
                field(ACCESS_CONTROL_MAX_AGE),
            ]
        };
        let one = cors(&["https://a.test"], false);
        assert_eq!(
            answer(&one, "https://a.test"),
            ["https://a.test", "GET, PUT", "x-a, x-b", "", "5"]
        );
        assert_eq!(answer(&one, "https://b.test"), [""; 5]);
        let any = cors(&["*"], false);
        assert_eq!(answer(&any, "https://b.test")[0], "*");
        let mut all = cors(&["*"], true);
        (all.methods, all.headers) = (None, None);
        assert_eq!(
            answer(&all, "https://b.test"),
            ["https://b.test", "PUT", "x-z", "true", "5"]
        );
    }

    #[test]
    fn answers_say_what_the_gateway_says_alone() {
        let changed = |cors: &Cors, origin: &str| {
            let mut answer = HeaderMap::new();
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            answer.insert(VARY, HeaderValue::from_static("accept"));
            cors.changes(&asking(origin, None)).apply(&mut answer);
            let mut fields: Vec<String> = answer
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            fields.sort();
            fields
        };
        assert_eq!(
            changed(&cors(&["https://a.test"], true), "https://a.test"),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-origin: https://a.test",
                "access-control-expose-headers: x-total",
                "vary: accept",
                "vary: origin",
            ]
        );
        assert_eq!(
            changed(&cors(&["https://a.test"], true), "https://b.test"),
            ["vary: accept", "vary: origin"]
        );
        assert_eq!(
            changed(&cors(&["*"], false), "https://b.test"),
            [
                "access-control-allow-origin: *",
                "access-control-expose-headers: x-total",
                "vary: accept",
            ]
        );
    }

    #[test]
    fn only_options_with_origin_and_method_is_a_preflight() {
        let mut headers = asking("https://a.test", Some("PUT"));
        assert_eq!(preflight(&Method::OPTIONS, &headers), Some(Method::PUT));
        assert_eq!(preflight(&Method::GET, &headers), None);
        headers.remove(ORIGIN);
        assert_eq!(preflight(&Method::OPTIONS, &headers), None);
        let plain = asking("https://a.test", None);
        assert_eq!(preflight(&Method::OPTIONS, &plain), None);
    }
}
