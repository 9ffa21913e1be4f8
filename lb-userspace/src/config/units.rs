//! Values that are text in the file: addresses, durations, ranges, names.
//!
//! Each takes text and returns what it means, or what is wrong with it and what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::error::Mistake;
use super::{Protocol, VipAddress};

/// Bytes in the name of a VIP or backend, at most: names are part of URLs, metrics and tables.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// Bytes in the name of an interface, at most (`IFNAMSIZ` less the closing zero).
const INTERFACE_BYTES_MAX: usize = 15;

/// `203.0.113.10:443/tcp`, `[2001:db8::1]:0/udp`
pub(super) fn vip_address(text: &str) -> Result<VipAddress, Mistake> {
    let Some((endpoint, protocol)) = text.rsplit_once('/') else {
        return Err(Mistake::new(
            format!("`{text}` names no protocol"),
            format!("add it at the end: `{text}/tcp` or `{text}/udp`"),
        ));
    };
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => {
            return Err(Mistake::new(
                format!("unknown protocol `{other}`"),
                "a VIP takes `tcp` or `udp`",
            ));
        }
    };
    let endpoint: SocketAddr = endpoint
        .parse()
        .map_err(|_| match endpoint.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => Mistake::new(
                format!("`{text}` names no port"),
                format!("write `{address}:443/{protocol}`; port 0 stands for every port"),
            ),
            Ok(IpAddr::V6(address)) => Mistake::new(
                format!("`{text}` names no port"),
                format!("write `[{address}]:443/{protocol}`; port 0 stands for every port"),
            ),
            Err(_) => Mistake::new(
                format!("`{endpoint}` is not an address with a port"),
                "write `203.0.113.10:443/tcp` or `[2001:db8::1]:443/tcp`",
            ),
        })?;
    unicast(endpoint.ip())?;
    Ok(VipAddress {
        address: endpoint.ip(),
        port: endpoint.port(),
        protocol,
    })
}

impl FromStr for VipAddress {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        vip_address(text)
    }
}

/// `10.0.0.11`, `2001:db8::11`
pub(super) fn unicast_address(text: &str) -> Result<IpAddr, Mistake> {
    let address = text.parse::<IpAddr>().map_err(|_| {
        let hint = match text.parse::<SocketAddr>() {
            Ok(endpoint) => {
                format!(
                    "write `{}`: packets keep the port they were sent to",
                    endpoint.ip()
                )
            }
            Err(_) => {
                "write an address like `10.0.0.11` or `2001:db8::11`; names are not looked up"
                    .to_owned()
            }
        };
        Mistake::new(format!("`{text}` is not an IP address"), hint)
    })?;
    unicast(address)?;
    Ok(address)
}

/// Refuses addresses that no packet from outside is sent to, or that no host can be reached at.
pub(super) fn unicast(address: IpAddr) -> Result<(), Mistake> {
    let kind = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_loopback() => "a loopback address, which no other host can reach",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            return Err(Mistake::new(
                format!("{address} is an IPv4 address in IPv6 spelling"),
                format!("write `{}`", address.to_canonical()),
            ));
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            "a link-local address, which means nothing without an interface"
        }
        _ => return Ok(()),
    };
    Err(Mistake::new(
        format!("{address} is {kind}"),
        "use an address that belongs to one host on the network",
    ))
}

/// `127.0.0.1:9100`
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Mistake> {
    text.parse().map_err(|_| {
        Mistake::new(
            format!("`{text}` is not an address with a port"),
            "write `127.0.0.1:9100` or `[::1]:9100`",
        )
    })
}

/// `500ms`, `1s`, within `bounds`
pub(super) fn duration(
    what: &str,
    text: &str,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, Mistake> {
    let duration = humantime::parse_duration(text).map_err(|_| {
        Mistake::new(
            format!("`{text}` is not a duration"),
            "write a number with a unit, like `500ms`, `1s` or `2m`",
        )
    })?;
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let (low, high) = (*bounds.start(), *bounds.end());
    Err(Mistake::new(
        format!("{what} {text} is out of range"),
        format!(
            "use {} to {}",
            humantime::format_duration(low),
            humantime::format_duration(high)
        ),
    ))
}

/// `204`, `200-299`
pub(super) fn status_range(text: &str) -> Result<RangeInclusive<u16>, Mistake> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.trim().parse(), high.trim().parse()) {
        (Ok(low), Ok(high)) if (100..=599).contains(&low) && (low..=599).contains(&high) => {
            Ok(low..=high)
        }
        _ => Err(Mistake::new(
            format!("`{text}` is not a range of HTTP status codes"),
            "write one code like `204`, or a range like `200-299`",
        )),
    }
}

/// A number within `bounds`.
pub(super) fn number(what: &str, value: i64, bounds: RangeInclusive<i64>) -> Result<i64, Mistake> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (bounds.start(), bounds.end());
    Err(Mistake::new(
        format!("{what} {value} is out of range"),
        format!("use a number from {low} to {high}"),
    ))
}

/// The name of a VIP or backend.
pub(super) fn name(what: &str, text: &str) -> Result<(), Mistake> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if fits {
        return Ok(());
    }
    Err(Mistake::new(
        format!("`{text}` cannot be the name of a {what}"),
        format!(
            "use up to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, beginning with a letter \
             or digit"
        ),
    ))
}

/// The name of a network interface, as the kernel would accept it.
pub(super) fn interface(text: &str) -> Result<(), Mistake> {
    let fits = (1..=INTERFACE_BYTES_MAX).contains(&text.len())
        && !text
            .bytes()
            .any(|b| b.is_ascii_whitespace() || b == b'/' || b == b':')
        && text != "."
        && text != "..";
    if fits {
        return Ok(());
    }
    Err(Mistake::new(
        format!("`{text}` cannot be the name of an interface"),
        "`ip link` lists the interfaces of this host",
    ))
}
