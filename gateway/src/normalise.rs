//! One reading of a request: what another server could read differently is settled or refused.
//!
//! [`framing`] watches the bytes of HTTP/1.1 before hyper reads them. This file looks at the head
//! hyper has made of them, of HTTP/2 too, and settles its `target`: which host, which path.

pub mod framing;
mod response;
pub(crate) mod target;

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, IF_RANGE,
    MAX_FORWARDS, ORIGIN, RANGE, REFERER, TRANSFER_ENCODING, USER_AGENT,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use self::framing::Violation;
pub(crate) use self::response::{Length, length as response_length};
use self::target::{Host, KnownHosts, path};
use crate::config::{ServerLimits, UnderscoreNames};
use crate::filter::reject::Reject;

/// Fields of which a request may hold one: two readers might pick different ones.
const SINGLE: [HeaderName; 10] = [
    AUTHORIZATION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    IF_RANGE,
    MAX_FORWARDS,
    ORIGIN,
    RANGE,
    REFERER,
    USER_AGENT,
];

/// Settles the head of a request in place and returns the host it is for.
///
/// Afterwards the URI is in origin form with a path in normal form, and there is no `Expect`:
/// hyper sends `100 Continue` when the instance begins to take the body.
pub(crate) fn normalise(
    head: &mut Parts,
    limits: &ServerLimits,
    known: &KnownHosts,
) -> Result<Host, Reject> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Reject::MethodNotImplemented);
    }
    let expects = check_fields(head)?;
    check_scheme(&head.uri)?;
    settle_repeated(&mut head.headers)?;
    settle_underscores(head, limits.underscore_names)?;
    let host = target::host(&head.uri, &head.headers, head.version, known)?;
    path::settle(&mut head.uri, limits.uri_bytes_max, limits.path)?;
    head.headers.remove(HOST);
    if expects {
        head.headers.remove(EXPECT);
    }
    Ok(host)
}

/// Refuses fields with another meaning than the one they may have; returns whether there is `Expect`.
fn check_fields(head: &Parts) -> Result<bool, Reject> {
    let headers = &head.headers;
    // RFC 9113 section 8.2.2: the field has no meaning in HTTP/2, and a great one behind it.
    if head.version == Version::HTTP_2 && headers.contains_key(TRANSFER_ENCODING) {
        return Err(Reject::BadTransferEncoding);
    }
    match headers.get(EXPECT) {
        Some(expect) if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Reject::ExpectationFailed)
        }
        expect => Ok(expect.is_some()),
    }
}

/// What an absolute URI or `:scheme` may say. Between the two it may be wrong: TLS may end before
/// us.
fn check_scheme(uri: &Uri) -> Result<(), Reject> {
    match uri.scheme_str() {
        None | Some("http" | "https") => Ok(()),
        Some(_) => Err(Reject::BadScheme),
    }
}

