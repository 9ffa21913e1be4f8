//! Packets reach a backend in every mode, over both families and protocols, and answers come back.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tests::client::inside;

use crate::flow::{Connection, any_source, ask_by_udp};
use crate::stage::{Family, Mode, PORT, Stage};

/// Flows per case: that one of two backends gets none of them happens once in 2^31 runs.
const FLOWS: usize = 32;

/// More than the receive window at first, so that full packets pass the tunnel.
const TCP_PAYLOAD_BYTES: usize = 200_000;

/// With the name before it the answer still fits the client's MTU.
const UDP_PAYLOAD_BYTES: usize = 1_200;

#[test]
fn l2_reaches_backends_on_the_same_link() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("l2", Mode::L2, 2);
    let cases = [
        ("v4", Family::V4, Family::V4),
        ("v6", Family::V6, Family::V6),
    ];
    forward(&mut stage, "l2", &cases);
}

#[test]
fn ipip_reaches_backends_through_every_tunnel() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("ipip", Mode::Ipip, 2);
    // VIP and tunnel may be of different families, but one VIP has one kind of tunnel.
    let same = [
        ("v4-in-v4", Family::V4, Family::V4),
        ("v6-in-v6", Family::V6, Family::V6),
    ];
    forward(&mut stage, "ipip", &same);
    drop(stage);
    let mut stage = Stage::new("ipip-x", Mode::Ipip, 2);
    let crossed = [
        ("v4-in-v6", Family::V4, Family::V6),
        ("v6-in-v4", Family::V6, Family::V4),
    ];
    forward(&mut stage, "ipip", &crossed);
}

/// Each case is a name, the family of the VIP and the family of the backends' addresses.
fn forward(stage: &mut Stage, mode: &'static str, cases: &[(&'static str, Family, Family)]) {
    let mut vips = Vec::new();
    for &(name, inner, outer) in cases {
        let address = SocketAddr::new(inner.vip(), PORT);
        for protocol in ["tcp", "udp"] {
            let name = Box::leak(format!("{name}-{protocol}").into_boxed_str());
            vips.push(stage.vip(name, address, protocol, mode, outer));
        }
    }
    stage.start(&vips);
    for vip in &vips {
        let names: BTreeSet<String> = (0..FLOWS)
            .map(|number| match vip.protocol {
                "tcp" => by_tcp(stage, vip.address, number),
                _ => by_udp(stage, vip.address, number),
            })
            .collect();
        let expected = BTreeSet::from(["backend-1".to_owned(), "backend-2".to_owned()]);
        assert_eq!(names, expected, "{}", vip.name);
    }
    accounted(stage);
}

fn by_tcp(stage: &Stage, vip: SocketAddr, number: usize) -> String {
    let mut connection = Connection::open(&stage.client, vip).unwrap();
    let payload: Vec<u8> = (0..TCP_PAYLOAD_BYTES)
        .map(|byte| ((byte + number) % 251) as u8)
        .collect();
    for piece in payload.chunks(50_000) {
        assert_eq!(connection.exchange(piece).unwrap(), piece, "{vip}");
    }
    let name = connection.backend.clone();
    connection.close().unwrap();
    name
}

fn by_udp(stage: &Stage, vip: SocketAddr, number: usize) -> String {
    let payload = vec![number as u8; UDP_PAYLOAD_BYTES];
    inside(&stage.client, || ask_by_udp(any_source(vip), vip, &payload)).unwrap()
}

/// Every packet has one reason, none of ours was dropped, and the agent finds nothing amiss.
fn accounted(stage: &Stage) {
    // Doctor's exit code tells of failures.
    stage.balancer.weir(&["doctor"]).unwrap();
    let stats = stage.balancer.stats().unwrap();
    let by_reason: u64 = stats.reasons.iter().map(|reason| reason.packets).sum();
    assert_eq!(by_reason, stats.packets, "{stats:#?}");
    let dropped: Vec<_> = stats
        .reasons
        .iter()
        .filter(|reason| reason.action == "drop" && reason.packets > 0)
        .collect();
    assert!(dropped.is_empty(), "{dropped:#?}");
}
