//! The packet logic on the host: needs no rights at all.

use lb_ebpf::{datapath, frame::Buffer, reason::Reason};
use tests::{
    cases::{self, without_flow_label},
    fixture::Fixture,
};

/// Room in front of a packet, as a driver leaves it.
const HEADROOM: usize = 256;

/// What the host makes of a frame.
pub(crate) fn answer(fixture: &Fixture, frame: &[u8]) -> (datapath::Outcome, Vec<u8>) {
    let mut bytes = [&[0; HEADROOM], frame].concat();
    let mut buffer = Buffer::new(&mut bytes, HEADROOM);
    let outcome = datapath::run(&mut buffer, fixture);
    (outcome, buffer.packet().to_vec())
}

#[test]
fn every_case_of_the_table_is_answered() {
    let fixture = Fixture::new();
    for case in cases::all() {
        let (outcome, sent) = answer(&fixture, &case.frame);
        assert_eq!(outcome.reason, case.reason, "{}", case.name);
        let expected = case.sent.unwrap_or(case.frame);
        assert_eq!(
            without_flow_label(sent),
            without_flow_label(expected),
            "{}",
            case.name
        );
    }
}

#[test]
fn the_table_reaches_every_reason_that_a_packet_can_reach() {
    // Needs a shorter frame than the kernel's test run takes, no headroom, or a broken object.
    let elsewhere = [Reason::NoHeadroom, Reason::TableMissing];
    let cases = cases::all();
    for reason in Reason::ALL {
        let reached = cases.iter().any(|case| case.reason == *reason);
        assert_ne!(reached, elsewhere.contains(reason), "{}", reason.name());
    }
}

#[test]
fn without_headroom_a_packet_is_dropped_as_it_is() {
    let fixture = Fixture::new();
    let cases = cases::all();
    let case = cases
        .iter()
        .find(|case| case.reason == Reason::ForwardedIpip)
        .unwrap();
    let mut bytes = [&[0; 19][..], &case.frame].concat();
    let mut buffer = Buffer::new(&mut bytes, 19);
    assert_eq!(
        datapath::run(&mut buffer, &fixture).reason,
        Reason::NoHeadroom
    );
    assert_eq!(buffer.packet(), case.frame);
}
