//! `weir explain` and the weights, held against where real flows went.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures_util::{StreamExt, TryStreamExt, stream};
use lb_userspace::api::client::Client;
use lb_userspace::api::types::{ExplainQuery, Explanation};
use lb_userspace::config::Protocol;
use tests::client::{inside, runtime};

use crate::flow::ask_by_udp;
use crate::stage::{Mode, PORT, Stage, VIP_V4};

const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(VIP_V4), PORT);

/// Flows: five source addresses with two thousand source ports each.
const FLOWS: usize = 10_000;
const SOURCES: u8 = 5;
const PORTS: u16 = 2_000;
const FIRST_PORT: u16 = 20_000;

/// How many of them wait for their answers at a time.
const AT_ONCE: usize = 64;

/// Every so many flows the command line is asked too, which must say what the socket says.
const COMMAND_LINE_EVERY: usize = 1_000;

#[test]
fn explain_names_the_backend_of_ten_thousand_real_flows() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("explain", Mode::Ipip, 3);
    let mut vip = stage.tunnel_vip("web", "udp");
    vip.backends[2].weight = 200;
    stage.start(&[vip]);
    let sources = sources(&stage);

    let answered = flows(&stage, &sources).unwrap();

    assert_eq!(answered.len(), FLOWS);
    assert_eq!(disagreements(&stage, &answered), Vec::<String>::new());
    counted(&stage, &answered);
    spread(&answered);
}

/// Gives the client four more addresses.
fn sources(stage: &Stage) -> Vec<SocketAddr> {
    let [a, b, c, _] = stage.client.addresses().v4.octets();
    let addresses: Vec<Ipv4Addr> = (0..SOURCES)
        .map(|number| Ipv4Addr::new(a, b, c, 100 + number))
        .collect();
    for address in &addresses {
        stage
            .client
            .ip(&format!("addr add {address}/24 dev eth0"))
            .unwrap();
    }
    let ports = FIRST_PORT..FIRST_PORT + PORTS;
    let of_port = |port| {
        addresses
            .iter()
            .map(move |&one| SocketAddr::new(one.into(), port))
    };
    ports.flat_map(of_port).collect()
}

/// One datagram per flow; an answer that does not come is an error, not a reason to ask again.
fn flows(stage: &Stage, sources: &[SocketAddr]) -> io::Result<BTreeMap<SocketAddr, String>> {
    let ask = async |source| Ok((source, ask_by_udp(source, VIP, b"where am I?").await?));
    inside(&stage.client, || async {
        stream::iter(sources)
            .map(|&source| ask(source))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    })
}

fn disagreements(stage: &Stage, answered: &BTreeMap<SocketAddr, String>) -> Vec<String> {
    let agent = Client::new(stage.balancer.socket());
    let runtime = runtime();
    let mut disagreements = Vec::new();
    for (number, (source, backend)) in answered.iter().enumerate() {
        let explained = runtime.block_on(agent.explain(&query(*source))).unwrap();
        if explained.backend.as_ref().map(|one| &one.name) != Some(backend) {
            disagreements.push(format!("{source} went to {backend}, but {explained:?}"));
        }
        if number % COMMAND_LINE_EVERY == 0 {
            let arguments = ["explain", &source.to_string(), &format!("{VIP}/udp")];
            let said: Explanation = stage.balancer.weir_json(&arguments).unwrap();
            assert_eq!(
                said, explained,
                "the command line is a client of the socket"
            );
        }
    }
    disagreements
}

fn query(source: SocketAddr) -> ExplainQuery {
    ExplainQuery {
        source: source.ip(),
        source_port: source.port(),
        address: VIP.ip(),
        port: VIP.port(),
        protocol: Protocol::Udp,
    }
}

/// The counters of the data plane know every datagram, and whose it was.
fn counted(stage: &Stage, answered: &BTreeMap<SocketAddr, String>) {
    let stats = stage.balancer.stats().unwrap();
    let [vip] = stats.vips.as_slice() else {
        panic!("one VIP was configured: {stats:#?}")
    };
    assert_eq!(vip.packets, FLOWS as u64);
    for backend in &vip.backends {
        let went = answered
            .values()
            .filter(|name| **name == backend.name)
            .count();
        assert_eq!(backend.packets, went as u64, "{}", backend.name);
    }
}

/// Weights 1, 1 and 2: the flows are 2500, 2500 and 5000, give or take five standard deviations
/// of fair dice (43 and 50).
fn spread(answered: &BTreeMap<SocketAddr, String>) {
    for (name, expected, tolerance) in [
        ("backend-1", 2_500, 217),
        ("backend-2", 2_500, 217),
        ("backend-3", 5_000, 250),
    ] {
        let went = answered.values().filter(|one| *one == name).count();
        assert!(
            went.abs_diff(expected) <= tolerance,
            "{name} got {went} flows, not {expected}"
        );
    }
}
