//! The balancer in the kernel: the table of packets, its counters, and 100 000 random frames that
//! host and kernel must answer alike.

use std::collections::BTreeMap;

use lb_ebpf::{
    abi::{VipKey, map},
    address::Address,
    flow_table::Remembered,
    reason::{Action, Reason},
    track::{Event, FlowTable},
    wire::protocol::{TCP, UDP},
};
use proptest::{
    prelude::Rng,
    test_runner::{RngAlgorithm, TestRng},
};
use tests::{
    cases::{self, without_flow_label},
    fixture::{
        ELSEWHERE, Fixture, INGRESS, PORT_MOVING_LATE, PORT_MOVING_RING, PORT_RING, VIP_V4, VIP_V6,
        backend,
    },
    object::{Object, XdpAction},
    packet::{self, Addresses, Segment},
};

use crate::host::answer;

fn expected_action(reason: Reason, ifindex: u32) -> XdpAction {
    match reason.action() {
        Action::Pass => XdpAction::Pass,
        Action::Drop => XdpAction::Drop,
        Action::Forward if ifindex == ELSEWHERE => XdpAction::Redirect,
        Action::Forward | Action::Reply => XdpAction::Transmit,
    }
}

#[test]
fn every_case_of_the_table_is_answered_and_counted() {
    if !crate::granted() {
        return;
    }
    let fixture = Fixture::new();
    let object = Object::balancer(&fixture).unwrap();
    let mut counted = BTreeMap::new();
    for case in cases::all() {
        let ifindex = answer(&fixture, &case.frame)
            .0
            .forwarded
            .map_or(INGRESS, |to| to.ifindex);
        let (action, sent) = object.run(&case.frame).unwrap();
        assert_eq!(
            action,
            expected_action(case.reason, ifindex),
            "{}",
            case.name
        );
        let expected = case.sent.unwrap_or(case.frame);
        assert_eq!(
            without_flow_label(sent),
            without_flow_label(expected),
            "{}",
            case.name
        );
        *counted.entry(case.reason.name()).or_insert(0) += 1;
        let count = object.reason_count(case.reason).unwrap();
        assert_eq!(count, counted[case.reason.name()], "{}", case.name);
    }
    assert_eq!(object.packets().unwrap(), cases::all().len() as u64);
}

#[test]
fn packets_and_bytes_are_counted_by_vip_and_by_backend() {
    if !crate::granted() {
        return;
    }
    let fixture = Fixture::new();
    let object = Object::balancer(&fixture).unwrap();
    let to = Addresses::V4([192, 0, 2, 7], VIP_V4);
    let frame = packet::tcp(to, (4000, PORT_RING), Segment::Syn, b"");
    for _ in 0..3 {
        object.run(&frame).unwrap();
    }
    let vip = fixture.vips[&VipKey::new(Address::v4(VIP_V4), PORT_RING, TCP)].id;
    let owner = answer(&fixture, &frame).0.forwarded.unwrap().backend_id;
    for (name, index) in [
        (map::VIP_COUNTS, vip),
        (map::BACKEND_COUNTS, u32::from(owner)),
    ] {
        let counts = object.counts(name, index).unwrap();
        assert_eq!(
            (counts.packets, counts.bytes),
            (3, 3 * frame.len() as u64),
            "{name}"
        );
    }
    let other = object
        .counts(map::BACKEND_COUNTS, u32::from(backend::V6))
        .unwrap();
    assert_eq!(other.packets, 0);
}

#[test]
fn a_vip_of_every_port_takes_what_no_other_takes() {
    if !crate::granted() {
        return;
    }
    let mut fixture = Fixture::new();
    let address = Address::v4(VIP_V4);
    fixture.add_vip(
        address,
        0,
        UDP,
        lb_ebpf::abi::forward::IPIP,
        &[backend::ELSEWHERE],
    );
    let object = Object::balancer(&fixture).unwrap();
    let to = Addresses::V4([192, 0, 2, 7], VIP_V4);
    let cases = [
        (
            "an unnamed port",
            packet::udp(to, (4000, 5353), b""),
            XdpAction::Redirect,
        ),
        (
            "a port with a VIP of its own",
            packet::udp(to, (4000, 80), b""),
            XdpAction::Transmit,
        ),
        (
            "another protocol",
            packet::tcp(to, (4000, 5353), Segment::Syn, b""),
            XdpAction::Pass,
        ),
    ];
    for (name, frame, action) in cases {
        assert_eq!(object.run(&frame).unwrap().0, action, "{name}");
    }
}

