//! One reading of a request: what another server could read differently is settled or refused.
//!
//! [`framing`] watches the bytes of HTTP/1.1 before hyper reads them. This file looks at the head
//! hyper has made of them, of HTTP/2 too, and settles its `target`: which host, which path.

pub mod framing;
pub(crate) mod target;

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderMap, Method, Version};

use self::framing::Violation;
use self::target::{Host, LastHost};
use crate::config::ServerLimits;
use crate::filter::reject::Reject;

/// Fields of which a request may hold one: two readers might pick different ones.
const SINGLE: [HeaderName; 4] = [AUTHORIZATION, CONTENT_TYPE, EXPECT, CONTENT_LENGTH];

/// Settles the head of a request in place and returns the host it is for.
///
/// Afterwards the URI is in origin form with a path in normal form, and there is no `Expect`:
/// hyper sends `100 Continue` when the instance begins to take the body.
pub(crate) fn normalise(
    head: &mut Parts,
    limits: &ServerLimits,
    last: &LastHost,
) -> Result<Host, Reject> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Reject::MethodNotImplemented);
    }
    check_fields(head)?;
    let host = target::host(&head.uri, &head.headers, head.version, last)?;
    target::settle_path(&mut head.uri, limits.uri_bytes_max)?;
    head.headers.remove(HOST);
    head.headers.remove(EXPECT);
    Ok(host)
}

fn check_fields(head: &Parts) -> Result<(), Reject> {
    let headers = &head.headers;
    for name in &SINGLE {
        if has_several(headers, name) {
            let framing = name == CONTENT_LENGTH;
            return Err(if framing {
                Reject::ConflictingLength
            } else {
                Reject::BadHeader
            });
        }
    }
    // RFC 9113 section 8.2.2: the field has no meaning in HTTP/2, and a great one behind it.
    if head.version == Version::HTTP_2 && headers.contains_key(TRANSFER_ENCODING) {
        return Err(Reject::BadTransferEncoding);
    }
    match headers.get(EXPECT) {
        Some(expect) if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Reject::ExpectationFailed)
        }
        _ => Ok(()),
    }
}

fn has_several(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// The refusal for a message whose framing departs from the grammar.
pub(crate) fn refusal(violation: Violation) -> Reject {
    match violation {
        Violation::BareLineFeed | Violation::RequestLine => Reject::BadRequest,
        Violation::HeaderName | Violation::HeaderValue | Violation::FoldedHeader => {
            Reject::BadHeader
        }
        Violation::ContentLength | Violation::LengthConflict => Reject::ConflictingLength,
        Violation::TransferEncoding => Reject::BadTransferEncoding,
        Violation::HeadTooLarge => Reject::HeadersTooLarge,
        Violation::TargetTooLong => Reject::UriTooLong,
        Violation::HeadTimeout => Reject::RequestTimeout,
        Violation::Chunk => Reject::BadChunk,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;

    use super::*;

    fn limits() -> ServerLimits {
        ServerLimits {
            connections_max: 1,
            header_bytes_max: 1,
            headers_max: 1,
            uri_bytes_max: 64,
            body_bytes_max: 1,
            streams_max: 1,
            handshake_timeout: Duration::ZERO,
            header_timeout: Duration::ZERO,
            body_idle_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            upgrade_idle_timeout: Duration::ZERO,
        }
    }

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn run(method: &str, version: Version, headers: Fields<'_>) -> Result<Host, Reject> {
        let mut request = Request::builder().method(method).uri("/a").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let host = normalise(&mut head, &limits(), &LastHost::default())?;
        assert!(!head.headers.contains_key(HOST) && !head.headers.contains_key(EXPECT));
        Ok(host)
    }

    #[test]
    fn refuses_what_is_ambiguous() {
        let host = ("host", "a.example");
        let table: [(&str, &str, Fields<'_>, Reject); 7] = [
            ("CONNECT", "CONNECT", &[host], Reject::MethodNotImplemented),
            ("TRACE", "TRACE", &[host], Reject::MethodNotImplemented),
            (
                "two tokens",
                "GET",
                &[host, ("authorization", "a"), ("authorization", "b")],
                Reject::BadHeader,
            ),
            (
                "two types",
                "GET",
                &[host, ("content-type", "a"), ("content-type", "b")],
                Reject::BadHeader,
            ),
            (
                "two lengths",
                "GET",
                &[host, ("content-length", "1"), ("content-length", "1")],
                Reject::ConflictingLength,
            ),
            (
                "other expectation",
                "GET",
                &[host, ("expect", "tea")],
                Reject::ExpectationFailed,
            ),
            ("no host", "GET", &[], Reject::BadHost),
        ];
        for (what, method, headers, reject) in table {
            assert_eq!(
                run(method, Version::HTTP_11, headers),
                Err(reject),
                "{what}"
            );
        }
        let coded = [host, ("transfer-encoding", "chunked")];
        assert_eq!(
            run("GET", Version::HTTP_2, &coded),
            Err(Reject::BadTransferEncoding)
        );
    }

    #[test]
    fn accepts_what_is_plain() {
        let headers = [("host", "a.example:8080"), ("expect", "100-Continue")];
        let host = run("POST", Version::HTTP_11, &headers).unwrap();
        assert_eq!(
            (&*host.name, host.authority.to_str().unwrap()),
            ("a.example", "a.example:8080")
        );
    }
}
