//! Slots that move: every row of the table in [`lb_ebpf::track`], asked of the host and of the kernel,
//! with what each packet leaves behind.

use lb_ebpf::{
    abi::VipKey,
    address::Address,
    flow::{Family, Flow},
    flow_table::{self, ENTRIES_PER_BUCKET, Remembered},
    reason::{Action, Reason},
    steer,
    track::{Event, FlowTable},
    wire::protocol::{TCP, UDP},
};
use tests::{
    fixture::{
        Fixture, PORT_DRAINED, PORT_MOVING, PORT_MOVING_GONE, PORT_MOVING_LATE,
        PORT_MOVING_UNRESOLVED, PORT_RING, VIP_V4, VIP_V6, backend,
    },
    object::{Object, Room, XdpAction},
    packet::{self, Addresses, Segment},
};

use crate::host::answer;

const CLIENT: [u8; 4] = [192, 0, 2, 7];
const TO_V4: Addresses = Addresses::V4(CLIENT, VIP_V4);
const TO_V6: Addresses = Addresses::V6(VIP_V6, VIP_V6);

const CURRENT: u16 = backend::V4;
const PREVIOUS: u16 = backend::V4_SECOND;

/// Room of the kernel's tables, where their size does not matter.
const ROOM: Room = Room {
    exceptions: 1024,
    flows: 1024,
};

/// Whether an exception was made in the move that is going on, or in an earlier one.
#[derive(Clone, Copy)]
enum Made {
    Now,
    Earlier,
}

/// One packet and what it meets.
struct Row {
    name: &'static str,
    frame: Vec<u8>,
    port: u16,
    protocol: u8,
    /// Owner of an exception that is there already, and when it was made.
    known: Option<(u16, Made)>,
    owner: u16,
    /// Owner of the exception that is there afterwards.
    left: Option<u16>,
    /// Whether the slot's mark says that previous had a packet.
    hit: bool,
    event: Option<Event>,
}

impl Row {
    fn flow(&self) -> Flow {
        let (family, source, destination) = if self.frame[12] == 0x86 {
            (Family::V6, Address::v6(VIP_V6), Address::v6(VIP_V6))
        } else {
            (Family::V4, Address::v4(CLIENT), Address::v4(VIP_V4))
        };
        steer::flow(
            family,
            (source, 4000),
            (destination, self.port),
            self.protocol,
        )
    }

    /// First slot of the ring: of rings of one slot, the slot.
    fn slot(&self, fixture: &Fixture) -> u32 {
        let flow = self.flow();
        fixture.vips[&VipKey::new(flow.destination, self.port, self.protocol)].ring_start
    }

    fn fixture(&self) -> Fixture {
        let fixture = Fixture::new();
        if let Some((owner, made)) = self.known {
            let since = fixture.marks[self.slot(&fixture) as usize].since;
            let tag = match made {
                Made::Now => since,
                Made::Earlier => since.wrapping_sub(1),
            };
            let seen_s = fixture.now_s;
            let known = Remembered { owner, tag, seen_s };
            let fingerprint = fixture.fingerprint(&self.flow());
            fixture.exceptions.borrow_mut().insert(fingerprint, known);
        }
        fixture
    }
}

