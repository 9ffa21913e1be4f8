//! Who the client is, through proxies we trust and to instances that trust us: `X-Forwarded-For`,
//! `-Proto`, `-Host` and `Forwarded` (RFC 7239).
//!
//! What an untrusted peer claims is replaced, never passed on: an instance that believes these
//! fields must only ever read what a trusted hop wrote.

use std::cell::RefCell;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{Entry, FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue, Version};
use ipnet::IpNet;

use super::headers;
use crate::config::{AddedHeader, AddedHeaders};
use crate::serve::Transport;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// All that tell of hops before this one.
const FIELDS: [HeaderName; 7] = [FOR, PROTO, HOST, PORT, REAL_IP, FORWARDED, CLIENT_CERT];
/// Hops looked through at most, from the nearest on.
const HOPS_MAX: usize = 32;

/// Whether the fields a peer sent are believed.
pub(crate) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&peer))
}

/// The client's address: the nearest hop that is not a trusted proxy.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let mut nearest = peer;
    let mut hops = hops(headers).into_iter().take(HOPS_MAX);
    while is_trusted(nearest, trusted) {
        match hops.next() {
            Some(Some(hop)) => nearest = hop,
            // The chain ends, or cannot be read further: the last known hop is the best answer.
            Some(None) | None => break,
        }
    }
    nearest
}

/// The addresses in the fields, the nearest hop first; `None` where one cannot be read.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let list = |name| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
    };
    let mut hops: Vec<Option<IpAddr>> = if headers.contains_key(FOR) {
        list(FOR)
            .flat_map(|value| value.split(','))
            .map(parse_node)
            .collect()
    } else {
        list(FORWARDED)
            .flat_map(|value| value.split(','))
            .map(forwarded_for)
            .collect()
    };
    hops.reverse();
    hops
}

/// The `for` parameter of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut parameters = element
        .split(';')
        .filter_map(|parameter| parameter.split_once('='));
    let (_, node) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    parse_node(node.trim().trim_matches('"'))
}

/// An address, with or without port and brackets.
fn parse_node(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let address = match node.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        // One colon: a port follows. Several: a bare IPv6 address.
        None if node.matches(':').count() == 1 => node.split(':').next()?,
        None => node,
    };
    address
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

/// What this hop says of a connection, made once: requests on it differ in their host at most.
#[derive(Debug)]
pub(crate) struct Hop {
    peer: IpAddr,
    scheme: &'static str,
    /// Whether the fields the peer sent are believed.
    trusted: bool,
    added: AddedHeaders,
    address: HeaderValue,
    /// What is told of the client's certificate. Boxed: few have one.
    certificate: Option<Box<HeaderValue>>,
    /// The element of `Forwarded` for the authority of the last request.
    element: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Hop {
    /// What is said of a connection over `transport`.
    pub(crate) fn new(
        transport: Transport,
        trusted: &[IpNet],
        added: AddedHeaders,
        certificate: Option<HeaderValue>,
    ) -> Self {
        let is_told = added.contain(AddedHeader::XForwardedClientCert);
        let peer = transport.peer.ip();
        Self {
            peer,
            scheme: transport.scheme(),
            trusted: is_trusted(peer, trusted),
            added,
            address: value(text(peer)),
            certificate: certificate.filter(|_| is_told).map(Box::new),
            element: RefCell::default(),
        }
    }

    /// Whether the fields the peer sent are believed.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The scheme the client uses: what a trusted proxy says, or else how it reached us.
    pub(crate) fn scheme(&self, headers: &HeaderMap) -> &'static str {
        let told = headers.get(PROTO).filter(|_| self.trusted);
        match told.map(HeaderValue::as_bytes) {
            Some(b"https") => "https",
            Some(b"http") => "http",
            _ => self.scheme,
        }
    }

