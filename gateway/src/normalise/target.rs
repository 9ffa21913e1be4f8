//! Which host and which path a request is for, in one normal form.
//!
//! Paths: escapes of unreserved characters are decoded and the others written in upper case
//! (RFC 3986 section 6.2.2). Refused, because servers differ on them: dot segments, empty segments,
//! backslashes, and escapes of `/`, `\`, NUL and other control characters. A route that matches
//! `/admin/*` thus sees every spelling of it that any instance could understand.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Uri, Version};

use crate::filter::reject::Reject;

/// The host a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Without port and without the final dot, in lower case: what routes match.
    pub(crate) name: Rc<str>,
    /// As sent, with port, in lower case: what instances see.
    pub(crate) authority: HeaderValue,
}

/// The host of a connection's last request: the next one is nearly always for the same.
#[derive(Debug, Default)]
pub(crate) struct LastHost(RefCell<Option<(Box<str>, Host)>>);

impl LastHost {
    fn parse(&self, authority: &str) -> Option<Host> {
        let mut last = self.0.borrow_mut();
        match &*last {
            Some((of, host)) if **of == *authority => Some(host.clone()),
            _ => {
                let host = parse_host(authority)?;
                *last = Some((authority.into(), host.clone()));
                Some(host)
            }
        }
    }
}

/// The host of a request. `Host`, `:authority` and an absolute URI must agree where several are
/// given (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
pub(crate) fn host(
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
    last: &LastHost,
) -> Result<Host, Reject> {
    let mut fields = headers.get_all(HOST).iter();
    let (field, second) = (fields.next(), fields.next());
    if second.is_some() || (field.is_none() && version == Version::HTTP_11) {
        return Err(Reject::BadHost);
    }
    let field = field
        .map(|field| field.to_str())
        .transpose()
        .map_err(|_| Reject::BadHost)?;
    let authority = match (uri.authority().map(Authority::as_str), field) {
        (Some(authority), Some(field)) if !authority.eq_ignore_ascii_case(field) => {
            return Err(Reject::BadHost);
        }
        (Some(authority), _) => authority,
        (None, Some(field)) => field,
        (None, None) => return Err(Reject::BadHost),
    };
    last.parse(authority).ok_or(Reject::BadHost)
}

fn parse_host(authority: &str) -> Option<Host> {
    let (name, port) = split_port(authority)?;
    let port_plain = port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
    let name = name.strip_suffix('.').unwrap_or(name);
    let name_plain = match name.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')?
            .parse::<std::net::Ipv6Addr>()
            .is_ok(),
        // Letters, digits and `-._` are all that names in use are made of; `_` is not in host
        // names proper, but in those of containers.
        None => name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    if !(port_plain && name_plain && !name.is_empty() && name.len() <= 253) {
        return None;
    }
    let authority = Bytes::from(authority.to_ascii_lowercase());
    Some(Host {
        name: name.to_ascii_lowercase().into(),
        authority: HeaderValue::from_maybe_shared(authority).ok()?,
    })
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let name_end = match authority.strip_prefix('[') {
        Some(_) => authority.find(']')? + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, rest) = authority.split_at(name_end);
    if rest.is_empty() {
        Some((name, None))
    } else {
        Some((name, Some(rest.strip_prefix(':')?)))
    }
}

/// Brings the URI into origin form with a path in normal form.
pub(crate) fn settle_path(uri: &mut Uri, uri_bytes_max: usize) -> Result<(), Reject> {
    let path = uri.path();
    let query = uri.query();
    if path.len() + query.map_or(0, |query| query.len() + 1) > uri_bytes_max {
        return Err(Reject::UriTooLong);
    }
    let normal = normal_path(path)?;
    if normal.is_none() && uri.authority().is_none() {
        return Ok(());
    }
    let path = normal.as_deref().unwrap_or(path);
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let target = PathAndQuery::try_from(target).map_err(|_| Reject::BadPath)?;
    *uri = Uri::from(target);
    Ok(())
}

/// The normal form of a path, or `None` if it is in normal form already.
fn normal_path(path: &str) -> Result<Option<String>, Reject> {
    if !path.starts_with('/') || path.contains('\\') {
        return Err(Reject::BadPath);
    }
    let decoded = if path.contains('%') {
        Some(normal_escapes(path)?)
    } else {
        None
    };
    let segments = decoded.as_deref().unwrap_or(path);
    // Only the last segment may be empty: `/` and `/a/` are ordinary paths.
    let mut rest = segments[1..].split('/').peekable();
    while let Some(segment) = rest.next() {
        let empty_inside = segment.is_empty() && rest.peek().is_some();
        if empty_inside || segment == "." || segment == ".." {
            return Err(Reject::BadPath);
        }
    }
    Ok(decoded.filter(|decoded| decoded != path))
}

