//! The test bed itself: before anything is concluded from it, it must carry packets.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::client::{Client, inside};
use tests::host::Host;
use tests::network::{MTU_EDGE_BYTES, MTU_TUNNEL_BYTES, Network};
use tests::process::Process;
use tests::service::WhoAmI;
use tests::{binaries, cleanup};

use crate::flow::{Connection, any_source, ask_by_udp};
use crate::stage::{Family, PORT, VIP_V4, VIP_V6, start_echo};

const READY: Duration = Duration::from_secs(60);

#[test]
fn hosts_reach_each_other_over_both_families() {
    if !crate::granted() {
        return;
    }
    let mut network = Network::new("reach").unwrap();
    let client = network.attach("client", MTU_EDGE_BYTES).unwrap();
    let server = network.attach("users-1", MTU_TUNNEL_BYTES).unwrap();
    let mut service = start_service(&server);

    let near = client.addresses();
    for (own, peer) in [
        (IpAddr::from(near.v4), IpAddr::from(server.addresses().v4)),
        (IpAddr::from(near.v6), IpAddr::from(server.addresses().v6)),
    ] {
        let there = Client::new(SocketAddr::new(peer, 8080), "api.example.com");
        let answer: WhoAmI = service
            .wait_ready("an answer", READY, || {
                inside(&client, || there.once("/whoami")).ok()
            })
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(answer.instance, "users-1");
        assert_eq!(
            answer.peer.ip(),
            own,
            "the fabric routes, it does not translate"
        );
    }
}

#[test]
fn hosts_of_a_lan_share_a_link_layer_and_hosts_beside_it_do_not() {
    if !crate::granted() {
        return;
    }
    let mut network = Network::new("lan").unwrap();
    let client = network.attach("client", MTU_EDGE_BYTES).unwrap();
    let lan = network.attach_lan(&["one", "two"], MTU_EDGE_BYTES).unwrap();
    let [one, two] = lan.as_slice() else {
        panic!("two hosts were asked for")
    };

    for host in [one, &client] {
        let closed = SocketAddr::new(two.addresses().v4.into(), 9);
        let refused = host
            .namespace()
            .enter(|| TcpStream::connect(closed))
            .unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::ConnectionRefused,
            "from {}",
            host.name()
        );
        let neighbours = host.run("ip", &["neigh", "show"]).unwrap();
        let direct = neighbours.contains(&format!("{} dev", two.addresses().v4));
        assert_eq!(
            direct,
            host.name() == "one",
            "{}: {neighbours}",
            host.name()
        );
    }
}

#[test]
fn a_host_that_holds_the_vip_answers_from_it() {
    if !crate::granted() {
        return;
    }
    let mut network = Network::new("vip").unwrap();
    let client = network.attach("client", MTU_EDGE_BYTES).unwrap();
    let server = network.attach("backend-1", MTU_TUNNEL_BYTES).unwrap();
    network.route_vip(VIP_V4, VIP_V6, &server).unwrap();
    server.hold_vip(VIP_V4, VIP_V6).unwrap();
    let mut echo = start_echo(&server);

    for family in [Family::V4, Family::V6] {
        let vip = SocketAddr::new(family.vip(), PORT);
        let mut connection = echo
            .wait_ready("a greeting", READY, || Connection::open(&client, vip).ok())
            .unwrap();
        assert_eq!(connection.backend, "backend-1");
        assert_eq!(connection.exchange(b"hello").unwrap(), b"hello");
        connection.close().unwrap();
        let name = inside(&client, || ask_by_udp(any_source(vip), vip, b"hello"));
        assert_eq!(name.unwrap(), "backend-1");
    }
}

#[test]
fn a_dropped_bed_leaves_nothing() {
    if !crate::granted() {
        return;
    }
    let mut network = Network::new("gone").unwrap();
    let server = network.attach("users-1", MTU_EDGE_BYTES).unwrap();
    let service = start_service(&server);
    let directory = network.directory().to_owned();
    let namespace = Path::new(cleanup::NAMESPACE_DIRECTORY).join(server.namespace().name());
    let process = Path::new("/proc").join(service.pid().to_string());
    for path in [&directory, &namespace, &process] {
        assert!(path.exists(), "{}", path.display());
    }

    drop((service, server, network));

    for path in [&directory, &namespace, &process] {
        assert!(!path.exists(), "{}", path.display());
    }
}

fn start_service(host: &Host) -> Process {
    let mut command = Command::new(binaries::path("weir-service").unwrap());
    command.args(["http", "--service", "users", "--instance", host.name()]);
    command.args(["--listen", "[::]:8080"]);
    host.start("service", command).unwrap()
}
