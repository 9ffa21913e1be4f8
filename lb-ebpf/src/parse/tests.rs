//! Frames built by an independent library, then damaged one field at a time.

extern crate std;

use std::{vec, vec::Vec};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::frame::Buffer;

const SOURCE: [u8; 4] = [192, 0, 2, 7];
const DESTINATION: [u8; 4] = [203, 0, 113, 10];
const SOURCE_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const DESTINATION_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];

fn tcp_v4() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(SOURCE, DESTINATION, 9);
    let mut frame = Vec::new();
    builder
        .tcp(4000, 443, 1, 2)
        .syn()
        .write(&mut frame, b"hello")
        .unwrap();
    frame
}

fn udp_v6() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6(SOURCE_V6, DESTINATION_V6, 9);
    let mut frame = Vec::new();
    builder.udp(4000, 443).write(&mut frame, b"hello").unwrap();
    frame
}

fn parsed(mut frame: Vec<u8>) -> Result<Parsed, Reason> {
    parse(&Buffer::new(&mut frame, 0))
}

/// The frame with the byte at `at` replaced.
fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// The frame with `bytes` put in at `at`.
fn inserted(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    [&frame[..at], bytes, &frame[at..]].concat()
}

#[test]
fn a_tcp_segment_gives_its_flow() {
    let parsed = parsed(tcp_v4()).unwrap();
    assert_eq!(parsed.flow.family, Family::V4);
    assert_eq!(parsed.flow.source, Address::v4(SOURCE));
    assert_eq!(parsed.flow.destination, Address::v4(DESTINATION));
    assert_eq!(parsed.flow.source_port, 4000_u16.to_be());
    assert_eq!(parsed.flow.destination_port, 443_u16.to_be());
    assert_eq!(parsed.payload, Payload::Tcp { opens: true });
    assert_eq!(
        (parsed.ip_at, parsed.transport_at, parsed.ip_len),
        (14, 34, 45)
    );
}

#[test]
fn a_udp_datagram_over_ipv6_gives_its_flow() {
    let parsed = parsed(udp_v6()).unwrap();
    assert_eq!(parsed.flow.source, Address::v6(SOURCE_V6));
    assert_eq!(parsed.flow.destination, Address::v6(DESTINATION_V6));
    assert_eq!(parsed.payload, Payload::Udp);
    assert_eq!(
        (parsed.ip_at, parsed.transport_at, parsed.ip_len),
        (14, 54, 53)
    );
}

#[test]
fn tags_options_and_padding_are_stepped_over() {
    let service_tag = [0x88, 0xa8, 0, 5];
    let customer_tag = [0x81, 0x00, 0, 6];
    let once = inserted(&tcp_v4(), 12, &customer_tag);
    let twice = inserted(&once, 12, &service_tag);
    let padded = [tcp_v4(), vec![0; 9]].concat();
    // Four bytes of "no operation" options: header length 6, total length 4 more.
    let mut options = inserted(&tcp_v4(), 34, &[1; 4]);
    options[14] = 0x46;
    options[17] += 4;
    let cases = [
        ("one tag", once, (18, 38)),
        ("two tags", twice, (22, 42)),
        ("padding", padded, (14, 34)),
        ("options", options, (14, 38)),
    ];
    for (name, frame, (ip_at, transport_at)) in cases {
        let parsed = parsed(frame).unwrap();
        assert_eq!(
            (parsed.ip_at, parsed.transport_at),
            (ip_at, transport_at),
            "{name}"
        );
        assert_eq!(parsed.flow.source_port, 4000_u16.to_be(), "{name}");
    }
}

/// An IPv6 UDP datagram with `count` destination options headers of eight bytes.
fn with_extensions(count: usize) -> Vec<u8> {
    let mut frame = udp_v6();
    for _ in 0..count {
        let next = frame[20];
        frame = inserted(&frame, 54, &[next, 0, 1, 4, 0, 0, 0, 0]);
        frame[20] = protocol::DESTINATION_OPTIONS;
        frame[19] += 8;
    }
    frame
}

#[test]
fn extension_headers_are_followed_to_the_limit() {
    for count in 0..=Ipv6::EXTENSIONS_MAX {
        let parsed = parsed(with_extensions(count)).unwrap();
        assert_eq!(parsed.transport_at, 54 + 8 * count);
        assert_eq!(parsed.payload, Payload::Udp);
    }
    let beyond = parsed(with_extensions(Ipv6::EXTENSIONS_MAX + 1));
    assert_eq!(beyond, Err(Reason::ExtensionsTooMany));
}

/// An IPv6 UDP datagram behind a fragment header with these offset and flag bytes.
fn fragment_v6(offset_and_flags: [u8; 2]) -> Vec<u8> {
    let [high, low] = offset_and_flags;
    let mut frame = inserted(&udp_v6(), 54, &[protocol::UDP, 0, high, low, 0, 0, 0, 1]);
    frame[20] = protocol::FRAGMENT;
    frame[19] += 8;
    frame
}