fn rows() -> Vec<Row> {
    let tcp = |name, segment, to, port, known, owner, left, hit, event| Row {
        name,
        frame: packet::tcp(to, (4000, port), segment, b""),
        port,
        protocol: TCP,
        known,
        owner,
        left,
        hit,
        event,
    };
    let udp = |name, port, known, owner, left, hit, event| Row {
        name,
        frame: packet::udp(TO_V4, (4000, port), b""),
        port,
        protocol: UDP,
        known,
        owner,
        left,
        hit,
        event,
    };
    let (syn, ack) = (Segment::Syn, Segment::Ack);
    let (fresh, stale) = (Made::Now, Made::Earlier);
    let (insert, found) = (Some(Event::Insert), Some(Event::Hit));
    let (now, before) = (Some(CURRENT), Some(PREVIOUS));
    let (moving, late) = (PORT_MOVING, PORT_MOVING_LATE);
    let (gone, lost) = (PORT_MOVING_GONE, PORT_MOVING_UNRESOLVED);
    let known = |owner, made| Some((owner, made));
    let by = backend::V4;
    vec![
        tcp("SYN", syn, TO_V4, moving, None, by, now, false, insert),
        tcp("SYN v6", syn, TO_V6, moving, None, by, now, false, insert),
        tcp(
            "SYN of a pinned flow",
            syn,
            TO_V4,
            moving,
            known(PREVIOUS, fresh),
            by,
            now,
            false,
            insert,
        ),
        tcp(
            "ACK, unknown",
            ack,
            TO_V4,
            moving,
            None,
            PREVIOUS,
            before,
            true,
            insert,
        ),
        tcp(
            "ACK v6, unknown",
            ack,
            TO_V6,
            moving,
            None,
            PREVIOUS,
            before,
            true,
            insert,
        ),
        tcp(
            "ACK, new flow",
            ack,
            TO_V4,
            moving,
            known(CURRENT, fresh),
            by,
            now,
            false,
            found,
        ),
        tcp(
            "ACK, pinned",
            ack,
            TO_V4,
            moving,
            known(PREVIOUS, fresh),
            PREVIOUS,
            before,
            true,
            found,
        ),
        tcp(
            "ACK, of an earlier move",
            ack,
            TO_V4,
            moving,
            known(CURRENT, stale),
            PREVIOUS,
            before,
            true,
            insert,
        ),
        tcp(
            "ACK, of a third",
            ack,
            TO_V4,
            moving,
            known(backend::ELSEWHERE, fresh),
            PREVIOUS,
            before,
            true,
            insert,
        ),
        tcp(
            "ACK, previous gone",
            ack,
            TO_V4,
            gone,
            None,
            by,
            Some(backend::UNKNOWN),
            false,
            insert,
        ),
        tcp(
            "ACK, previous without next hop",
            ack,
            TO_V4,
            lost,
            None,
            by,
            Some(backend::UNRESOLVED),
            false,
            insert,
        ),
        tcp(
            "ACK, exception names one without next hop",
            ack,
            TO_V4,
            lost,
            known(backend::UNRESOLVED, fresh),
            by,
            Some(backend::UNRESOLVED),
            false,
            found,
        ),
        udp("UDP, unknown", moving, None, PREVIOUS, before, true, insert),
        udp(
            "UDP, pinned",
            moving,
            known(PREVIOUS, fresh),
            PREVIOUS,
            before,
            true,
            found,
        ),
        udp(
            "UDP, to current",
            moving,
            known(CURRENT, fresh),
            by,
            now,
            false,
            found,
        ),
        udp("UDP, unknown, late", late, None, by, None, false, None),
        udp(
            "UDP, pinned, late",
            late,
            known(PREVIOUS, fresh),
            PREVIOUS,
            before,
            true,
            found,
        ),
    ]
}

#[test]
fn the_host_answers_every_row() {
    for row in rows() {
        let fixture = row.fixture();
        let (outcome, _) = answer(&fixture, &row.frame);
        let owner = outcome.forwarded.map(|forwarded| forwarded.backend_id);
        assert_eq!(owner, Some(row.owner), "{}", row.name);
        let fingerprint = fixture.fingerprint(&row.flow());
        let left = fixture.exceptions.borrow();
        let left = left.get(&fingerprint).map(|exception| exception.owner);
        assert_eq!(left, row.left, "{}", row.name);
        assert_eq!(!fixture.hits.borrow().is_empty(), row.hit, "{}", row.name);
        for event in Event::ALL {
            let expected = u64::from(row.event == Some(*event));
            assert_eq!(fixture.event(*event), expected, "{}", row.name);
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
        let (action, sent) = object.run(&row.frame).unwrap();
        assert_eq!(action, XdpAction::Transmit, "{}", row.name);
        let host = row.fixture();
        assert_eq!(sent, answer(&host, &row.frame).1, "{}", row.name);
        let left = object.flows(FlowTable::Exceptions).unwrap();
        let left = left.get(&fixture.fingerprint(&row.flow()));
        assert_eq!(left.map(|left| left.owner), row.left, "{}", row.name);
        let slot = row.slot(&fixture);
        let mark = object.mark(slot).unwrap();
        assert_eq!(mark.since, fixture.marks[slot as usize].since);
        assert_eq!(mark.hit != mark.since, row.hit, "{}", row.name);
        for event in Event::ALL {
            let expected = u64::from(row.event == Some(*event));
            assert_eq!(
                object.event_count(*event).unwrap(),
                expected,
                "{}",
                row.name
            );
        }
    }
}

#[test]
fn a_settled_slot_leaves_no_trace() {
    if !crate::granted() {
        return;
    }
    let object = Object::balancer_within(&Fixture::new(), ROOM, u32::MAX).unwrap();
    for port in 1..=1000 {
        for segment in [Segment::Syn, Segment::Ack] {
            let frame = packet::tcp(TO_V4, (port, PORT_RING), segment, b"");
            assert_eq!(object.run(&frame).unwrap().0, XdpAction::Transmit);
        }
    }
    assert!(object.flows(FlowTable::Exceptions).unwrap().is_empty());
    for event in Event::ALL {
        assert_eq!(object.event_count(*event).unwrap(), 0);
    }
}

#[test]
fn over_budget_new_flows_go_to_current_and_others_to_previous_and_nothing_is_left() {
    if !crate::granted() {
        return;
    }
    for (segment, to) in [(Segment::Syn, CURRENT), (Segment::Ack, PREVIOUS)] {
        let fixture = Fixture::new();
        let object = Object::balancer_within(&fixture, ROOM, 0).unwrap();
        fixture.budget.set(0);
        let frame = packet::tcp(TO_V4, (4000, PORT_MOVING), segment, b"");
        let (outcome, expected) = answer(&fixture, &frame);
        assert_eq!(outcome.forwarded.unwrap().backend_id, to);
        assert_eq!(object.run(&frame).unwrap().1, expected);
        assert!(object.flows(FlowTable::Exceptions).unwrap().is_empty());
        assert_eq!(object.event_count(Event::OverBudget).unwrap(), 1);
        assert_eq!(fixture.event(Event::OverBudget), 1);
    }
}

#[test]
fn live_flows_take_half_of_the_budget_and_new_ones_the_rest() {
    if !crate::granted() {
        return;
    }
    const BUDGET: u32 = 10;
    let object = Object::balancer_within(&Fixture::new(), ROOM, BUDGET).unwrap();
    let send = |segment, ports: std::ops::Range<u16>| {
        for port in ports {
            let frame = packet::tcp(TO_V4, (port, PORT_MOVING), segment, b"");
            assert_eq!(object.run(&frame).unwrap().0, XdpAction::Transmit);
        }
    };
    // On one CPU and within one second. A second that begins in between gives new budget, and the
    // bounds allow for one such moment.
    let mut cpu = nix::sched::CpuSet::new();
    cpu.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpu).unwrap();
    send(Segment::Ack, 1..101);
    let made = object.event_count(Event::Insert).unwrap();
    assert!(made == 5 || made == 10, "{made}");
    send(Segment::Syn, 101..201);
    let made = object.event_count(Event::Insert).unwrap();
    assert!((10..=20).contains(&made), "{made}");
    assert_eq!(object.event_count(Event::OverBudget).unwrap(), 200 - made);
}

