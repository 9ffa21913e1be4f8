//! VIPs with full tracking: every flow is remembered, and what is remembered comes first.

use lb_ebpf::{
    abi::VipKey,
    address::Address,
    flow::Family,
    flow_table::Remembered,
    reason::Reason,
    steer,
    track::{Event, FlowTable},
    wire::protocol::TCP,
};
use tests::{
    fixture::{Fixture, PORT_TRACKED, PORT_TRACKED_MOVING, VIP_V4, backend},
    object::{Object, Room},
    packet::{self, Addresses, Segment},
};

use crate::host::answer;

const CLIENT: [u8; 4] = [192, 0, 2, 7];
const CLIENT_PORT: u16 = 4000;

const ROOM: Room = Room {
    exceptions: 16,
    flows: 16,
};

/// One packet and what it meets.
struct Row {
    name: &'static str,
    segment: Segment,
    port: u16,
    /// What full tracking knows already: the owner, and whether it is this VIP's.
    known: Option<(u16, bool)>,
    owner: u16,
    events: &'static [Event],
    /// Whether the slot's mark says that previous had a packet.
    hit: bool,
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use Segment::{Ack, Syn};
    // The settled slot is CURRENT's; the moving one goes from PREVIOUS to CURRENT. THIRD owns neither.
    const CURRENT: u16 = backend::V4;
    const PREVIOUS: u16 = backend::V4_SECOND;
    const THIRD: u16 = backend::ELSEWHERE;
    const KNOWN: &[Event] = &[Event::FlowHit];
    const NEW: &[Event] = &[Event::FlowInsert];
    let row = |name, segment, port, known, owner, events, hit| Row {
        name, segment, port, known, owner, events, hit,
    };
    let (settled, moving) = (PORT_TRACKED, PORT_TRACKED_MOVING);
    vec![
        row("SYN", Syn, settled, None, CURRENT, NEW, false),
        row("SYN of a known flow", Syn, settled, Some((THIRD, true)), CURRENT, NEW, false),
        row("ACK, unknown", Ack, settled, None, CURRENT, NEW, false),
        row("ACK, known", Ack, settled, Some((THIRD, true)), THIRD, KNOWN, false),
        row("ACK, another VIP's", Ack, settled, Some((THIRD, false)), CURRENT, NEW, false),
        row("ACK, owner gone", Ack, settled, Some((backend::UNKNOWN, true)), CURRENT, NEW, false),
        row("ACK, owner without hop", Ack, settled, Some((backend::UNRESOLVED, true)), CURRENT, NEW, false),
        row("SYN, moving", Syn, moving, None, CURRENT, NEW, false),
        row("ACK, moving, unknown", Ack, moving, None, PREVIOUS, NEW, true),
        row("ACK, moving, previous's", Ack, moving, Some((PREVIOUS, true)), PREVIOUS, KNOWN, true),
        row("ACK, moving, a third's", Ack, moving, Some((THIRD, true)), THIRD, KNOWN, false),
    ]
}

impl Row {
    fn frame(&self) -> Vec<u8> {
        let addresses = Addresses::V4(CLIENT, VIP_V4);
        packet::tcp(addresses, (CLIENT_PORT, self.port), self.segment, b"")
    }

    fn fingerprint(&self, fixture: &Fixture) -> u64 {
        let client = (Address::v4(CLIENT), CLIENT_PORT);
        let vip = (Address::v4(VIP_V4), self.port);
        fixture.fingerprint(&steer::flow(Family::V4, client, vip, TCP))
    }

    fn fixture(&self) -> Fixture {
        let fixture = Fixture::new();
        if let Some((owner, ours)) = self.known {
            let vip = fixture.vips[&VipKey::new(Address::v4(VIP_V4), self.port, TCP)];
            let tag = vip.id as u16 + u16::from(!ours);
            let seen_s = fixture.now_s;
            let known = Remembered { owner, tag, seen_s };
            let fingerprint = self.fingerprint(&fixture);
            fixture.flows.borrow_mut().insert(fingerprint, known);
        }
        fixture
    }
}

#[test]
fn the_host_answers_every_row() {
    for row in rows() {
        let fixture = row.fixture();
        let (outcome, _) = answer(&fixture, &row.frame());
        let owner = outcome.forwarded.map(|forwarded| forwarded.backend_id);
        assert_eq!(owner, Some(row.owner), "{}", row.name);
        let left = fixture.flows.borrow()[&row.fingerprint(&fixture)];
        assert_eq!(left.owner, row.owner, "{}", row.name);
        assert!(fixture.exceptions.borrow().is_empty(), "{}", row.name);
        assert_eq!(!fixture.hits.borrow().is_empty(), row.hit, "{}", row.name);
        for event in Event::ALL {
            let expected = u64::from(row.events.contains(event));
            assert_eq!(fixture.event(*event), expected, "{}: {event:?}", row.name);
        }
    }
}

#[test]
fn the_kernel_answers_every_row() {
    if !crate::granted() {
        return;
    }
    for row in rows() {
        let fixture = row.fixture();
        let object = Object::balancer_within(&fixture, ROOM, u32::MAX).unwrap();
        let (_, sent) = object.run(&row.frame()).unwrap();
        assert_eq!(sent, answer(&row.fixture(), &row.frame()).1, "{}", row.name);
        let left = object.flows(FlowTable::Flows).unwrap();
        let left = left[&row.fingerprint(&fixture)];
        assert_eq!(left.owner, row.owner, "{}", row.name);
        assert!(object.flows(FlowTable::Exceptions).unwrap().is_empty());
        for event in Event::ALL {
            let expected = u64::from(row.events.contains(event));
            let found = object.event_count(*event).unwrap();
            assert_eq!(found, expected, "{}: {event:?}", row.name);
        }
    }
}

#[test]
fn a_flood_evicts_and_drops_nothing() {
    if !crate::granted() {
        return;
    }
    const FLOOD: u16 = 1000;
    let object = Object::balancer_within(&Fixture::new(), ROOM, 0).unwrap();
    for port in 1..=FLOOD {
        let addresses = Addresses::V4(CLIENT, VIP_V4);
        let frame = packet::tcp(addresses, (port, PORT_TRACKED), Segment::Syn, b"");
        object.run(&frame).unwrap();
    }
    let flood = u64::from(FLOOD);
    assert_eq!(object.reason_count(Reason::ForwardedIpip).unwrap(), flood);
    assert_eq!(object.event_count(Event::FlowInsert).unwrap(), flood);
    let left = object.flows(FlowTable::Flows).unwrap().len() as u64;
    assert_eq!(left + object.event_count(Event::FlowEvict).unwrap(), flood);
}
