//! Which host a request is for, in one normal form; [`path`] settles the path.

pub(crate) mod path;

use std::cell::RefCell;
use std::net::Ipv6Addr;
use std::rc::Rc;

use bytes::Bytes;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri, Version};

use crate::filter::reject::Reject;

/// The longest name DNS has.
const NAME_BYTES_MAX: usize = 253;

/// The host a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Without port and without the final dot, in lower case: what routes match.
    pub(crate) name: Rc<str>,
    /// The same with the port that was sent: what instances see.
    pub(crate) authority: HeaderValue,
}

/// Authorities whose reading a worker remembers.
const KNOWN_HOSTS_MAX: usize = 64;

/// How the authorities of a worker's last requests were read: most requests are for few hosts.
///
/// Each authority has one place, which the next with the same place takes over. Clients that choose
/// such authorities gain nothing but what reading them costs.
#[derive(Debug)]
pub(crate) struct KnownHosts([RefCell<Option<Known>>; KNOWN_HOSTS_MAX]);

/// An authority as it was sent, and how it was read.
type Known = (Box<str>, Host);

impl Default for KnownHosts {
    fn default() -> Self {
        Self([const { RefCell::new(None) }; KNOWN_HOSTS_MAX])
    }
}

impl KnownHosts {
    fn parse(&self, authority: &str) -> Result<Host, Reject> {
        let mut known = self.0[place(authority)].borrow_mut();
        match &*known {
            Some((of, host)) if **of == *authority => Ok(host.clone()),
            _ => {
                if authority.contains('@') {
                    return Err(Reject::HostUserinfo);
                }
                let host = parse_host(authority).ok_or(Reject::BadHost)?;
                *known = Some((authority.into(), host.clone()));
                Ok(host)
            }
        }
    }
}

fn place(authority: &str) -> usize {
    let mix = |sum: usize, byte: u8| sum.wrapping_mul(31).wrapping_add(byte.into());
    authority.bytes().fold(0, mix) % KNOWN_HOSTS_MAX
}

impl Host {
    /// The port, if the client named one.
    pub(crate) fn port(&self) -> Option<u16> {
        split_port(self.authority.to_str().ok()?)?.1?.parse().ok()
    }
}

/// The host of a request. `Host`, `:authority` and an absolute URI must agree where several are
/// given (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
pub(crate) fn host(
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
    known: &KnownHosts,
) -> Result<Host, Reject> {
    let mut fields = headers.get_all(HOST).iter();
    let (field, second) = (fields.next(), fields.next());
    if second.is_some() {
        return Err(Reject::HostRepeated);
    }
    if field.is_none() && version == Version::HTTP_11 {
        return Err(Reject::HostMissing);
    }
    let field = field
        .map(|field| field.to_str())
        .transpose()
        .map_err(|_| Reject::BadHost)?;
    let authority = match (uri.authority().map(Authority::as_str), field) {
        (Some(authority), Some(field)) if !authority.eq_ignore_ascii_case(field) => {
            return Err(Reject::HostMismatch);
        }
        (Some(authority), _) => authority,
        (None, Some(field)) => field,
        (None, None) => return Err(Reject::HostMissing),
    };
    known.parse(authority)
}

fn parse_host(authority: &str) -> Option<Host> {
    let (name, port) = split_port(authority)?;
    let name = match name.strip_prefix('[') {
        Some(rest) => {
            let address: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
            format!("[{address}]")
        }
        None => {
            let name = name.strip_suffix('.').unwrap_or(name);
            is_name(name).then(|| name.to_ascii_lowercase())?
        }
    };
    let authority = match port {
        None => name.clone(),
        Some(port) => {
            let number: u16 = port.parse().ok()?;
            // No sign, no leading zero: one number has one spelling.
            let plain = !port.starts_with(['+', '0']);
            plain.then(|| format!("{name}:{number}"))?
        }
    };
    Some(Host {
        name: name.into(),
        authority: HeaderValue::from_maybe_shared(Bytes::from(authority)).ok()?,
    })
}

