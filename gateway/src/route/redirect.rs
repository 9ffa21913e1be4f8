//! The answer that sends a client elsewhere.

use std::fmt;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::predicate::{PathRule, Request};
use super::rewrite::PathTemplate;

/// Where clients are sent. What is not given stays as in the request.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// Without port.
    pub host: Option<Box<str>>,
    /// The port. Left out: with `scheme` that scheme's own, else the one the client used.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathTemplate>,
    /// Whether the query is left out.
    pub drop_query: bool,
}

/// What a redirect keeps of a request.
#[derive(Clone, Copy, Debug)]
pub struct From<'r> {
    /// The request.
    pub request: Request<'r>,
    /// What its path matched.
    pub path: &'r PathRule,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'r str,
    /// The port the client named, if it named one.
    pub port: Option<u16>,
}

impl Redirect {
    /// The answer to a request; nothing if no URI can be made of it.
    pub fn answer(&self, from: &From<'_>) -> Option<Response<Full<Bytes>>> {
        let location = HeaderValue::try_from(self.location(from)).ok()?;
        let mut response = Response::new(Full::default());
        *response.status_mut() = self.status;
        response.headers_mut().insert(LOCATION, location);
        if !self.is_lasting() {
            let uncached = HeaderValue::from_static("no-store");
            response.headers_mut().insert(CACHE_CONTROL, uncached);
        }
        Some(response)
    }

    /// The URI a client is sent to.
    pub fn location(&self, from: &From<'_>) -> String {
        let scheme = self.scheme.unwrap_or(from.scheme);
        let host = self.host.as_deref().unwrap_or(from.request.host);
        let port = match (self.port, self.scheme) {
            (Some(port), _) => Some(port),
            (None, Some(_)) => None,
            (None, None) => from.port,
        };
        let port = port.filter(|port| *port != default_port(scheme));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let made = self.path.as_ref();
        let made = made.map(|path| path.make(from.path, from.request.path));
        let path = made.as_deref().unwrap_or(from.request.path);
        let query = from.request.query.filter(|_| !self.drop_query);
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{scheme}://{host}{port}{path}{query}")
    }

    /// Whether clients may remember it (RFC 9110 section 15.4).
    fn is_lasting(&self) -> bool {
        matches!(
            self.status,
            StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT
        )
    }
}

/// As people read it: `308 to https://*/new/{*rest}`, with `*` for what stays.
impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to ", self.status.as_u16())?;
        write!(f, "{}://", self.scheme.unwrap_or("*"))?;
        f.write_str(self.host.as_deref().unwrap_or("*"))?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match &self.path {
            Some(path) => path.fmt(f)?,
            None => f.write_str("/*")?,
        }
        f.write_str(if self.drop_query { "" } else { "?*" })
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::route::path::PathPattern;

    fn redirect() -> Redirect {
        Redirect {
            status: StatusCode::FOUND,
            scheme: None,
            host: None,
            port: None,
            path: None,
            drop_query: false,
        }
    }

    fn location(redirect: &Redirect, scheme: &str, port: Option<u16>) -> String {
        let headers = HeaderMap::new();
        let path = PathRule::Pattern(PathPattern::parse("/old/{*rest}").unwrap());
        redirect.location(&From {
            request: Request {
                listener: "public",
                host: "a.test",
                method: &Method::GET,
                path: "/old/x",
                query: Some("q=1"),
                headers: &headers,
            },
            path: &path,
            scheme,
            port,
        })
    }

    #[test]
    fn what_is_not_given_stays() {
        let template = |text| Some(PathTemplate::parse(text).unwrap());
        let table = [
            (
                "scheme",
                Redirect {
                    scheme: Some("https"),
                    ..redirect()
                },
                "https://a.test/old/x?q=1",
            ),
            (
                "scheme and port",
                Redirect {
                    scheme: Some("https"),
                    port: Some(8443),
                    ..redirect()
                },
                "https://a.test:8443/old/x?q=1",
            ),
            (
                "the scheme's own port",
                Redirect {
                    scheme: Some("https"),
                    port: Some(443),
                    ..redirect()
                },
                "https://a.test/old/x?q=1",
            ),
            (
                "host",
                Redirect {
                    host: Some("b.test".into()),
                    ..redirect()
                },
                "http://b.test:8080/old/x?q=1",
            ),
            (
                "port",
                Redirect {
                    port: Some(80),
                    ..redirect()
                },
                "http://a.test/old/x?q=1",
            ),
            (
                "full path",
                Redirect {
                    path: template("/new"),
                    ..redirect()
                },
                "http://a.test:8080/new?q=1",
            ),
            (
                "prefix, without the query",
                Redirect {
                    path: template("/new/{*rest}"),
                    drop_query: true,
                    ..redirect()
                },
                "http://a.test:8080/new/x",
            ),
        ];
        for (what, redirect, expected) in table {
            assert_eq!(location(&redirect, "http", Some(8080)), expected, "{what}");
        }
        let host = Redirect {
            host: Some("b.test".into()),
            ..redirect()
        };
        assert_eq!(location(&host, "https", None), "https://b.test/old/x?q=1");
    }

    #[test]
    fn redirects_are_described_by_what_changes() {
        let lasting = Redirect {
            status: StatusCode::PERMANENT_REDIRECT,
            scheme: Some("https"),
            path: Some(PathTemplate::parse("/new/{*rest}").unwrap()),
            ..redirect()
        };
        assert_eq!(lasting.to_string(), "308 to https://*/new/{*rest}?*");
        assert_eq!(redirect().to_string(), "302 to *://*/*?*");
    }
}
