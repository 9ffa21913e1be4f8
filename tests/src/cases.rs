//! The table of packets that the balancer answers: every mode, every refusal, against the tables
//! of [`Fixture`](crate::fixture::Fixture). Host and kernel answer the same table.

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};
use lb_ebpf::reason::Reason;

use crate::{
    fixture::{
        HOP_MAC, MTU, OWN_MAC, PORT_ELSEWHERE, PORT_EMPTY, PORT_IPIP_V4, PORT_IPIP_V6, PORT_L2,
        PORT_MISMATCH, PORT_UNKNOWN, PORT_UNRESOLVED, SOURCE_V4, SOURCE_V6, VIP_V4, VIP_V6, v6,
    },
    packet::{self, Addresses, Segment},
};

/// One packet and what becomes of it.
pub struct Case {
    /// What is special about it.
    pub name: &'static str,
    /// The frame as received.
    pub frame: Vec<u8>,
    /// Under which reason it is counted.
    pub reason: Reason,
    /// The frame as it leaves, if it is forwarded or answered; else it stays as it was.
    pub sent: Option<Vec<u8>>,
}

const CLIENT_V4: [u8; 4] = [192, 0, 2, 7];
const CLIENT_V6: [u8; 16] = v6(0x77);
const TO_V4: Addresses = Addresses::V4(CLIENT_V4, VIP_V4);
const TO_V6: Addresses = Addresses::V6(CLIENT_V6, VIP_V6);
/// How a frame looks when it leaves.
type Rewrite = fn(&[u8]) -> Vec<u8>;

/// The case whose backend is behind another interface.
pub const ELSEWHERE_NAME: &str = "through another interface";

const TCP_OFFSET_AT: usize = 14 + 20 + 12;

/// The whole table.
#[must_use]
pub fn all() -> Vec<Case> {
    let groups = [
        by_mac(),
        tunnelled(),
        tagged(),
        answered(),
        passed(),
        malformed_ip(),
        malformed_transport(),
        refused(),
    ];
    groups.into_iter().flatten().collect()
}

fn forwarded(name: &'static str, reason: Reason, frame: Vec<u8>, rewrite: Rewrite) -> Case {
    let sent = Some(rewrite(&frame));
    Case {
        name,
        frame,
        reason,
        sent,
    }
}

fn syn(to: Addresses, port: u16) -> Vec<u8> {
    packet::tcp(to, (4000, port), Segment::Syn, b"")
}

fn ack(to: Addresses, port: u16) -> Vec<u8> {
    packet::tcp(to, (4000, port), Segment::Ack, b"some bytes")
}

fn udp(to: Addresses, port: u16) -> Vec<u8> {
    packet::udp(to, (4000, port), b"a datagram")
}

fn by_mac() -> Vec<Case> {
    let case = |name, frame| forwarded(name, Reason::ForwardedL2, frame, rewritten);
    vec![
        case("l2, TCP SYN v4", syn(TO_V4, PORT_L2)),
        case("l2, TCP ACK v4", ack(TO_V4, PORT_L2)),
        case("l2, UDP v4", udp(TO_V4, PORT_L2)),
        case("l2, TCP SYN v6", syn(TO_V6, PORT_L2)),
        case("l2, UDP v6", udp(TO_V6, PORT_L2)),
        case("padding behind the packet", padded(syn(TO_V4, PORT_L2))),
        case("IPv4 options", with_options(&syn(TO_V4, PORT_L2))),
        case("IPv6 options", with_extension(&syn(TO_V6, PORT_L2))),
    ]
}

fn tunnelled() -> Vec<Case> {
    let case = |name, frame, rewrite| forwarded(name, Reason::ForwardedIpip, frame, rewrite);
    let (v4, v6): (Rewrite, Rewrite) = (in_v4, in_v6);
    vec![
        case("4 in 4, TCP SYN", syn(TO_V4, PORT_IPIP_V4), v4),
        case("4 in 4, TCP ACK", ack(TO_V4, PORT_IPIP_V4), v4),
        case("4 in 4, UDP", udp(TO_V4, PORT_IPIP_V4), v4),
        case("6 in 6, TCP SYN", syn(TO_V6, PORT_IPIP_V6), v6),
        case("6 in 6, UDP", udp(TO_V6, PORT_IPIP_V6), v6),
        case("4 in 6, TCP SYN", syn(TO_V4, PORT_IPIP_V6), v6),
        case("6 in 4, TCP SYN", syn(TO_V6, PORT_IPIP_V4), v4),
        case(ELSEWHERE_NAME, syn(TO_V4, PORT_ELSEWHERE), to_elsewhere),
        case(
            "traffic class is copied",
            marked(ack(TO_V4, PORT_IPIP_V4)),
            v4,
        ),
        case("as long as the tunnel allows", sized(MTU - 20), v4),
    ]
}