/// Labels of letters, digits, `-` and `_`, which is not in host names proper, but in those of
/// containers.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let mut before = b'.';
    let labels = name.bytes().all(|byte| {
        let fits = plain(byte) || (byte == b'.' && before != b'.');
        before = byte;
        fits
    });
    labels && before != b'.' && name.len() <= NAME_BYTES_MAX
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with_host(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HOST, value.parse().unwrap())])
    }

    fn found(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Host, Reject> {
        host(uri, headers, version, &KnownHosts::default())
    }

    #[test]
    fn a_known_host_is_not_the_next_one() {
        let known = KnownHosts::default();
        let uri = Uri::from_static("/");
        for name in ["a", "a", "b", "a"] {
            let host = host(&uri, &with_host(name), Version::HTTP_11, &known);
            assert_eq!(&*host.unwrap().name, name);
        }
        let bad = host(&uri, &with_host("a@b"), Version::HTTP_11, &known);
        assert_eq!(bad, Err(Reject::HostUserinfo));
    }

    #[test]
    fn hosts_have_one_normal_form() {
        let longest = format!("{}.a", "a".repeat(251));
        let too_long = format!("{}.a", "a".repeat(252));
        let table = [
            ("a.example", Some(("a.example", "a.example"))),
            ("A.Example:8443", Some(("a.example", "a.example:8443"))),
            ("a.example.", Some(("a.example", "a.example"))),
            ("a.example.:80", Some(("a.example", "a.example:80"))),
            ("a_b", Some(("a_b", "a_b"))),
            ("127.0.0.1:80", Some(("127.0.0.1", "127.0.0.1:80"))),
            (
                "[2001:DB8::1]:80",
                Some(("[2001:db8::1]", "[2001:db8::1]:80")),
            ),
            ("[0:0::1]", Some(("[::1]", "[::1]"))),
            (longest.as_str(), Some((longest.as_str(), longest.as_str()))),
            (too_long.as_str(), None),
            ("", None),
            (".", None),
            (".a", None),
            ("a..b", None),
            ("a..", None),
            (":80", None),
            ("a:", None),
            ("a:0", None),
            ("a:080", None),
            ("a:+1", None),
            ("a:65536", None),
            ("a:80:80", None),
            ("[::1", None),
            ("[::1]80", None),
            ("[a]", None),
            ("[fe80::1%25eth0]", None),
            ("a b", None),
            ("a/b", None),
            ("a%2Eb", None),
            ("a,b", None),
        ];
        for (value, expected) in table {
            let uri = Uri::from_static("/");
            let host = found(&uri, &with_host(value), Version::HTTP_11).ok();
            let host = host
                .as_ref()
                .map(|host| (&*host.name, host.authority.to_str().unwrap()));
            assert_eq!(host, expected, "{value}");
        }
    }

    #[test]
    fn several_hosts_must_agree() {
        let absolute = Uri::from_static("http://a.example:80/x");
        let host = found(&absolute, &with_host("A.example:80"), Version::HTTP_11);
        assert_eq!(&*host.unwrap().name, "a.example");
        let two = HeaderMap::from_iter([(HOST, "a".parse().unwrap())]);
        let mut repeated = two.clone();
        repeated.append(HOST, "a".parse().unwrap());
        let plain = Uri::from_static("/");
        let user = Uri::from_static("http://a@b/");
        let none = HeaderMap::new();
        let table = [
            (
                "two",
                &plain,
                &repeated,
                Version::HTTP_11,
                Reject::HostRepeated,
            ),
            (
                "other",
                &absolute,
                &two,
                Version::HTTP_11,
                Reject::HostMismatch,
            ),
            // The field is due even beside an absolute URI (RFC 9112 section 3.2).
            (
                "only in the URI",
                &absolute,
                &none,
                Version::HTTP_11,
                Reject::HostMissing,
            ),
            (
                "nowhere, HTTP/2",
                &plain,
                &none,
                Version::HTTP_2,
                Reject::HostMissing,
            ),
            (
                "nowhere, HTTP/1.0",
                &plain,
                &none,
                Version::HTTP_10,
                Reject::HostMissing,
            ),
            ("user", &user, &none, Version::HTTP_2, Reject::HostUserinfo),
        ];
        for (what, uri, headers, version, reject) in table {
            assert_eq!(found(uri, headers, version), Err(reject), "{what}");
        }
        let host = found(&absolute, &none, Version::HTTP_2);
        assert_eq!(host.unwrap().authority, "a.example:80");
    }
}