    /// Adds this hop to the fields; whatever was in them stays only if the peer is trusted.
    pub(super) fn stamp(&self, headers: &mut HeaderMap, authority: &HeaderValue) {
        if !self.trusted {
            headers::remove_all(headers, &FIELDS);
        }
        if self.added.contain(AddedHeader::XForwardedFor) {
            append(headers, FOR, &self.address);
        }
        if self.added.contain(AddedHeader::Forwarded) {
            append(headers, FORWARDED, &self.element(authority));
        }
        if let Some(certificate) = &self.certificate {
            append(headers, CLIENT_CERT, certificate);
        }
        if self.added.contain(AddedHeader::XForwardedProto) {
            let scheme = HeaderValue::from_static(self.scheme);
            headers.entry(PROTO).or_insert(scheme);
        }
        if self.added.contain(AddedHeader::XForwardedHost) {
            headers.entry(HOST).or_insert_with(|| authority.clone());
        }
    }

    /// Adds this hop to `Via`, with the version the message was received in.
    pub(super) fn add_via(&self, headers: &mut HeaderMap, received: Version) {
        if self.added.contain(AddedHeader::Via) {
            headers::add_via(headers, received);
        }
    }

    fn element(&self, authority: &HeaderValue) -> HeaderValue {
        let mut last = self.element.borrow_mut();
        match &*last {
            Some((of, element)) if of == authority => element.clone(),
            _ => {
                let text = authority.to_str().unwrap_or_default();
                let element = value(element((self.peer, &self.address), self.scheme, text));
                *last = Some((authority.clone(), element.clone()));
                element
            }
        }
    }
}

fn value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .expect("an address, a scheme and a checked authority are plain text")
}

/// An address as text. Every connection has one, and the standard library's way takes twenty times
/// as long.
fn text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else {
        return address.to_string();
    };
    let mut text = String::with_capacity(15);
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

fn element((peer, address): (IpAddr, &HeaderValue), scheme: &str, authority: &str) -> String {
    let address = address.to_str().unwrap_or_default();
    // Brackets and colons need quotes (RFC 7239 section 6).
    let (open, close) = match peer {
        IpAddr::V4(_) => ("", ""),
        IpAddr::V6(_) => ("\"[", "]\""),
    };
    let quote = match authority.contains([':', '[']) {
        true => "\"",
        false => "",
    };
    [
        "for=", open, address, close, ";host=", quote, authority, quote, ";proto=", scheme,
    ]
    .concat()
}