fn tagged() -> Vec<Case> {
    let plain = packet::tcp(TO_V4, (4000, PORT_IPIP_V4), Segment::Syn, b"");
    let tunnelled = in_v4(&plain);
    let once = |frame: &[u8]| packet::tagged(frame, 0x8100, 5);
    let twice = |frame: &[u8]| packet::tagged(&once(frame), 0x88a8, 6);
    let case = |name, frame, sent| {
        let sent = Some(sent);
        Case {
            name,
            frame,
            reason: Reason::ForwardedIpip,
            sent,
        }
    };
    vec![
        case("one VLAN tag stays", once(&plain), once(&tunnelled)),
        case("two VLAN tags stay", twice(&plain), twice(&tunnelled)),
        Case {
            name: "three VLAN tags are not IP",
            frame: packet::tagged(&twice(&plain), 0x88a8, 7),
            reason: Reason::NotIp,
            sent: None,
        },
    ]
}

fn answered() -> Vec<Case> {
    let reply = |v6: bool| {
        let mut frame = match v6 {
            false => packet::echo(Addresses::V4(VIP_V4, CLIENT_V4), b"ping"),
            true => packet::echo(Addresses::V6(VIP_V6, CLIENT_V6), b"ping"),
        };
        let (ttl_at, icmp_at, kind) = if v6 { (21, 54, 129) } else { (22, 34, 0) };
        // The request has a time to live of 62; what the program sends has 64.
        frame[ttl_at] = 64;
        if !v6 {
            let sum = ipv4_checksum(&frame);
            frame[24..26].copy_from_slice(&sum);
        }
        let sum = u16::from_be_bytes([frame[icmp_at + 2], frame[icmp_at + 3]]);
        // One's complement: the type fell by 8 (v4) or rose by 1 (v6) in the high byte.
        let sum = if v6 {
            sum.wrapping_sub(0x100)
        } else {
            sum.wrapping_add(0x800)
        };
        frame[icmp_at] = kind;
        frame[icmp_at + 2..icmp_at + 4].copy_from_slice(&sum.to_be_bytes());
        let (destination, source) = frame[..12].split_at_mut(6);
        destination.swap_with_slice(source);
        frame
    };
    let case = |name, frame, v6| {
        let sent = Some(reply(v6));
        Case {
            name,
            frame,
            reason: Reason::EchoReplied,
            sent,
        }
    };
    vec![
        case("echo request v4", packet::echo(TO_V4, b"ping"), false),
        case("echo request v6", packet::echo(TO_V6, b"ping"), true),
    ]
}

fn passed() -> Vec<Case> {
    let case = |name, frame, reason| Case {
        name,
        frame,
        reason,
        sent: None,
    };
    let foreign = Addresses::V4(CLIENT_V4, [203, 0, 113, 99]);
    let arp = [&[0xff; 6][..], &packet::SENDER_MAC, &[8, 6], &[0; 46]].concat();
    let mut extensions = syn(TO_V6, PORT_L2);
    for _ in 0..5 {
        extensions = with_extension(&extensions);
    }
    vec![
        case("ARP", arp, Reason::NotIp),
        case("another address", syn(foreign, PORT_L2), Reason::NotVip),
        case("another port", syn(TO_V4, 9999), Reason::NotVip),
        case("another port v6", syn(TO_V6, 9999), Reason::NotVip),
        case(
            "echo request to another address",
            packet::echo(foreign, b"ping"),
            Reason::NotVip,
        ),
        case(
            "a fragment to another address",
            fragment(syn(foreign, PORT_L2)),
            Reason::NotVip,
        ),
        case(
            "another protocol",
            with(syn(TO_V4, PORT_L2), 23, 132),
            Reason::OtherProtocol,
        ),
        case(
            "echo reply",
            with(packet::echo(TO_V4, b""), 34, 0),
            Reason::OtherProtocol,
        ),
        case(
            "too many IPv6 options",
            extensions,
            Reason::ExtensionsTooMany,
        ),
    ]
}