/// Refuses fields that may stand once only, and joins the pieces of `Cookie` (RFC 9113 section
/// 8.2.3): in HTTP/1.1 there is one such field, and readers of several differ.
fn settle_repeated(headers: &mut HeaderMap) -> Result<(), Reject> {
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    if has_several(headers, &CONTENT_LENGTH) {
        return Err(Reject::RepeatedLength);
    }
    if SINGLE.iter().any(|name| has_several(headers, name)) {
        return Err(Reject::RepeatedHeader);
    }
    if has_several(headers, &COOKIE) {
        let pieces: Vec<&[u8]> = headers
            .get_all(COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let joined = pieces.join(&b"; "[..]);
        let joined = HeaderValue::from_bytes(&joined).map_err(|_| Reject::BadHeaderValue)?;
        headers.insert(COOKIE, joined);
    }
    Ok(())
}

/// Names with an underscore: `X_User` and `X-User` are one variable to programs behind CGI, WSGI
/// and the like. Of HTTP/1.1 they are refused by the scanner already.
fn settle_underscores(head: &mut Parts, rule: UnderscoreNames) -> Result<(), Reject> {
    let of_scanner = head.version < Version::HTTP_2 && rule == UnderscoreNames::Refuse;
    if of_scanner || rule == UnderscoreNames::Keep {
        return Ok(());
    }
    let odd = |name: &&HeaderName| name.as_str().contains('_');
    let Some(found) = head.headers.keys().find(odd).cloned() else {
        return Ok(());
    };
    if rule == UnderscoreNames::Refuse {
        return Err(Reject::UnderscoreHeader);
    }
    let mut next = Some(found);
    while let Some(name) = next {
        head.headers.remove(name);
        next = head.headers.keys().find(odd).cloned();
    }
    Ok(())
}

fn has_several(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// The refusal for a message whose framing departs from the grammar.
pub(crate) fn refusal(violation: Violation) -> Reject {
    match violation {
        Violation::BareLineFeed => Reject::BareLineFeed,
        Violation::RequestLine => Reject::BadRequestLine,
        Violation::Version => Reject::HttpVersion,
        Violation::Fragment => Reject::PathFragment,
        Violation::HeaderName => Reject::BadHeaderName,
        Violation::SpaceBeforeColon => Reject::SpaceBeforeColon,
        Violation::HeaderValue => Reject::BadHeaderValue,
        Violation::FoldedHeader => Reject::FoldedHeader,
        Violation::UnderscoreName => Reject::UnderscoreHeader,
        Violation::ContentLength => Reject::BadLength,
        Violation::RepeatedLength => Reject::RepeatedLength,
        Violation::LengthConflict => Reject::ConflictingLength,
        Violation::TransferEncoding => Reject::BadTransferEncoding,
        Violation::HeadTooLarge => Reject::HeadersTooLarge,
        Violation::TooManyHeaders => Reject::TooManyHeaders,
        Violation::TargetTooLong => Reject::UriTooLong,
        Violation::HeadTimeout => Reject::RequestTimeout,
        Violation::Chunk => Reject::BadChunk,
        Violation::ChunkExtension => Reject::ChunkExtension,
        Violation::Trailer => Reject::BadTrailer,
        Violation::TrailersTooLarge => Reject::TrailersTooLarge,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn limits() -> ServerLimits {
        ServerLimits::for_tests()
    }

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn run(method: &str, version: Version, headers: Fields<'_>) -> Result<Host, Reject> {
        let mut request = Request::builder().method(method).uri("/a").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let host = normalise(&mut head, &limits(), &KnownHosts::default())?;
        assert!(!head.headers.contains_key(HOST) && !head.headers.contains_key(EXPECT));
        Ok(host)
    }

    #[test]
    fn refuses_what_is_ambiguous() {
        let host = ("host", "a.example");
        let table: [(&str, &str, Fields<'_>, Reject); 8] = [
            ("CONNECT", "CONNECT", &[host], Reject::MethodNotImplemented),
            ("TRACE", "TRACE", &[host], Reject::MethodNotImplemented),
            (
                "two tokens",
                "GET",
                &[host, ("authorization", "a"), ("authorization", "b")],
                Reject::RepeatedHeader,
            ),
            (
                "two types",
                "GET",
                &[host, ("content-type", "a"), ("content-type", "b")],
                Reject::RepeatedHeader,
            ),
            (
                "equal ranges",
                "GET",
                &[host, ("range", "bytes=0-1"), ("range", "bytes=0-1")],
                Reject::RepeatedHeader,
            ),
            (
                "two lengths",
                "GET",
                &[host, ("content-length", "1"), ("content-length", "1")],
                Reject::RepeatedLength,
            ),
            (
                "other expectation",
                "GET",
                &[host, ("expect", "tea")],
                Reject::ExpectationFailed,
            ),
            ("no host", "GET", &[], Reject::HostMissing),
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

    fn settled(
        rule: UnderscoreNames,
        version: Version,
        headers: Fields<'_>,
    ) -> Result<HeaderMap, Reject> {
        let mut request = Request::builder().uri("http://a/").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let limits = ServerLimits {
            underscore_names: rule,
            ..limits()
        };
        normalise(&mut head, &limits, &KnownHosts::default()).map(|_| head.headers)
    }

    #[test]
    fn cookies_in_pieces_are_joined() {
        let pieces = [
            ("cookie", "a=1"),
            ("cookie", "b=2; c=3"),
            ("accept", "x"),
            ("accept", "y"),
        ];
        let headers = settled(UnderscoreNames::Refuse, Version::HTTP_2, &pieces).unwrap();
        let cookies: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
        assert_eq!(headers.get_all("accept").iter().count(), 2);
    }

    #[test]
    fn names_with_underscores_are_refused_dropped_or_kept() {
        let fields = [("x_user", "1"), ("x_group", "2"), ("x-user", "3")];
        let of = |rule, version| settled(rule, version, &fields);
        let names = |headers: HeaderMap| {
            let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        let refused = of(UnderscoreNames::Refuse, Version::HTTP_2);
        assert_eq!(refused, Err(Reject::UnderscoreHeader));
        let dropped = of(UnderscoreNames::Drop, Version::HTTP_2).map(names);
        assert_eq!(dropped, Ok(vec!["x-user".to_owned()]));
        let kept = of(UnderscoreNames::Keep, Version::HTTP_2).map(names);
        assert_eq!(kept.unwrap().len(), 3);
        let dropped = of(UnderscoreNames::Drop, Version::HTTP_10).map(names);
        assert_eq!(dropped, Ok(vec!["x-user".to_owned()]));
    }

    #[test]
    fn schemes_of_other_protocols_are_refused() {
        for (uri, expected) in [
            ("http://a/", Ok(())),
            ("HTTPS://a/", Ok(())),
            ("/a", Ok(())),
            ("ftp://a/", Err(Reject::BadScheme)),
            ("ws://a/", Err(Reject::BadScheme)),
        ] {
            assert_eq!(check_scheme(&uri.parse().unwrap()), expected, "{uri}");
        }
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
