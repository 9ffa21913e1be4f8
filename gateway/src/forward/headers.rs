//! Fields that end at this hop, and those this hop adds (RFC 9110 section 7.6).

use http::header::{
    CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Uri, Version};

use super::forwarded::Hop;
use super::upgrade::Asked;
use crate::config::UpstreamProtocol;
use crate::filter::reject::Reject;
use crate::normalise::target::Host;
use crate::serve::Client;
use crate::upstream::cluster::Cluster;

/// Fields that concern one connection only, whether `Connection` lists them or not.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Fields that `Connection` may not remove: the request would mean something else without them,
/// or reach the instance with less than we checked.
const KEPT: [&str; 11] = [
    "authorization",
    "cookie",
    "host",
    "content-length",
    "content-type",
    "forwarded",
    "traceparent",
    "tracestate",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-request-id",
];

/// Makes a client's request head the one an instance gets. The host may be given another name for
/// the instance.
pub(super) fn prepare_request(
    head: &mut Parts,
    client: &Client,
    (host, rewritten): (&Host, Option<&HeaderValue>),
    cluster: &Cluster,
    upgrade: Option<&Asked>,
) -> Result<(), Reject> {
    let trailers = head.headers.keys().any(|name| *name == TE) && accepts_trailers(&head.headers);
    let received = head.version;
    strip(&mut head.headers);
    if trailers {
        head.headers
            .insert(TE, HeaderValue::from_static("trailers"));
    }
    client.hop.add_via(&mut head.headers, received);
    client.hop.stamp(&mut head.headers, &host.authority);
    match (cluster.protocol(), upgrade) {
        (UpstreamProtocol::Http1, upgrade) => {
            let authority = rewritten.unwrap_or(&host.authority);
            head.headers.insert(HOST, authority.clone());
            head.version = Version::HTTP_11;
            if let Some(upgrade) = upgrade {
                upgrade.write(&mut head.headers);
            }
        }
        (UpstreamProtocol::Http2, None) => {
            let authority = rewritten.unwrap_or(&host.authority);
            let authority = authority.to_str().map_err(|_| Reject::BadHost)?;
            head.uri = absolute(&head.uri, cluster.scheme(), authority)?;
            head.version = Version::HTTP_2;
        }
        (UpstreamProtocol::Http2, Some(_)) => return Err(Reject::UpgradeRefused),
    }
    Ok(())
}

/// Makes a head that is ready to be sent ready for another protocol; nothing if that is not
/// possible.
pub(super) fn translate(head: &mut Parts, cluster: &Cluster) -> Option<()> {
    match (cluster.protocol(), head.version) {
        (UpstreamProtocol::Http1, Version::HTTP_2) => {
            let authority = HeaderValue::try_from(head.uri.authority()?.as_str()).ok()?;
            head.headers.insert(HOST, authority);
            head.uri = head.uri.path_and_query()?.clone().into();
            head.version = Version::HTTP_11;
        }
        (UpstreamProtocol::Http2, Version::HTTP_11) => {
            let authority = head.headers.remove(HOST)?;
            head.uri = absolute(&head.uri, cluster.scheme(), authority.to_str().ok()?).ok()?;
            head.version = Version::HTTP_2;
        }
        (UpstreamProtocol::Http2, _) if head.uri.scheme() != Some(&cluster.scheme()) => {
            let authority = head.uri.authority()?.clone();
            head.uri = absolute(&head.uri, cluster.scheme(), authority.as_str()).ok()?;
        }
        _ => {}
    }
    Some(())
}

/// Makes an instance's response head the one the client gets.
pub(super) fn prepare_response(headers: &mut HeaderMap, hop: &Hop) {
    strip(headers);
    hop.add_via(headers, Version::HTTP_11);
}

fn absolute(uri: &Uri, scheme: Scheme, authority: &str) -> Result<Uri, Reject> {
    let path = uri
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| Reject::BadHost)
}

/// Removes what ends here: the known fields, and those `Connection` lists.
pub(super) fn strip(headers: &mut HeaderMap) {
    let present = present(headers, &HOP_BY_HOP);
    if present == 0 {
        return;
    }
    let lists: Vec<HeaderValue> = headers
        .get_all(CONNECTION)
        .iter()
        .filter(|list| !names_no_field(list))
        .cloned()
        .collect();
    for name in lists
        .iter()
        .filter_map(|list| list.to_str().ok())
        .flat_map(|l| l.split(','))
    {
        let name = name.trim().to_ascii_lowercase();
        if !KEPT.contains(&name.as_str()) {
            headers.remove(name.as_str());
        }
    }
    remove(headers, &HOP_BY_HOP, present);
}