fn malformed_ip() -> Vec<Case> {
    let (v4, v6) = (ack(TO_V4, PORT_L2), udp(TO_V6, PORT_L2));
    let tag_cut = packet::tagged(&v4, 0x8100, 5)[..17].to_vec();
    let (v4, v6) = (|| v4.clone(), || v6.clone());
    let (length_at, payload_at) = (17, 19);
    let total = v4()[length_at];
    let payload = v6()[payload_at];
    let case = |name, frame, reason| Case {
        name,
        frame,
        reason,
        sent: None,
    };
    vec![
        case("a tag cut", tag_cut, Reason::FrameTruncated),
        case("IPv4 cut", v4()[..33].to_vec(), Reason::Ipv4Truncated),
        case(
            "version 6 in IPv4",
            with(v4(), 14, 0x65),
            Reason::Ipv4Version,
        ),
        case(
            "header of 16",
            with(v4(), 14, 0x44),
            Reason::Ipv4HeaderLength,
        ),
        case(
            "beyond the frame",
            with(v4(), length_at, total + 1),
            Reason::Ipv4TotalLength,
        ),
        case(
            "below the header",
            with(v4(), length_at, 19),
            Reason::Ipv4TotalLength,
        ),
        case("IPv6 cut", v6()[..53].to_vec(), Reason::Ipv6Truncated),
        case(
            "version 4 in IPv6",
            with(v6(), 14, 0x40),
            Reason::Ipv6Version,
        ),
        case(
            "IPv6 beyond",
            with(v6(), payload_at, payload + 1),
            Reason::Ipv6PayloadLength,
        ),
        case(
            "options beyond",
            with(udp(TO_V6, 0x0fff), 20, 0),
            Reason::Ipv6Truncated,
        ),
    ]
}

fn malformed_transport() -> Vec<Case> {
    let tcp = || ack(TO_V4, PORT_L2);
    let v4 = || udp(TO_V4, PORT_L2);
    let v6 = || udp(TO_V6, PORT_L2);
    let echo = packet::echo(TO_V4, b"");
    // "some bytes" and "a datagram" have ten bytes each.
    let case = |name, frame, reason| Case {
        name,
        frame,
        reason,
        sent: None,
    };
    vec![
        case("TCP cut", with(tcp(), 17, 39), Reason::TcpTruncated),
        case(
            "TCP header of 16",
            with(tcp(), TCP_OFFSET_AT, 0x40),
            Reason::TcpHeaderLength,
        ),
        case(
            "TCP options beyond",
            with(tcp(), TCP_OFFSET_AT, 0x80),
            Reason::TcpHeaderLength,
        ),
        case("UDP cut", with(v6(), 19, 7), Reason::UdpTruncated),
        case("UDP length of 7", with(v4(), 39, 7), Reason::UdpLength),
        case("UDP length beyond", with(v4(), 39, 19), Reason::UdpLength),
        case("ICMP cut", with(echo, 17, 27), Reason::IcmpTruncated),
    ]
}

fn refused() -> Vec<Case> {
    let syn = |port| packet::tcp(TO_V4, (4000, port), Segment::Syn, b"");
    let case = |name, frame, reason| Case {
        name,
        frame,
        reason,
        sent: None,
    };
    let mismatch = packet::tcp(TO_V6, (4000, PORT_MISMATCH), Segment::Syn, b"");
    vec![
        case(
            "a fragment to a VIP",
            fragment(syn(PORT_L2)),
            Reason::Fragment,
        ),
        case("no backend", syn(PORT_EMPTY), Reason::NoBackend),
        case(
            "a backend that is in no table",
            syn(PORT_UNKNOWN),
            Reason::BackendUnknown,
        ),
        case("no next hop", syn(PORT_UNRESOLVED), Reason::NextHopUnknown),
        case(
            "IPv4 to an IPv6 neighbour",
            syn(PORT_MISMATCH),
            Reason::FamilyMismatch,
        ),
        case(
            "IPv6 to an IPv4 neighbour",
            mismatch,
            Reason::FamilyMismatch,
        ),
        case(
            "a byte longer than the tunnel allows",
            sized(MTU - 19),
            Reason::PacketTooBig,
        ),
    ]
}

