//! The balancer: each forwarding mode.

use tests::{
    fixture::{Fixture, PORT_IPIP_V4, VIP_V4},
    object::{Object, XdpAction},
    packet::{self, Addresses, Segment},
};

#[test]
fn forwards() {
    if !crate::granted() {
        return;
    }
    let object = Object::balancer(&Fixture::new()).unwrap();
    let frame = packet::tcp(
        Addresses::V4([192, 0, 2, 7], VIP_V4),
        (4000, PORT_IPIP_V4),
        Segment::Syn,
        b"hello",
    );
    let (action, out) = object.run(&frame).unwrap();
    assert_eq!(action, XdpAction::Transmit);
    assert_eq!(out.len(), frame.len() + 20);
}
