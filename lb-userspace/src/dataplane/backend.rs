//! Backend entries: addresses in the form of the ABI, and next hops in two generations.

use std::net::IpAddr;

use lb_ebpf::abi::{Backend, Hop};

/// A new entry. Nothing reads it before a ring names it, so both generations may be set at once.
pub fn entry(address: IpAddr, hop: Hop, mtu: u16) -> Backend {
    Backend {
        address: address.into(),
        hops: [hop, hop],
        live: 0,
        family: if address.is_ipv4() { 4 } else { 6 },
        mtu,
        reserved: [0; 12],
    }
}

/// The two writes that give a backend another next hop: first the idle generation, then the switch.
///
/// The kernel copies values in words of 8 bytes, so one write could show a reader half of an old MAC
/// address and half of a new one.
pub fn with_hop(backend: &Backend, hop: Hop, mtu: u16) -> [Backend; 2] {
    let idle = 1 - backend.live.min(1);
    let mut staged = *backend;
    staged.hops[usize::from(idle)] = hop;
    let switched = Backend {
        live: idle,
        mtu,
        ..staged
    };
    [staged, switched]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(last: u8) -> Hop {
        Hop::new(
            [2, 0, 0, 0, 0, last].into(),
            [2, 0, 0, 0, 1, last].into(),
            3,
        )
    }

    #[test]
    fn the_live_hop_is_never_written() {
        let first = entry("192.0.2.7".parse().unwrap(), hop(1), 1500);
        let [staged, switched] = with_hop(&first, hop(2), 1400);
        assert_eq!((staged.hop(), staged.live, staged.mtu), (hop(1), 0, 1500));
        assert_eq!(
            (switched.hop(), switched.live, switched.mtu),
            (hop(2), 1, 1400)
        );
        let [staged, switched] = with_hop(&switched, hop(3), 1400);
        assert_eq!((staged.hop(), staged.hops[0]), (hop(2), hop(3)));
        assert_eq!((switched.hop(), switched.live), (hop(3), 0));
    }
}
