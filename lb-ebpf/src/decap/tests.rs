//! Tunnels made by [`encap`](crate::encap) come apart again; what is not ours is left alone.

extern crate std;

use std::{vec, vec::Vec};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::{
    abi::{Egress, Hop, Settings, VERSION},
    address::Mac,
    encap,
    flow::Family,
    frame::Buffer,
    parse::parse,
};

const LOCAL_V4: [u8; 4] = [10, 0, 0, 2];
const LOCAL_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn is_local(address: Address) -> bool {
    address == Address::v4(LOCAL_V4) || address == Address::v6(LOCAL_V6)
}

/// A UDP datagram of a client, with this traffic class.
fn inner(v6: bool, class: u8) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
    let mut frame = Vec::new();
    let ip = if v6 {
        ethernet.ipv6([7; 16], [8; 16], 9)
    } else {
        ethernet.ipv4([192, 0, 2, 7], [203, 0, 113, 10], 9)
    };
    ip.udp(4000, 53).write(&mut frame, b"hello").unwrap();
    if v6 {
        frame[14] = 0x60 | class >> 4;
        frame[15] = class << 4;
    } else {
        let sum = u16::from_be_bytes([frame[24], frame[25]]);
        let sum = checksum::update(sum, 0x4500, 0x4500 | u16::from(class)).to_be_bytes();
        frame[15] = class;
        frame[24..26].copy_from_slice(&sum);
    }
    frame
}

/// The frame as the balancer sends it to a backend of this family.
fn tunnelled(frame: &[u8], outer_v6: bool) -> Vec<u8> {
    let hop = Hop::new(Mac::new([3; 6]), Mac::new([4; 6]), 1);
    let (address, family) = match outer_v6 {
        true => (Address::v6(LOCAL_V6), Family::V6),
        false => (Address::v4(LOCAL_V4), Family::V4),
    };
    let family = family as u8;
    let backend = Egress {
        address,
        hop,
        family,
        mtu: 0,
    };
    let settings = Settings {
        hash_key: [0; 2],
        source_v6: Address::v6([9; 16]),
        source_v4: Address::v4([10, 0, 0, 1]),
        version: VERSION,
        quiet_s: 0,
    };
    let mut bytes = [vec![0; 64], frame.to_vec()].concat();
    let mut buffer = Buffer::new(&mut bytes, 64);
    let parsed = parse(&buffer).unwrap();
    encap::ipip(&mut buffer, &parsed, &backend, &settings, 5).unwrap();
    buffer.packet().to_vec()
}

fn opened(frame: &[u8]) -> (DecapReason, Vec<u8>) {
    let mut bytes = frame.to_vec();
    let mut buffer = Buffer::new(&mut bytes, 0);
    let reason = run(&mut buffer, is_local);
    (reason, buffer.packet().to_vec())
}

#[test]
fn every_pair_of_families_comes_apart() {
    for (inner_v6, outer_v6) in [(false, false), (true, true), (false, true), (true, false)] {
        let sent = inner(inner_v6, 0xb8);
        let (reason, received) = opened(&tunnelled(&sent, outer_v6));
        assert_eq!(reason, DecapReason::Decapsulated);
        assert_eq!(
            received[14..],
            sent[14..],
            "inner v6 {inner_v6}, outer v6 {outer_v6}"
        );
        assert_eq!(received[..12], [3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]);
        assert_eq!(received[12..14], sent[12..14]);
    }
}

#[test]
fn congestion_marks_are_carried_inside_or_the_packet_is_dropped() {
    // RFC 6040, figure 4: arriving inner header by row, outer "congestion experienced".
    let cases = [
        (0b00, DecapReason::CongestionLost, 0b00),
        (0b01, DecapReason::Decapsulated, 0b11),
        (0b10, DecapReason::Decapsulated, 0b11),
        (0b11, DecapReason::Decapsulated, 0b11),
    ];
    for v6 in [false, true] {
        for (before, reason, after) in cases {
            let mut frame = tunnelled(&inner(v6, before), false);
            frame[15] |= 0b11;
            let (found, received) = opened(&frame);
            assert_eq!(found, reason, "v6 {v6}, {before:02b}");
            if reason == DecapReason::Decapsulated {
                assert_eq!(
                    received[14..],
                    inner(v6, after)[14..],
                    "v6 {v6}, {before:02b}"
                );
            }
        }
    }
}

#[test]
fn what_is_not_a_tunnel_to_this_host_is_left_alone() {
    let foreign = {
        let mut frame = tunnelled(&inner(false, 0), false);
        frame[33] = 3;
        frame
    };
    let fragment = {
        let mut frame = tunnelled(&inner(false, 0), false);
        frame[20] = 0x20;
        frame
    };
    for (name, frame) in [
        ("a plain packet", inner(false, 0)),
        ("a plain packet v6", inner(true, 0)),
        ("a tunnel to another host", foreign),
        ("a fragment of a tunnel packet", fragment),
        ("an empty frame", vec![]),
    ] {
        assert_eq!(
            opened(&frame),
            (DecapReason::NotTunnel, frame.clone()),
            "{name}"
        );
    }
}

#[test]
fn a_broken_inner_packet_is_dropped() {
    let sound = tunnelled(&inner(false, 0), false);
    let mut wrong_version = sound.clone();
    wrong_version[34] = 0x65;
    for (name, frame) in [
        ("cut", sound[..50].to_vec()),
        ("wrong version", wrong_version),
    ] {
        assert_eq!(opened(&frame).0, DecapReason::InnerInvalid, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_opened_or_left(frame in prop::collection::vec(any::<u8>(), 0..128)) {
        let (reason, after) = opened(&frame);
        if reason == DecapReason::NotTunnel {
            prop_assert_eq!(after, frame);
        }
    }
}
