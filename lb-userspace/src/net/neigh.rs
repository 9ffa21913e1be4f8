//! Neighbours: MAC addresses on the link, as ARP and neighbour discovery find them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::Handle;

use super::{Error, Mac};

/// One neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its MAC address, the last one known: a neighbour that has stopped answering keeps it, since
    /// there is no better guess, and health checks notice when it is really gone.
    pub mac: Option<Mac>,
    /// How sure the kernel is.
    pub state: State,
}

/// How sure the kernel is about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Confirmed lately, or set by hand.
    Valid,
    /// Known, but not confirmed lately. XDP traffic does not confirm it, so somebody has to ask.
    Stale,
    /// Being asked.
    Probing,
    /// Has not answered, or was never asked.
    Missing,
}

/// All neighbours, by interface and address.
pub(super) async fn list(handle: &Handle) -> Result<BTreeMap<(u32, IpAddr), Neighbour>, Error> {
    let messages: Vec<NeighbourMessage> = handle.neighbours().get().execute().try_collect().await?;
    Ok(messages.iter().filter_map(parse).collect())
}

/// Reads one neighbour from a netlink message; `None` when it is not about an IP address.
pub(super) fn parse(message: &NeighbourMessage) -> Option<((u32, IpAddr), Neighbour)> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::from(*ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::from(*ip));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(&bytes[..]).ok(),
            _ => {}
        }
    }
    let state = match message.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => {
            State::Valid
        }
        NeighbourState::Stale => State::Stale,
        NeighbourState::Delay | NeighbourState::Probe => State::Probing,
        _ => State::Missing,
    };
    // While a neighbour is missing the attribute, if there is one, holds no address to rely on.
    let mac = mac.filter(|_| state != State::Missing);
    Some(((message.header.ifindex, address?), Neighbour { mac, state }))
}

/// Has the kernel ask for a neighbour, as if a packet were to be sent there (`NTF_USE`): a missing
/// one is resolved, a stale one confirmed, any other left alone.
pub(super) async fn ask(handle: &Handle, ifindex: u32, address: IpAddr) -> Result<(), Error> {
    let request = handle.neighbours().add(ifindex, address);
    let request = request
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use);
    Ok(request.replace().execute().await?)
}

impl Neighbour {
    /// What is known after `self` was known and `news` came in.
    pub(super) fn followed_by(self, news: Self) -> Self {
        Self {
            mac: news.mac.or(self.mac),
            state: news.state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: NeighbourState, mac: Option<&[u8]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 3;
        message.header.state = state;
        let address = NeighbourAddress::Inet([10, 0, 0, 1].into());
        message
            .attributes
            .push(NeighbourAttribute::Destination(address));
        message
            .attributes
            .extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.to_vec())));
        message
    }

    #[test]
    fn states_and_addresses_are_read() {
        let mac = [2, 0, 0, 0, 0, 1];
        let cases = [
            (
                NeighbourState::Reachable,
                Some(&mac[..]),
                Some(mac),
                State::Valid,
            ),
            (
                NeighbourState::Permanent,
                Some(&mac[..]),
                Some(mac),
                State::Valid,
            ),
            (
                NeighbourState::Stale,
                Some(&mac[..]),
                Some(mac),
                State::Stale,
            ),
            (
                NeighbourState::Probe,
                Some(&mac[..]),
                Some(mac),
                State::Probing,
            ),
            (NeighbourState::Incomplete, None, None, State::Missing),
            (NeighbourState::Failed, Some(&mac[..]), None, State::Missing),
            (
                NeighbourState::Reachable,
                Some(&mac[..4]),
                None,
                State::Valid,
            ),
        ];
        for (kernel, bytes, mac, state) in cases {
            let expected = ((3, IpAddr::from([10, 0, 0, 1])), Neighbour { mac, state });
            assert_eq!(parse(&message(kernel, bytes)), Some(expected), "{kernel:?}");
        }
    }

    #[test]
    fn a_neighbour_that_falls_silent_keeps_its_address() {
        let known = Neighbour {
            mac: Some([2; 6]),
            state: State::Valid,
        };
        let silent = Neighbour {
            mac: None,
            state: State::Missing,
        };
        let moved = Neighbour {
            mac: Some([3; 6]),
            state: State::Valid,
        };
        assert_eq!(
            known.followed_by(silent),
            Neighbour {
                mac: Some([2; 6]),
                ..silent
            }
        );
        assert_eq!(known.followed_by(silent).followed_by(moved), moved);
    }
}
