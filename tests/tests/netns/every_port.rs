//! A VIP with port 0 takes every port that no other VIP of the address names.

use std::net::SocketAddr;

use tests::client::inside;

use crate::flow::{Connection, any_source, ask_by_udp};
use crate::stage::{Family, Mode, OTHER_PORTS, PORT, Stage, VIP_V4, VIP_V6};

#[test]
fn port_zero_is_every_port_but_those_named() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("ports", Mode::Ipip, 2);
    let any = |name, vip, protocol, family| {
        stage.vip(name, SocketAddr::new(vip, 0), protocol, "ipip", family)
    };
    let mut named = stage.tunnel_vip("named", "tcp");
    named.backends.retain(|backend| backend.name == "backend-2");
    let vips = [
        any("any-tcp4", VIP_V4.into(), "tcp", Family::V4),
        any("any-udp4", VIP_V4.into(), "udp", Family::V4),
        any("any-tcp6", VIP_V6.into(), "tcp", Family::V6),
        named,
    ];
    stage.start(&vips);

    for vip in [Family::V4.vip(), Family::V6.vip()] {
        for port in OTHER_PORTS {
            let open = |_| Connection::open(&stage.client, SocketAddr::new(vip, port)).unwrap();
            let mut names: Vec<String> = (0..32).map(open).map(|one| one.backend).collect();
            names.sort();
            names.dedup();
            assert_eq!(names, ["backend-1", "backend-2"], "{vip} port {port}");
        }
    }
    let datagram = SocketAddr::new(VIP_V4.into(), OTHER_PORTS[0]);
    let name = inside(&stage.client, || {
        ask_by_udp(any_source(datagram), datagram, b"hello")
    });
    assert!(name.unwrap().starts_with("backend-"));

    // The VIP that names the port has backend-2 alone, and it wins.
    let exact = SocketAddr::new(VIP_V4.into(), PORT);
    for _ in 0..32 {
        assert_eq!(
            Connection::open(&stage.client, exact).unwrap().backend,
            "backend-2"
        );
    }
}