#[test]
fn what_carries_no_ports_is_told_apart() {
    let cases = [
        (
            "first fragment",
            with(tcp_v4(), 20, 0x20),
            Payload::Fragment,
        ),
        (
            "later fragment",
            with(tcp_v4(), 21, 0x01),
            Payload::Fragment,
        ),
        (
            "don't fragment is no fragment",
            with(tcp_v4(), 20, 0x40),
            Payload::Tcp { opens: true },
        ),
        ("first fragment v6", fragment_v6([0, 1]), Payload::Fragment),
        ("later fragment v6", fragment_v6([0, 8]), Payload::Fragment),
        ("atomic fragment v6", fragment_v6([0, 0]), Payload::Udp),
        ("GRE", with(tcp_v4(), 23, 47), Payload::Other),
        (
            "ICMPv6 in IPv4",
            with(tcp_v4(), 23, protocol::ICMPV6),
            Payload::Other,
        ),
        ("no next header", with(udp_v6(), 20, 59), Payload::Other),
    ];
    for (name, frame, payload) in cases {
        assert_eq!(
            parsed(frame).map(|parsed| parsed.payload),
            Ok(payload),
            "{name}"
        );
    }
}

#[test]
fn malformed_frames_have_a_reason() {
    let cut = |frame: Vec<u8>, len: usize| frame[..len].to_vec();
    let tagged = inserted(&tcp_v4(), 12, &[0x81, 0x00, 0, 6]);
    let cases = [
        ("empty", vec![], Reason::FrameTruncated),
        ("Ethernet cut", cut(tcp_v4(), 13), Reason::FrameTruncated),
        ("tag cut", cut(tagged, 17), Reason::FrameTruncated),
        ("ARP", with(with(tcp_v4(), 12, 8), 13, 6), Reason::NotIp),
        ("IPv4 cut", cut(tcp_v4(), 33), Reason::Ipv4Truncated),
        ("IPv4 says 6", with(tcp_v4(), 14, 0x65), Reason::Ipv4Version),
        (
            "header of 16 bytes",
            with(tcp_v4(), 14, 0x44),
            Reason::Ipv4HeaderLength,
        ),
        (
            "total length beyond the frame",
            with(tcp_v4(), 17, 46),
            Reason::Ipv4TotalLength,
        ),
        (
            "total length below the header",
            with(tcp_v4(), 17, 19),
            Reason::Ipv4TotalLength,
        ),
        ("IPv6 cut", cut(udp_v6(), 53), Reason::Ipv6Truncated),
        ("IPv6 says 4", with(udp_v6(), 14, 0x40), Reason::Ipv6Version),
        (
            "payload beyond the frame",
            with(udp_v6(), 19, 14),
            Reason::Ipv6PayloadLength,
        ),
        (
            "extension beyond the payload",
            with(udp_v6(), 20, 0),
            Reason::Ipv6Truncated,
        ),
        (
            "TCP cut by the total length",
            with(tcp_v4(), 17, 39),
            Reason::TcpTruncated,
        ),
        (
            "data offset of 16",
            with(tcp_v4(), 46, 0x40),
            Reason::TcpHeaderLength,
        ),
        (
            "data offset beyond the payload",
            with(tcp_v4(), 46, 0x70),
            Reason::TcpHeaderLength,
        ),
        (
            "UDP cut by the payload length",
            with(udp_v6(), 19, 7),
            Reason::UdpTruncated,
        ),
        ("UDP length of 7", with(udp_v6(), 59, 7), Reason::UdpLength),
        (
            "UDP length beyond the payload",
            with(udp_v6(), 59, 14),
            Reason::UdpLength,
        ),
        (
            "ICMP cut",
            with(with(tcp_v4(), 23, 1), 17, 27),
            Reason::IcmpTruncated,
        ),
    ];
    for (name, frame, reason) in cases {
        assert_eq!(parsed(frame), Err(reason), "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(frame in prop::collection::vec(any::<u8>(), 0..128)) {
        let len = frame.len();
        if let Ok(parsed) = parsed(frame) {
            prop_assert!(parsed.ip_at + parsed.ip_len as usize <= len);
        }
    }

    #[test]
    fn any_damage_to_a_sound_frame_is_parsed_or_refused(
        v6 in any::<bool>(), at in 12usize..60, byte in any::<u8>(), cut in 0usize..60
    ) {
        let mut frame = if v6 { udp_v6() } else { tcp_v4() };
        let len = frame.len();
        frame[at.min(len - 1)] = byte;
        frame.truncate(len.saturating_sub(cut));
        let len = frame.len();
        if let Ok(parsed) = parsed(frame) {
            prop_assert!(parsed.ip_at + parsed.ip_len as usize <= len);
        }
    }
}
