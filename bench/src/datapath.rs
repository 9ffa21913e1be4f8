//! ns per packet of the balancer, by forwarding mode, packet kind and number of flows.

use anyhow::Result;
use aya::programs::ProgramFd;
use lb_ebpf::{
    abi::{self, Forward, Tracking, forward, tracking},
    address::Address,
    flow::Family,
    wire::protocol::{TCP, UDP},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;
use tests::{
    fixture::{Fixture, MOVING_FOR_S, VIP_V4, VIP_V6, backend},
    object::{Object, Room},
    packet::{self, Addresses, Segment},
};

use crate::{harness::Harness, report::say};

/// Slots of the rings under test, but for those of many VIPs.
const RING_SIZE: usize = 65_537;
/// Slots of each ring where there are many VIPs.
const RING_SIZE_SMALL: usize = 251;
/// Of so many slots one moves, where slots move.
const MOVING_STEP: usize = 3;
/// Port of the first VIP under test.
const FIRST_PORT: u16 = 10_000;
/// Turns through floor and program; the least time of each counts.
const ROUNDS: usize = 7;
const FLOWS: [u32; 4] = [1, 1 << 16, 1 << 20, 1 << 22];

/// One line of the result.
#[derive(Serialize)]
pub(crate) struct Row {
    case: String,
    family: &'static str,
    mode: &'static str,
    packet: &'static str,
    flows: u32,
    /// VIPs that there are.
    vips: u32,
    /// VIPs that packets go to, in no order.
    vips_used: u32,
    backends: usize,
    /// Slots that move, in percent.
    moving: u32,
    /// The program under test with the harness.
    ns_per_packet: u64,
    /// Bare encapsulation with the harness.
    floor_ns: u64,
}

/// What is sent, and through what.
#[derive(Clone, Copy)]
struct Case {
    family: Family,
    mode: Forward,
    packet: &'static str,
    vips: u32,
    vips_used: u32,
    backends: usize,
    /// A third of the slots moves, and the flows on them are remembered.
    moving: bool,
    tracking: Tracking,
}

/// Runs all cases whose name contains `only`, and prints the table.
pub(crate) fn run(only: &str) -> Result<Vec<Row>> {
    pin_to_first_cpu()?;
    let mut harness = Harness::load()?;
    let mut rows = Vec::new();
    say("case                                           flows  ns/packet  floor  above floor");
    for case in cases().iter().filter(|case| case.name().contains(only)) {
        let object = Object::balancer_within(&case.fixture(), case.room(), u32::MAX)?;
        let program = object.xdp().fd()?.try_clone()?;
        for flows in FLOWS {
            rows.push(measure(&mut harness, &program, case, flows)?);
            rows.last().into_iter().for_each(print);
        }
    }
    Ok(rows)
}

/// Every mode, family and packet once, then one of them at other scales.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [forward::IPIP, forward::L2] {
        for family in [Family::V4, Family::V6] {
            for packet in ["tcp ack", "tcp syn", "udp"] {
                cases.push(Case {
                    family,
                    mode,
                    packet,
                    vips: 1,
                    vips_used: 1,
                    backends: 100,
                    moving: false,
                    tracking: tracking::MOVING,
                });
            }
        }
    }
    let common = cases[0];
    cases.extend([
        Case {
            moving: true,
            ..common
        },
        Case {
            tracking: tracking::FULL,
            ..common
        },
        Case {
            backends: 10,
            ..common
        },
        Case {
            backends: 4000,
            ..common
        },
        Case {
            vips: 10_000,
            ..common
        },
        Case {
            vips: 10_000,
            vips_used: 10_000,
            ..common
        },
    ]);
    cases
}

impl Case {
    fn name(&self) -> String {
        let (mode, family, packet) = (self.mode_name(), self.family_name(), self.packet);
        format!(
            "{mode} {family} {packet}, {}/{} vips, {} backends{}",
            self.vips_used,
            self.vips,
            self.backends,
            match (self.moving, self.tracking) {
                (true, _) => ", 1/3 moving",
                (_, tracking::FULL) => ", full tracking",
                _ => "",
            }
        )
    }

