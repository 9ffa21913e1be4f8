//! ns per packet of the balancer, by forwarding mode, packet kind and number of flows.

use anyhow::Result;
use aya::programs::ProgramFd;
use lb_ebpf::{
    abi::{self, forward},
    address::Address,
    wire::protocol::{TCP, UDP},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;
use tests::{
    fixture::{Fixture, VIP_V4, VIP_V6, backend},
    object::Object,
    packet::{self, Addresses, Segment},
};

use crate::{harness::Harness, report::say};

/// Slots of the ring under test.
const RING_SIZE: usize = 65_537;
/// Port of the VIPs under test that tunnel.
const PORT_IPIP: u16 = 7001;
/// Port of the VIPs under test that rewrite MAC addresses.
const PORT_L2: u16 = 7002;
/// Turns through all cases; the least time of each counts.
const ROUNDS: usize = 7;
const FLOWS: [u32; 3] = [1, 1 << 16, 1 << 20];

/// One line of the result.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    flows: u32,
    /// The program under test with the harness.
    ns_per_packet: u64,
    /// Bare encapsulation with the harness.
    floor_ns: u64,
}

struct Case {
    name: &'static str,
    frame: Vec<u8>,
    growth: u32,
    source_at: u32,
    port_at: u32,
}

/// Runs all cases and prints the table.
pub(crate) fn run(only: &str) -> Result<Vec<Row>> {
    pin_to_first_cpu()?;
    let mut harness = Harness::load()?;
    let object = Object::balancer(&fixture())?;
    let program = object.xdp().fd()?.try_clone()?;
    let mut rows = Vec::new();
    for case in cases().iter().filter(|case| case.name.contains(only)) {
        for flows in FLOWS {
            rows.push(measure(&mut harness, &program, case, flows)?);
        }
    }
    print(&rows);
    Ok(rows)
}

/// The test run happens on the calling CPU, and its counters are that CPU's.
fn pin_to_first_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    for (address, id) in [
        (Address::v4(VIP_V4), backend::V4),
        (Address::v6(VIP_V6), backend::V6),
    ] {
        let ring = vec![id; RING_SIZE];
        for protocol in [TCP, UDP] {
            fixture.add_vip(address, PORT_IPIP, protocol, forward::IPIP, &ring);
        }
        fixture.add_vip(address, PORT_L2, TCP, forward::L2, &ring);
    }
    fixture
}

fn cases() -> Vec<Case> {
    let v4 = Addresses::V4([198, 18, 0, 0], VIP_V4);
    let v6 = Addresses::V6([0x20; 16], VIP_V6);
    let of_v4 = |name, frame, growth| Case {
        name,
        frame,
        growth,
        source_at: 26,
        port_at: 34,
    };
    let of_v6 = |name, frame, growth| Case {
        name,
        frame,
        growth,
        source_at: 34,
        port_at: 54,
    };
    let tcp = |addresses, port, segment| packet::tcp(addresses, (1, port), segment, &[0; 6]);
    let udp = |addresses| packet::udp(addresses, (1, PORT_IPIP), &[0; 18]);
    vec![
        of_v4("ipip v4 tcp ack", tcp(v4, PORT_IPIP, Segment::Ack), 20),
        of_v4("ipip v4 tcp syn", tcp(v4, PORT_IPIP, Segment::Syn), 20),
        of_v4("ipip v4 udp", udp(v4), 20),
        of_v6("ipip v6 tcp ack", tcp(v6, PORT_IPIP, Segment::Ack), 40),
        of_v6("ipip v6 udp", udp(v6), 40),
        of_v4("l2 v4 tcp ack", tcp(v4, PORT_L2, Segment::Ack), 0),
        of_v6("l2 v6 tcp ack", tcp(v6, PORT_L2, Segment::Ack), 0),
    ]
}

/// The least of several runs, floor and program in turn: noise only ever adds.
fn measure(harness: &mut Harness, program: &ProgramFd, case: &Case, flows: u32) -> Result<Row> {
    let word = |at: usize| u16::from_ne_bytes([case.frame[2 * at], case.frame[2 * at + 1]]);
    let ethernet = std::array::from_fn(word);
    let settings = abi::Harness {
        flow_mask: flows - 1,
        source: 0xc612_0000,
        source_at: case.source_at,
        port_at: case.port_at,
        frame_len: case.frame.len() as u32,
        growth: case.growth,
        ethernet,
        reserved: [0; 2],
    };
    let floor = harness.floor(case.growth)?;
    let (mut ns_per_packet, mut floor_ns) = (u64::MAX, u64::MAX);
    for _ in 0..ROUNDS {
        floor_ns = floor_ns.min(harness.time(&floor, settings, &case.frame)?);
        ns_per_packet = ns_per_packet.min(harness.time(program, settings, &case.frame)?);
    }
    Ok(Row {
        case: case.name,
        flows,
        ns_per_packet,
        floor_ns,
    })
}

fn print(rows: &[Row]) {
    say("case               flows  ns/packet  floor  above floor");
    for row in rows {
        let above = row.ns_per_packet.saturating_sub(row.floor_ns);
        say(&format!(
            "{:<16} {:>8} {:>10} {:>6} {:>12}",
            row.case, row.flows, row.ns_per_packet, row.floor_ns, above
        ));
    }
}