/// A frame whose IP packet to the IPv4 tunnel has `ip_len` bytes.
fn sized(ip_len: u16) -> Vec<u8> {
    let payload = vec![7; usize::from(ip_len) - 40];
    packet::tcp(TO_V4, (4000, PORT_IPIP_V4), Segment::Ack, &payload)
}

fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// The first fragment of a datagram: "more fragments" is set.
fn fragment(frame: Vec<u8>) -> Vec<u8> {
    with(frame, 20, 0x20)
}

fn padded(frame: Vec<u8>) -> Vec<u8> {
    [frame, vec![0; 6]].concat()
}

/// DSCP "expedited forwarding" and "ECN capable".
fn marked(frame: Vec<u8>) -> Vec<u8> {
    let mut frame = with(frame, 15, 0xb9);
    let sum = ipv4_checksum(&frame);
    frame[24..26].copy_from_slice(&sum);
    frame
}

/// Four bytes of "no operation" options behind the IPv4 header.
fn with_options(frame: &[u8]) -> Vec<u8> {
    let mut frame = [&frame[..34], &[1; 4], &frame[34..]].concat();
    frame[14] = 0x46;
    frame[17] += 4;
    frame
}

/// An IPv6 destination options header of eight bytes in front of the payload.
fn with_extension(frame: &[u8]) -> Vec<u8> {
    let mut frame = [
        &frame[..54],
        &[frame[20], 0, 1, 4, 0, 0, 0, 0],
        &frame[54..],
    ]
    .concat();
    frame[20] = 60;
    frame[19] += 8;
    frame
}

fn ipv4_checksum(frame: &[u8]) -> [u8; 2] {
    let (header, _) = Ipv4Header::from_slice(&frame[14..]).expect("the test made a sound header");
    header.calc_header_checksum().to_be_bytes()
}

/// The frame addressed to the next hop.
fn rewritten(frame: &[u8]) -> Vec<u8> {
    [&HOP_MAC[..], &OWN_MAC, &frame[12..]].concat()
}

fn in_v4(frame: &[u8]) -> Vec<u8> {
    tunnelled_v4(frame, [10, 0, 0, 2])
}

fn to_elsewhere(frame: &[u8]) -> Vec<u8> {
    tunnelled_v4(frame, [10, 0, 0, 4])
}

fn tunnelled_v4(frame: &[u8], destination: [u8; 4]) -> Vec<u8> {
    let (protocol, traffic_class) = inner(frame);
    let payload = &frame[14..];
    let source = SOURCE_V4.v4_word().to_ne_bytes();
    let mut outer = Ipv4Header::new(payload.len() as u16, 64, protocol, source, destination)
        .expect("the payload fits an IPv4 packet");
    outer.dscp = (traffic_class >> 2).try_into().expect("six bits");
    outer.ecn = (traffic_class & 3).try_into().expect("two bits");
    outer.dont_fragment = true;
    outer.header_checksum = outer.calc_header_checksum();
    [&HOP_MAC[..], &OWN_MAC, &[8, 0], &outer.to_bytes(), payload].concat()
}

/// The tunnel's flow label is 0 here; the program's depends on the hash.
fn in_v6(frame: &[u8]) -> Vec<u8> {
    let (protocol, traffic_class) = inner(frame);
    let payload = &frame[14..];
    let outer = Ipv6Header {
        traffic_class,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: payload.len() as u16,
        next_header: protocol,
        hop_limit: 64,
        source: SOURCE_V6.to_bytes(),
        destination: v6(2),
    };
    [
        &HOP_MAC[..],
        &OWN_MAC,
        &[0x86, 0xdd],
        &outer.to_bytes(),
        payload,
    ]
    .concat()
}

fn inner(frame: &[u8]) -> (IpNumber, u8) {
    match frame[14] >> 4 {
        4 => (IpNumber::IPV4, frame[15]),
        _ => (IpNumber::IPV6, frame[14] << 4 | frame[15] >> 4),
    }
}

/// The frame with the flow label of an IPv6 header behind an untagged Ethernet header set to 0.
#[must_use]
pub fn without_flow_label(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.len() > 18 && frame[12..14] == [0x86, 0xdd] {
        frame[15] &= 0xf0;
        frame[16] = 0;
        frame[17] = 0;
    }
    frame
}