    /// Room for a third of the most flows where slots move, for all of them where all are tracked.
    fn room(&self) -> Room {
        const FLOWS: u32 = 1 << 22;
        Room {
            exceptions: if self.moving { FLOWS / 2 } else { 1 },
            flows: if self.tracking == tracking::FULL {
                FLOWS
            } else {
                1
            },
        }
    }

    fn mode_name(&self) -> &'static str {
        if self.mode == forward::L2 {
            "l2"
        } else {
            "ipip"
        }
    }

    fn family_name(&self) -> &'static str {
        if self.family == Family::V4 {
            "v4"
        } else {
            "v6"
        }
    }

    /// Bytes that the program puts in front.
    fn growth(&self) -> u32 {
        match (self.mode, self.family) {
            (forward::L2, _) => 0,
            (_, Family::V4) => 20,
            (_, Family::V6) => 40,
        }
    }

    fn frame(&self) -> Vec<u8> {
        let addresses = match self.family {
            Family::V4 => Addresses::V4([198, 18, 0, 0], VIP_V4),
            Family::V6 => Addresses::V6([0x20; 16], VIP_V6),
        };
        let ports = (1, FIRST_PORT);
        match self.packet {
            "tcp syn" => packet::tcp(addresses, ports, Segment::Syn, &[0; 6]),
            "tcp ack" => packet::tcp(addresses, ports, Segment::Ack, &[0; 6]),
            _ => packet::udp(addresses, ports, &[0; 18]),
        }
    }

    fn fixture(&self) -> Fixture {
        let mut fixture = Fixture::new();
        let (address, model) = match self.family {
            Family::V4 => (Address::v4(VIP_V4), backend::V4),
            Family::V6 => (Address::v6(VIP_V6), backend::V6),
        };
        let ids = fixture.add_backends(model, self.backends);
        let size = if self.vips == 1 {
            RING_SIZE
        } else {
            RING_SIZE_SMALL
        };
        // Neighbouring slots have different owners, as in a Maglev ring.
        let ring: Vec<u16> = (0..size).map(|slot| ids[slot * 7919 % ids.len()]).collect();
        let protocol = if self.packet == "udp" { UDP } else { TCP };
        for number in 0..self.vips {
            let port = FIRST_PORT + number as u16;
            let start = fixture.slots.len();
            fixture.add_vip(address, port, protocol, self.mode, &ring);
            fixture.track(port, self.tracking);
            if self.moving {
                fixture.moves(start, MOVING_STEP, ids[0], MOVING_FOR_S);
            }
        }
        fixture
    }
}

/// The test run happens on the calling CPU, and its counters are that CPU's.
fn pin_to_first_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// The least of several runs, floor and program in turn: noise only ever adds.
fn measure(harness: &mut Harness, program: &ProgramFd, case: &Case, flows: u32) -> Result<Row> {
    let frame = case.frame();
    let word = |at: usize| u16::from_ne_bytes([frame[2 * at], frame[2 * at + 1]]);
    let (source_at, port_at) = if case.family == Family::V4 {
        (26, 34)
    } else {
        (34, 54)
    };
    let settings = abi::Harness {
        flow_mask: flows - 1,
        source: 0xc612_0000,
        source_at,
        port_at,
        vips: case.vips_used,
        first_port: u32::from(FIRST_PORT),
        frame_len: frame.len() as u32,
        growth: case.growth(),
        ethernet: std::array::from_fn(word),
        reserved: [0; 2],
    };
    let floor = harness.floor(case.growth())?;
    let (mut ns_per_packet, mut floor_ns) = (u64::MAX, u64::MAX);
    for _ in 0..ROUNDS {
        floor_ns = floor_ns.min(harness.time(&floor, settings, &frame)?);
        ns_per_packet = ns_per_packet.min(harness.time(program, settings, &frame)?);
    }
    Ok(Row {
        case: case.name(),
        family: case.family_name(),
        mode: case.mode_name(),
        packet: case.packet,
        flows,
        vips: case.vips,
        vips_used: case.vips_used,
        backends: case.backends,
        moving: if case.moving { 33 } else { 0 },
        ns_per_packet,
        floor_ns,
    })
}

fn print(row: &Row) {
    let above = row.ns_per_packet.saturating_sub(row.floor_ns);
    say(&format!(
        "{:<44} {:>7} {:>10} {:>6} {:>12}",
        row.case, row.flows, row.ns_per_packet, row.floor_ns, above
    ));
}