#[test]
fn a_full_table_forgets_and_never_grows() {
    if !crate::granted() {
        return;
    }
    let object = Object::balancer_within(&Fixture::new(), ROOM, u32::MAX).unwrap();
    let buckets = flow_table::buckets(ROOM.exceptions);
    let entries = buckets as usize * ENTRIES_PER_BUCKET;
    let flows = 20 * ROOM.exceptions as u16;
    for port in 1..=flows {
        let frame = packet::tcp(TO_V4, (port, PORT_MOVING), Segment::Syn, b"");
        assert_eq!(object.run(&frame).unwrap().0, XdpAction::Transmit);
    }
    assert_eq!(object.event_count(Event::Insert).unwrap(), u64::from(flows));
    assert_eq!(object.event_count(Event::InsertFailed).unwrap(), 0);
    let left = object.flows(FlowTable::Exceptions).unwrap();
    let evicted = object.event_count(Event::Evict).unwrap();
    // Each is there or counted.
    assert_eq!(left.len() as u64 + evicted, u64::from(flows));
    assert!(left.len() <= entries, "{}", left.len());
    // The newest flow is there.
    let fixture = Fixture::new();
    let client = (Address::v4(CLIENT), flows);
    let flow = steer::flow(Family::V4, client, (Address::v4(VIP_V4), PORT_MOVING), TCP);
    assert!(left.contains_key(&fixture.fingerprint(&flow)));
}

#[test]
fn a_slot_whose_last_backend_drains_keeps_its_flows_and_refuses_new_ones() {
    if !crate::granted() {
        return;
    }
    let fixture = Fixture::new();
    let object = Object::balancer_within(&fixture, ROOM, u32::MAX).unwrap();
    for (segment, owner) in [(Segment::Ack, Some(PREVIOUS)), (Segment::Syn, None)] {
        let frame = packet::tcp(TO_V4, (4000, PORT_DRAINED), segment, b"");
        let (outcome, _) = answer(&fixture, &frame);
        let to = outcome.forwarded.map(|forwarded| forwarded.backend_id);
        assert_eq!(to, owner);
        let action = object.run(&frame).unwrap().0;
        assert_eq!(action == XdpAction::Transmit, owner.is_some());
    }
    assert_eq!(object.reason_count(Reason::NoBackend).unwrap(), 1);
    assert_eq!(
        object.event_count(Event::Insert).unwrap(),
        1,
        "the live one"
    );
}

#[test]
fn a_slot_that_moves_drops_nothing() {
    let reasons: Vec<Reason> = rows()
        .iter()
        .map(|row| answer(&row.fixture(), &row.frame).0.reason)
        .collect();
    assert!(
        reasons
            .iter()
            .all(|reason| reason.action() == Action::Forward)
    );
}
