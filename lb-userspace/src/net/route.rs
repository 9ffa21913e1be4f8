//! Routes: what the kernel answers when asked for the way to one address (`ip route get`).
//!
//! Asking beats reading the tables: policy rules, metrics and multipath are the kernel's business.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use rtnetlink::Handle;
use tracing::debug;

/// The way to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Interface that packets leave through.
    pub ifindex: u32,
    /// Router they are handed to; `None` when the address is on the link.
    pub gateway: Option<IpAddr>,
    /// Source address that this host would use.
    pub source: Option<IpAddr>,
    /// Path MTU of the route, in bytes, where it differs from the interface's.
    pub mtu: Option<u32>,
    /// The address is this host's own.
    pub local: bool,
}

/// The routes to all of `addresses`; those without one are left out.
pub(super) async fn list(handle: &Handle, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Route> {
    let mut routes = BTreeMap::new();
    for &address in addresses {
        // An error is the kernel's way of saying that there is no route.
        match handle
            .route()
            .get(question(address))
            .execute()
            .try_next()
            .await
        {
            Ok(answer) => {
                routes.extend(answer.and_then(|m| parse(&m)).map(|route| (address, route)))
            }
            Err(error) => debug!(%address, %error, "no route"),
        }
    }
    routes
}

fn question(address: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, prefix_len) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = prefix_len;
    message
        .attributes
        .push(RouteAttribute::Destination(address.into()));
    message
}

/// Reads an answer; `None` when it says that the address cannot be reached.
fn parse(message: &RouteMessage) -> Option<Route> {
    let local = match message.header.kind {
        RouteType::Unicast => false,
        RouteType::Local => true,
        _ => return None,
    };
    let mut route = Route {
        ifindex: 0,
        gateway: None,
        source: None,
        mtu: None,
        local,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => route.gateway = Some((*address).into()),
            // An IPv4 route through an IPv6 router (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet6(address)) => {
                route.gateway = Some((*address).into())
            }
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (route.ifindex > 0).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    #[test]
    fn answers_are_read() {
        let router = RouteAddress::Inet([10, 0, 0, 1].into());
        let source = RouteAddress::Inet([10, 0, 0, 9].into());
        let message = answer(
            RouteType::Unicast,
            vec![
                RouteAttribute::Oif(3),
                RouteAttribute::Gateway(router),
                RouteAttribute::PrefSource(source),
                RouteAttribute::Metrics(vec![RouteMetric::Lock(4), RouteMetric::Mtu(1400)]),
            ],
        );
        let expected = Route {
            ifindex: 3,
            gateway: Some([10, 0, 0, 1].into()),
            source: Some([10, 0, 0, 9].into()),
            mtu: Some(1400),
            local: false,
        };
        assert_eq!(parse(&message), Some(expected));
    }

    #[test]
    fn routes_that_lead_nowhere_are_none() {
        for kind in [
            RouteType::Unreachable,
            RouteType::BlackHole,
            RouteType::Prohibit,
        ] {
            assert_eq!(
                parse(&answer(kind, vec![RouteAttribute::Oif(3)])),
                None,
                "{kind:?}"
            );
        }
        assert_eq!(
            parse(&answer(RouteType::Unicast, Vec::new())),
            None,
            "no interface"
        );
        assert!(
            parse(&answer(RouteType::Local, vec![RouteAttribute::Oif(1)]))
                .unwrap()
                .local
        );
    }
}
