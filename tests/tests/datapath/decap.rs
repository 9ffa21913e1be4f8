//! The decapsulator in the kernel.

use lb_ebpf::{abi::map, address::Address, decap::DecapReason};
use tests::{
    cases,
    fixture::v6,
    object::{Object, XdpAction},
};

fn object() -> Object {
    Object::decap(&[Address::v4([10, 0, 0, 2]), Address::v6(v6(2))]).expect("the object loads")
}

fn count(object: &Object, reason: DecapReason) -> u64 {
    object
        .per_cpu::<u64>(map::DECAP_COUNTS, reason as u32)
        .expect("every reason has a counter")
        .iter()
        .sum()
}

#[test]
fn what_the_balancer_sends_comes_apart() {
    if !crate::granted() {
        return;
    }
    let object = object();
    let mut opened = 0;
    for case in cases::all() {
        let Some(sent) = case.sent else { continue };
        let growth = sent.len() - case.frame.len();
        let is_tagged = sent[12..14] == [0x81, 0] || sent[12..14] == [0x88, 0xa8];
        let to_us = case.name != cases::ELSEWHERE_NAME;
        let (action, received) = object.run(&sent).unwrap();
        assert_eq!(action, XdpAction::Pass, "{}", case.name);
        if growth == 0 || is_tagged || !to_us {
            assert_eq!(received, sent, "{}", case.name);
            continue;
        }
        opened += 1;
        assert_eq!(received[..12], sent[..12], "{}", case.name);
        assert_eq!(received[12..], case.frame[12..], "{}", case.name);
    }
    assert!(opened >= 7, "the table has a tunnel of each kind");
    assert_eq!(count(&object, DecapReason::Decapsulated), opened);
}

#[test]
fn a_broken_inner_packet_is_dropped_and_counted() {
    if !crate::granted() {
        return;
    }
    let object = object();
    let cases = cases::all();
    let sent = cases.iter().find_map(|case| match case.name {
        "4 in 4, TCP SYN" => case.sent.clone(),
        _ => None,
    });
    let sent = sent.unwrap();
    let mut wrong_version = sent.clone();
    wrong_version[34] = 0x65;
    for frame in [sent[..50].to_vec(), wrong_version] {
        assert_eq!(object.run(&frame).unwrap().0, XdpAction::Drop);
    }
    assert_eq!(count(&object, DecapReason::InnerInvalid), 2);
}