fn normal_escapes(path: &str) -> Result<String, Reject> {
    let mut normal = String::with_capacity(path.len());
    let mut pieces = path.split('%');
    normal.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let byte = piece.get(..2).and_then(parse_hex).ok_or(Reject::BadPath)?;
        match byte {
            b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(Reject::BadPath),
            b'-' | b'.' | b'_' | b'~' => normal.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => normal.push(char::from(byte)),
            _ => {
                normal.push('%');
                normal.push_str(&piece[..2].to_ascii_uppercase());
            }
        }
        normal.push_str(&piece[2..]);
    }
    Ok(normal)
}

fn parse_hex(digits: &str) -> Option<u8> {
    // `from_str_radix` would take a sign too.
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_normal_form() {
        let table = [
            ("/", Ok("/")),
            ("/a/b", Ok("/a/b")),
            ("/a/", Ok("/a/")),
            ("/%61dmin", Ok("/admin")),
            ("/%7euser", Ok("/~user")),
            ("/a%2db", Ok("/a-b")),
            ("/caf%c3%a9", Ok("/caf%C3%A9")),
            ("/a%20b", Ok("/a%20b")),
            ("/a%25b", Ok("/a%25b")),
            ("/a...b/...", Ok("/a...b/...")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/a?b=%2F../..", Ok("/a?b=%2F../..")),
            ("/a/../b", Err(Reject::BadPath)),
            ("/a/..", Err(Reject::BadPath)),
            ("/./a", Err(Reject::BadPath)),
            ("/%2e%2E/a", Err(Reject::BadPath)),
            ("/a%2e./b/.%2e", Err(Reject::BadPath)),
            ("//a", Err(Reject::BadPath)),
            ("/a//b", Err(Reject::BadPath)),
            ("/a%2Fb", Err(Reject::BadPath)),
            ("/a%2fb", Err(Reject::BadPath)),
            ("/a%5Cb", Err(Reject::BadPath)),
            ("/a%00", Err(Reject::BadPath)),
            ("/a%0d%0a", Err(Reject::BadPath)),
            ("/a%7f", Err(Reject::BadPath)),
            ("/a%", Err(Reject::BadPath)),
            ("/a%2", Err(Reject::BadPath)),
            ("/a%zz", Err(Reject::BadPath)),
            ("/a%+1", Err(Reject::BadPath)),
            ("*", Err(Reject::BadPath)),
        ];
        for (path, expected) in table {
            let mut uri: Uri = path.parse().unwrap();
            let settled = settle_path(&mut uri, 64).map(|()| uri.to_string());
            assert_eq!(settled, expected.map(str::to_owned), "{path}");
        }
        assert_eq!(normal_path("/a\\b"), Err(Reject::BadPath));
    }

    #[test]
    fn a_settled_path_stays_as_it_is() {
        for path in ["/%61%20b/%c3", "/a%25%32f"] {
            let once = normal_path(path).unwrap().unwrap();
            assert_eq!(normal_path(&once), Ok(None), "{path} became {once}");
        }
    }

    #[test]
    fn targets_end_at_their_limit() {
        for (bytes, fits) in [(64, true), (65, false)] {
            let mut uri: Uri = format!("/{}?b", "a".repeat(bytes - 3)).parse().unwrap();
            assert_eq!(settle_path(&mut uri, 64).is_ok(), fits, "{bytes} bytes");
        }
    }

    #[test]
    fn absolute_targets_become_origin_form() {
        for (uri, expected) in [("http://a.example/b?c", "/b?c"), ("http://a.example", "/")] {
            let mut uri: Uri = uri.parse().unwrap();
            settle_path(&mut uri, 64).unwrap();
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn hosts_agree_or_are_refused() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let table: [(&str, &[&str], Version, Option<&str>); 20] = [
            ("/", &["a.example"], one, Some("a.example")),
            ("/", &["A.Example:80"], one, Some("a.example")),
            ("/", &["a.example."], one, Some("a.example")),
            ("/", &["[::1]:80"], one, Some("[::1]")),
            ("/", &["127.0.0.1"], one, Some("127.0.0.1")),
            ("http://a.example/", &["A.example"], one, Some("a.example")),
            ("https://a.example/", &[], two, Some("a.example")),
            ("/", &["a.example"], two, Some("a.example")),
            ("/", &["a.example"], Version::HTTP_10, Some("a.example")),
            (
                "http://a.example/",
                &[],
                Version::HTTP_10,
                Some("a.example"),
            ),
            ("/", &[], one, None),
            ("/", &[], Version::HTTP_10, None),
            ("/", &["a.example", "a.example"], one, None),
            ("http://a.example/", &["b.example"], one, None),
            ("https://a.example/", &["b.example"], two, None),
            ("/", &["a.example:http"], one, None),
            ("/", &["a.example:99999"], one, None),
            ("/", &["user@a.example"], one, None),
            ("/", &["a.example/x"], one, None),
            ("/", &["[::1"], one, None),
        ];
        for (uri, fields, version, expected) in table {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(HOST, field.parse().unwrap());
            }
            let last = LastHost::default();
            let found = host(&uri.parse().unwrap(), &headers, version, &last);
            let name = found.as_ref().map(|host| &*host.name).ok();
            assert_eq!(name, expected, "{uri} {fields:?} {version:?}");
        }
    }
}