/// Frames of the table, each with a few bytes and its length changed by chance.
fn damaged(rng: &mut TestRng, sound: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = sound[rng.next_u32() as usize % sound.len()].clone();
    if rng.next_u32().is_multiple_of(4) {
        // A new source and source port: another flow, sound headers.
        let at = if frame[12..14] == [8, 0] { 26 } else { 34 };
        if frame.len() > at + 10 {
            rng.fill_bytes(&mut frame[at..at + 4]);
        }
        return frame;
    }
    for _ in 0..rng.next_u32() % 4 {
        let at = 12 + rng.next_u32() as usize % (frame.len() - 12).min(64);
        frame[at] = rng.next_u32() as u8;
    }
    if rng.next_u32().is_multiple_of(4) {
        // The kernel's test run takes 14 bytes at least.
        frame.truncate(14 + rng.next_u32() as usize % (frame.len() - 13));
    }
    frame
}

#[test]
fn host_and_kernel_answer_100_000_random_frames_alike() {
    if !crate::granted() {
        return;
    }
    const FRAMES: u64 = 100_000;
    let fixture = Fixture::new();
    let object = Object::balancer(&fixture).unwrap();
    let mut sound: Vec<_> = cases::all().into_iter().map(|case| case.frame).collect();
    sound.retain(|frame| frame.len() < 256);
    // A moving ring: what one frame leaves behind, a later one finds. The damage changes addresses
    // and ports, and repeats most flows many times.
    for to in [Addresses::V4([1; 4], VIP_V4), Addresses::V6(VIP_V6, VIP_V6)] {
        for segment in [Segment::Syn, Segment::Ack] {
            sound.push(packet::tcp(to, (4000, PORT_MOVING_RING), segment, b""));
        }
        sound.push(packet::udp(to, (4000, PORT_MOVING_RING), b""));
        sound.push(packet::udp(to, (4000, PORT_MOVING_LATE), b""));
    }
    let ring_v6 = Addresses::V6(VIP_V6, VIP_V6);
    sound.push(packet::tcp(ring_v6, (4000, PORT_RING), Segment::Ack, b""));
    sound.push(packet::udp(
        Addresses::V4([1; 4], VIP_V4),
        (4000, PORT_RING),
        b"",
    ));
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut reached = BTreeMap::new();
    for number in 0..FRAMES {
        let frame = damaged(&mut rng, &sound);
        let (outcome, expected) = answer(&fixture, &frame);
        let (action, sent) = object.run(&frame).unwrap();
        let ifindex = outcome.forwarded.map_or(INGRESS, |to| to.ifindex);
        assert_eq!(
            action,
            expected_action(outcome.reason, ifindex),
            "{number}: {frame:02x?}"
        );
        assert_eq!(sent, expected, "{number}: {frame:02x?}");
        *reached.entry(outcome.reason.name()).or_insert(0_u64) += 1;
    }
    for reason in Reason::ALL {
        let expected = reached.get(reason.name()).copied().unwrap_or(0);
        assert_eq!(
            object.reason_count(*reason).unwrap(),
            expected,
            "{}",
            reason.name()
        );
    }
    for event in Event::ALL {
        let expected = fixture.event(*event);
        assert_eq!(object.event_count(*event).unwrap(), expected, "{event:?}");
    }
    let owners = |flows: &BTreeMap<u64, Remembered>| -> BTreeMap<u64, u16> {
        let owner = |(fingerprint, flow): (&u64, &Remembered)| (*fingerprint, flow.owner);
        flows.iter().map(owner).collect()
    };
    for table in [FlowTable::Exceptions, FlowTable::Flows] {
        let host = fixture.flow_table(table).borrow();
        assert_eq!(
            owners(&object.flows(table).unwrap()),
            owners(&host),
            "{table:?}"
        );
    }
    assert!(fixture.event(Event::Hit) > 100 && fixture.event(Event::Insert) > 100);
    assert_eq!(object.packets().unwrap(), FRAMES);
    assert!(reached.len() > 20, "only {reached:?}");
}
