//! Frames without payload, byte by byte. Checksums stay 0: a balancer does not look at them.
use lb_ebpf::flow::Family;

use super::contents::{CLIENT_V4, CLIENT_V6};

const ETHER_IPV4: [u8; 2] = [0x08, 0x00];
const ETHER_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHER_ARP: [u8; 2] = [0x08, 0x06];
const PORTS: [[u8; 2]; 2] = [40_000_u16.to_be_bytes(), PORT.to_be_bytes()];

/// Destination port of all packets.
pub(super) const PORT: u16 = 443;
const ICMP: u8 = 1;
const IPV4_IN_IP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_IN_IP: u8 = 41;
const ICMP_V6: u8 = 58;

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    TcpAck,
    TcpSyn,
    Udp,
    EchoRequest,
}

/// An address of one of the two families.
pub(super) fn address<'a>(family: Family, v4: &'a [u8; 4], v6: &'a [u8; 16]) -> &'a [u8] {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

impl Payload {
    pub(super) const FLOWS: [Self; 3] = [Self::TcpAck, Self::TcpSyn, Self::Udp];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TcpAck => "tcp-ack",
            Self::TcpSyn => "tcp-syn",
            Self::Udp => "udp",
            Self::EchoRequest => "echo",
        }
    }

    /// The IP protocol number.
    pub(super) fn protocol(self, family: Family) -> u8 {
        match (self, family) {
            (Self::TcpAck | Self::TcpSyn, _) => TCP,
            (Self::Udp, _) => UDP,
            (Self::EchoRequest, Family::V4) => ICMP,
            (Self::EchoRequest, Family::V6) => ICMP_V6,
        }
    }

    /// The transport header (RFC 9293, RFC 768, RFC 792, RFC 4443).
    fn header(self, family: Family) -> Vec<u8> {
        const SEQUENCE: [u8; 8] = [0, 0, 0, 7, 0, 0, 0, 8];
        let tcp = |flags| {
            let rest = [0x50, flags, 0x04, 0x00, 0, 0, 0, 0];
            [&PORTS.concat()[..], &SEQUENCE, &rest].concat()
        };
        match (self, family) {
            (Self::TcpAck, _) => tcp(0x10),
            (Self::TcpSyn, _) => tcp(0x02),
            (Self::Udp, _) => [&PORTS.concat()[..], &[0, 8, 0, 0]].concat(),
            (Self::EchoRequest, Family::V4) => vec![8, 0, 0, 0, 0x12, 0x34, 0, 9],
            (Self::EchoRequest, Family::V6) => vec![128, 0, 0, 0, 0x12, 0x34, 0, 9],
        }
    }
}

/// A packet from the client to `destination`, an address of `family`.
pub(super) fn to(family: Family, destination: &[u8], payload: Payload) -> Vec<u8> {
    let client = address(family, &CLIENT_V4, &CLIENT_V6);
    let (protocol, header) = (payload.protocol(family), payload.header(family));
    framed(family, &ip(family, client, destination, protocol, &header))
}

/// A packet to `inner` in a tunnel of the same family to `outer`.
pub(super) fn tunnelled(family: Family, outer: &[u8], inner: &[u8], payload: Payload) -> Vec<u8> {
    let client = address(family, &CLIENT_V4, &CLIENT_V6);
    let header = payload.header(family);
    let packet = ip(family, client, inner, payload.protocol(family), &header);
    let protocol = match family {
        Family::V4 => IPV4_IN_IP,
        Family::V6 => IPV6_IN_IP,
    };
    framed(family, &ip(family, client, outer, protocol, &packet))
}

/// An ARP request: what is not for the balancer at all.
pub(super) fn arp() -> Vec<u8> {
    ethernet(ETHER_ARP, &[0; 28])
}

fn framed(family: Family, packet: &[u8]) -> Vec<u8> {
    let ether_type = match family {
        Family::V4 => ETHER_IPV4,
        Family::V6 => ETHER_IPV6,
    };
    ethernet(ether_type, packet)
}

fn ethernet(ether_type: [u8; 2], packet: &[u8]) -> Vec<u8> {
    let (receiver, sender) = ([2, 0, 0, 0, 0, 0x0a], [2, 0, 0, 0, 0, 0x01]);
    [&receiver[..], &sender, &ether_type, packet].concat()
}

fn ip(family: Family, source: &[u8], destination: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let payload_bytes = payload.len() as u16;
    let header = match family {
        Family::V4 => {
            let [high, low] = (20 + payload_bytes).to_be_bytes();
            // Version and length, class, total length, id, do not fragment, hops, protocol, sum.
            vec![0x45, 0, high, low, 0, 1, 0x40, 0, 62, protocol, 0, 0]
        }
        Family::V6 => {
            let [high, low] = payload_bytes.to_be_bytes();
            // Version, class, flow label, payload length, next header, hops.
            vec![0x60, 0, 0, 0, high, low, protocol, 62]
        }
    };
    [&header[..], source, destination, payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_headers() {
        let (v4, v6) = ([203, 0, 113, 10], [7; 16]);
        let cases = [
            (to(Family::V4, &v4, Payload::TcpAck), 14 + 20 + 20),
            (to(Family::V6, &v6, Payload::TcpSyn), 14 + 40 + 20),
            (to(Family::V4, &v4, Payload::Udp), 14 + 20 + 8),
            (to(Family::V6, &v6, Payload::EchoRequest), 14 + 40 + 8),
            (
                tunnelled(Family::V4, &v4, &v4, Payload::Udp),
                14 + 20 + 20 + 8,
            ),
            (
                tunnelled(Family::V6, &v6, &v6, Payload::Udp),
                14 + 40 + 40 + 8,
            ),
            (arp(), 14 + 28),
        ];
        for (frame, expected) in cases {
            assert_eq!(frame.len(), expected, "{frame:02x?}");
        }
        assert_eq!(
            to(Family::V4, &v4, Payload::TcpAck)[16..18],
            [0, 40],
            "total length"
        );
        assert_eq!(
            to(Family::V6, &v6, Payload::Udp)[18..20],
            [0, 8],
            "payload length"
        );
    }
}