/// Whether a `Connection` field is one of the usual two, which list no other field.
fn names_no_field(list: &HeaderValue) -> bool {
    let list = list.as_bytes();
    list.eq_ignore_ascii_case(b"keep-alive") || list.eq_ignore_ascii_case(b"close")
}

/// Removes those of `names` that are there.
pub(super) fn remove_all(headers: &mut HeaderMap, names: &[HeaderName]) {
    let present = present(headers, names);
    remove(headers, names, present);
}

fn remove(headers: &mut HeaderMap, names: &[HeaderName], present: u32) {
    for (index, name) in names.iter().enumerate() {
        if present & 1 << index != 0 {
            headers.remove(name);
        }
    }
}

/// Which of `names`, 32 at most, are there, as bits. One look over the fields is cheaper than to
/// ask for each name, and most messages have none.
fn present(headers: &HeaderMap, names: &[HeaderName]) -> u32 {
    let bit = |present: &HeaderName| names.iter().position(|name| name == present);
    let bits = headers.keys().filter_map(bit);
    bits.fold(0, |bits, index| bits | 1 << index)
}

/// `TE: trailers` is the one transfer preference that is passed on (RFC 9110 section 10.1.4).
fn accepts_trailers(headers: &HeaderMap) -> bool {
    let values = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let coding = coding.split(';').next().unwrap_or_default();
        coding.trim().eq_ignore_ascii_case("trailers")
    })
}

/// Appends this hop, with the version the message was received in (RFC 9110 section 7.6.3).
pub(super) fn add_via(headers: &mut HeaderMap, received: Version) {
    headers.append(
        VIA,
        HeaderValue::from_static(match received {
            Version::HTTP_10 => "1.0 weir",
            Version::HTTP_2 => "2 weir",
            _ => "1.1 weir",
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn stripped(fields: Fields<'_>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        strip(&mut headers);
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let table: [(&str, Fields<'_>, &[&str]); 6] = [
            (
                "ordinary fields stay",
                &[("accept", "*/*"), ("x-a", "1")],
                &["accept", "x-a"],
            ),
            (
                "the known ones go",
                &[
                    ("connection", "close"),
                    ("keep-alive", "timeout=5"),
                    ("proxy-connection", "keep-alive"),
                    ("proxy-authorization", "Basic x"),
                    ("te", "gzip"),
                    ("transfer-encoding", "chunked"),
                    ("upgrade", "h2c"),
                ],
                &[],
            ),
            (
                "the listed ones go",
                &[
                    ("connection", "X-A, x-b"),
                    ("x-a", "1"),
                    ("x-b", "2"),
                    ("x-c", "3"),
                ],
                &["x-c"],
            ),
            (
                "over several lines",
                &[
                    ("connection", "x-a"),
                    ("connection", "x-b"),
                    ("x-a", "1"),
                    ("x-b", "2"),
                ],
                &[],
            ),
            (
                "end-to-end fields cannot be listed away",
                &[
                    ("connection", "Authorization, cookie"),
                    ("authorization", "x"),
                    ("cookie", "y"),
                ],
                &["authorization", "cookie"],
            ),
            (
                "Trailer is end-to-end",
                &[("trailer", "x-sum")],
                &["trailer"],
            ),
        ];
        for (what, fields, expected) in table {
            assert_eq!(stripped(fields), expected, "{what}");
        }
    }

    #[test]
    fn te_keeps_trailers_only() {
        let table = [
            ("trailers", true),
            ("gzip, Trailers;q=0.5", true),
            ("gzip", false),
        ];
        for (value, expected) in table {
            let headers = HeaderMap::from_iter([(TE, value.parse().unwrap())]);
            assert_eq!(accepts_trailers(&headers), expected, "{value}");
        }
    }

    #[test]
    fn via_tells_the_received_version() {
        let mut headers = HeaderMap::new();
        add_via(&mut headers, Version::HTTP_2);
        add_via(&mut headers, Version::HTTP_10);
        let values: Vec<_> = headers.get_all(VIA).iter().collect();
        assert_eq!(values, ["2 weir", "1.0 weir"]);
    }
}
