//! The way to each backend, as the kernel's routing and neighbour tables have it.
//!
//! XDP sends frames past the network stack, so the agent has to know what the stack would have done:
//! which interface, which MAC addresses. [`start`] gives a [`Watch`] that answers for a set of
//! addresses and goes on answering: it listens to changes of links, addresses, routes and neighbours,
//! has missing neighbours resolved by the kernel, and keeps known ones from going stale.
//!
//! What comes in (`link`, `route`, `neigh`) ends up in a [`Snapshot`]; [`Snapshot::resolve`], a pure
//! function, says where an address is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;

use lb_ebpf::abi::Hop;
use thiserror::Error;

mod kick;
mod link;
mod neigh;
mod route;
mod watch;

pub use link::{Link, XdpAttachment};
pub use neigh::Neighbour;
pub use route::Route;
pub use watch::{Watch, start};

/// A MAC address.
pub type Mac = [u8; 6];

/// Why the kernel could not be asked.
#[derive(Debug, Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[from] io::Error),
    /// The kernel refused a request.
    #[error("netlink request failed: {0}")]
    Request(#[from] rtnetlink::Error),
}

/// What the kernel knows that matters to the addresses watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Interfaces by index.
    pub links: BTreeMap<u32, Link>,
    /// Answers of the routing table by destination; no entry means no route.
    pub routes: BTreeMap<IpAddr, Route>,
    /// Neighbours by interface and address.
    pub neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
}

/// The way to an address, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// For the data plane.
    pub hop: Hop,
    /// Name of the interface that packets leave through.
    pub interface: String,
    /// The neighbour they are handed to: the address itself, or a router.
    pub neighbour: IpAddr,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// The source address that this host would use.
    pub source: Option<IpAddr>,
}

/// Why the way to an address is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The routing table has no answer, or says that the address is unreachable.
    NoRoute,
    /// The address is this host's own.
    Local,
    /// The interface is gone or down.
    LinkDown {
        /// Its name, or its index when even that is gone.
        interface: String,
    },
    /// The interface has no MAC address: a tunnel, or the loopback.
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// The neighbour has not answered (yet).
    Neighbour {
        /// The interface it should be on.
        interface: String,
        /// Its index.
        ifindex: u32,
        /// The neighbour: the address itself, or a router.
        address: IpAddr,
    },
}

/// The way to an address.
pub type Resolution = Result<Known, Unknown>;

impl Snapshot {
    /// Where packets to `address` leave, and to whom.
    pub fn resolve(&self, address: IpAddr) -> Resolution {
        let route = self.routes.get(&address).ok_or(Unknown::NoRoute)?;
        if route.local {
            return Err(Unknown::Local);
        }
        let neighbour = route.gateway.unwrap_or(address);
        let Some(link) = self.links.get(&route.ifindex).filter(|link| link.up) else {
            let name = self.links.get(&route.ifindex).map(|link| link.name.clone());
            let interface = name.unwrap_or_else(|| format!("#{}", route.ifindex));
            return Err(Unknown::LinkDown { interface });
        };
        let interface = link.name.clone();
        let Some(source) = link.mac else {
            return Err(Unknown::NotEthernet { interface });
        };
        let entry = self.neighbours.get(&(route.ifindex, neighbour));
        let Some(destination) = entry.and_then(|entry| entry.mac) else {
            let ifindex = route.ifindex;
            return Err(Unknown::Neighbour {
                interface,
                ifindex,
                address: neighbour,
            });
        };
        Ok(Known {
            hop: Hop::new(destination.into(), source.into(), route.ifindex),
            interface,
            neighbour,
            mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            source: route.source,
        })
    }

    /// The ways to all of `addresses`.
    pub fn resolve_all(&self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Resolution> {
        addresses
            .iter()
            .map(|&address| (address, self.resolve(address)))
            .collect()
    }

    /// The neighbours that `addresses` are reached through, by interface.
    fn needed(&self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<(u32, IpAddr)> {
        let routes = addresses
            .iter()
            .filter_map(|address| Some((address, self.routes.get(address)?)));
        routes
            .filter(|(_, route)| !route.local)
            .filter(|(_, route)| {
                self.links
                    .get(&route.ifindex)
                    .is_some_and(|link| link.mac.is_some())
            })
            .map(|(&address, route)| (route.ifindex, route.gateway.unwrap_or(address)))
            .collect()
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => write!(f, "the routing table has no route to it"),
            Self::Local => write!(f, "it is an address of this host"),
            Self::LinkDown { interface } => write!(f, "interface {interface} is down"),
            Self::NotEthernet { interface } => {
                write!(f, "interface {interface} has no MAC address")
            }
            Self::Neighbour {
                interface, address, ..
            } => {
                write!(f, "neighbour {address} on {interface} does not answer")
            }
        }
    }
}

/// `aa:bb:cc:dd:ee:ff`
pub fn display_mac(mac: lb_ebpf::address::Mac) -> String {
    mac.to_bytes().map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;
