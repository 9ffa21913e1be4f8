//! Frames for tests, built layer by layer with `etherparse`, which knows nothing of our parser.

use etherparse::PacketBuilder;

/// MAC address of whoever sends test packets.
pub const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x01];
/// MAC address of the receiver of test packets.
pub const RECEIVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];

/// Both addresses of a packet, of one IP version.
#[derive(Clone, Copy, Debug)]
pub enum Addresses {
    /// IPv4: source, destination.
    V4([u8; 4], [u8; 4]),
    /// IPv6: source, destination.
    V6([u8; 16], [u8; 16]),
}

/// What a TCP packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Opens a connection.
    Syn,
    /// Belongs to a connection.
    Ack,
}

/// A TCP segment of `payload`, ports as source and destination.
#[must_use]
pub fn tcp(addresses: Addresses, ports: (u16, u16), segment: Segment, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(SENDER_MAC, RECEIVER_MAC);
    let ip = match addresses {
        Addresses::V4(source, destination) => ethernet.ipv4(source, destination, 62),
        Addresses::V6(source, destination) => ethernet.ipv6(source, destination, 62),
    };
    let tcp = ip.tcp(ports.0, ports.1, 7, 1024);
    let tcp = match segment {
        Segment::Syn => tcp.syn(),
        Segment::Ack => tcp.ack(8),
    };
    let mut frame = Vec::with_capacity(tcp.size(payload.len()));
    tcp.write(&mut frame, payload)
        .expect("a vector takes every write");
    frame
}

/// A UDP datagram of `payload`, ports as source and destination.
#[must_use]
pub fn udp(addresses: Addresses, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(SENDER_MAC, RECEIVER_MAC);
    let ip = match addresses {
        Addresses::V4(source, destination) => ethernet.ipv4(source, destination, 62),
        Addresses::V6(source, destination) => ethernet.ipv6(source, destination, 62),
    };
    let udp = ip.udp(ports.0, ports.1);
    let mut frame = Vec::with_capacity(udp.size(payload.len()));
    udp.write(&mut frame, payload)
        .expect("a vector takes every write");
    frame
}

/// An ICMP or ICMPv6 echo request.
#[must_use]
pub fn echo(addresses: Addresses, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(SENDER_MAC, RECEIVER_MAC);
    let mut frame = Vec::new();
    let result = match addresses {
        Addresses::V4(source, destination) => ethernet
            .ipv4(source, destination, 62)
            .icmpv4_echo_request(0x1234, 9)
            .write(&mut frame, payload),
        Addresses::V6(source, destination) => ethernet
            .ipv6(source, destination, 62)
            .icmpv6_echo_request(0x1234, 9)
            .write(&mut frame, payload),
    };
    result.expect("a vector takes every write");
    frame
}

/// The frame with a VLAN tag of `kind` (0x8100 or 0x88a8) and `id` put in front of the rest.
#[must_use]
pub fn tagged(frame: &[u8], kind: u16, id: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(kind.to_be_bytes());
    tagged.extend(id.to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}