/// Appends to a list field, on one line: not every reader joins several.
fn append(headers: &mut HeaderMap, name: HeaderName, entry: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(place) => {
            place.insert(entry.clone());
        }
        Entry::Occupied(mut list) => {
            let earlier = list.iter().filter_map(|value| value.to_str().ok());
            let ours = entry.to_str().unwrap_or_default();
            let joined: Vec<&str> = earlier.chain([ours]).collect();
            if let Ok(joined) = HeaderValue::try_from(joined.join(", ")) {
                list.insert(joined);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn certificate() -> HeaderValue {
        HeaderValue::from_static("Hash=1")
    }

    type Fields<'a> = &'a [(&'a HeaderName, &'a str)];

    fn headers(fields: Fields<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_client_is_the_nearest_untrusted_hop() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let table: [(&str, &str, Fields<'_>, &str); 12] = [
            ("no field", "192.0.2.1", &[], "192.0.2.1"),
            (
                "untrusted peer lies",
                "192.0.2.1",
                &[(&FOR, "198.51.100.1")],
                "192.0.2.1",
            ),
            (
                "trusted peer",
                "10.0.0.1",
                &[(&FOR, "198.51.100.1")],
                "198.51.100.1",
            ),
            (
                "client lies to the trusted peer",
                "10.0.0.1",
                &[(&FOR, "1.1.1.1, 198.51.100.1")],
                "198.51.100.1",
            ),
            (
                "two trusted hops",
                "10.0.0.1",
                &[(&FOR, "198.51.100.1, 10.9.9.9")],
                "198.51.100.1",
            ),
            (
                "over two lines",
                "10.0.0.1",
                &[(&FOR, "198.51.100.1"), (&FOR, "10.9.9.9")],
                "198.51.100.1",
            ),
            (
                "all trusted",
                "10.0.0.1",
                &[(&FOR, "10.0.0.3, 10.0.0.2")],
                "10.0.0.3",
            ),
            (
                "unreadable",
                "10.0.0.1",
                &[(&FOR, "198.51.100.1, unknown")],
                "10.0.0.1",
            ),
            (
                "with port",
                "10.0.0.1",
                &[(&FOR, "198.51.100.1:5000")],
                "198.51.100.1",
            ),
            ("IPv6", "fd00::1", &[(&FOR, "2001:db8::1")], "2001:db8::1"),
            (
                "Forwarded",
                "10.0.0.1",
                &[(&FORWARDED, "For=\"[2001:db8::1]:80\";proto=http")],
                "2001:db8::1",
            ),
            (
                "mapped IPv4",
                "10.0.0.1",
                &[(&FOR, "::ffff:198.51.100.1")],
                "198.51.100.1",
            ),
        ];
        for (what, peer, fields, expected) in table {
            let found = client(peer.parse().unwrap(), &headers(fields), &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{what}");
        }
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        let table = ["0.0.0.0", "192.0.2.10", "255.255.255.255", "2001:db8::1"];
        for address in table {
            assert_eq!(text(address.parse().unwrap()), address);
        }
    }

    #[test]
    fn only_fields_that_are_wanted_are_added() {
        use AddedHeader::{
            Forwarded, Via, XForwardedClientCert, XForwardedFor, XForwardedHost, XForwardedProto,
        };
        let table: [(&[AddedHeader], &[&str]); 7] = [
            (&[XForwardedClientCert], &["x-forwarded-client-cert"]),
            (&[], &[]),
            (&[XForwardedFor], &["x-forwarded-for"]),
            (&[XForwardedProto], &["x-forwarded-proto"]),
            (&[XForwardedHost], &["x-forwarded-host"]),
            (&[Forwarded, Via], &["forwarded", "via"]),
            (&[Via, XForwardedFor], &["x-forwarded-for", "via"]),
        ];
        let peer: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let authority = HeaderValue::from_static("a.example");
        for (added, expected) in table {
            let added = added.iter().copied().collect();
            let hop = Hop::new(Transport::plain(peer), &[], added, Some(certificate()));
            // A client's own claims go even where nothing takes their place.
            let mut headers = headers(&[
                (&FOR, "198.51.100.1"),
                (&FORWARDED, "for=x"),
                (&CLIENT_CERT, "Hash=2"),
            ]);
            hop.stamp(&mut headers, &authority);
            hop.add_via(&mut headers, Version::HTTP_11);
            let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn only_trusted_fields_are_kept() {
        let sent = || {
            headers(&[
                (&FOR, "198.51.100.1"),
                (&PROTO, "https"),
                (&HOST, "shop.example"),
                (&REAL_IP, "198.51.100.1"),
                (&FORWARDED, "for=198.51.100.1"),
                (&CLIENT_CERT, "Hash=2"),
            ])
        };
        let stamped = |trusted: bool, shown: Option<HeaderValue>| {
            let mut headers = sent();
            let peer: SocketAddr = "[2001:db8::7]:1234".parse().unwrap();
            let trusted: &[IpNet] = if trusted {
                &["2001:db8::/32".parse().unwrap()]
            } else {
                &[]
            };
            let authority = HeaderValue::from_static("a.example:8080");
            let added = AddedHeader::ALL.into_iter().collect();
            let hop = Hop::new(Transport::plain(peer), trusted, added, shown);
            hop.stamp(&mut headers, &authority);
            [&FOR, &PROTO, &HOST, &REAL_IP, &FORWARDED, &CLIENT_CERT].map(|name| {
                headers
                    .get(name)
                    .map_or("", |value| value.to_str().unwrap())
                    .to_owned()
            })
        };
        let ours = r#"for="[2001:db8::7]";host="a.example:8080";proto=http"#;
        assert_eq!(
            stamped(false, None),
            ["2001:db8::7", "http", "a.example:8080", "", ours, ""]
        );
        assert_eq!(stamped(false, Some(certificate()))[5], "Hash=1");
        assert_eq!(stamped(true, Some(certificate()))[5], "Hash=2, Hash=1");
        assert_eq!(
            stamped(true, None),
            [
                "198.51.100.1, 2001:db8::7",
                "https",
                "shop.example",
                "198.51.100.1",
                &format!("for=198.51.100.1, {ours}"),
                "Hash=2",
            ]
        );
    }
}
