//! The packets that are counted, what is in the maps when they come, and what must become of them.
//!
//! A packet that takes another way than its case says would be counted as something else; so the
//! programs' own counters are checked after each run.
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lb_ebpf::abi::{forward, map, program};
use lb_ebpf::decap::DecapReason;
use lb_ebpf::flow::Family;
use lb_ebpf::reason::Reason;
use lb_ebpf::track::Event;

use super::contents::{self, State};
use super::machine::{Machine, Run};
use super::object::{Function, Object};
use super::packet::{self, Payload};

use super::{Objects, helper};

pub(super) use self::tracking::TRACKING;
use self::tracking::{NOTHING, Tracking};

mod tracking;

// `enum xdp_action`.
const PASS: u64 = 2;
const TX: u64 = 3;
const ETHERNET_BYTES: usize = 14;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// One line of the table: what a kind of packet costs.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) program: &'static str,
    /// `v4`, `v6`, or nothing.
    pub(super) family: &'static str,
    /// What happens to the packet: `l2`, `ipip`, `reply`, `decap`, `pass`, or nothing.
    pub(super) mode: &'static str,
    pub(super) packet: &'static str,
    /// What the balancer remembers: one of [`TRACKING`], or nothing.
    pub(super) tracking: &'static str,
    /// Executed instructions; a call of a helper is one.
    pub(super) instructions: u64,
    /// Calls of helpers among them, by name.
    pub(super) helpers: BTreeMap<String, u64>,
    /// How often each slot of the object's code was executed.
    pub(super) visits: Vec<u64>,
}

impl Row {
    /// Its parts as one line: `weir_balancer v4 l2 tcp-ack settled`.
    pub(super) fn name(&self) -> String {
        let parts = [
            self.program,
            self.family,
            self.mode,
            self.packet,
            self.tracking,
        ];
        let named = parts.into_iter().filter(|part| !part.is_empty());
        named.collect::<Vec<_>>().join(" ")
    }

    /// Calls of helpers.
    pub(super) fn helper_calls(&self) -> u64 {
        self.helpers.values().sum()
    }
}

/// All rows.
pub(super) fn rows(objects: &Objects) -> Result<Vec<Row>> {
    let object = |name: &str| {
        let object = objects.get(name);
        object.with_context(|| format!("no object `{name}`"))
    };
    let (balancer, decap) = (object("balancer")?, object("decap")?);
    let mut rows = forwarded(balancer)?;
    rows.extend(not_forwarded(balancer)?);
    rows.extend(decapsulated(decap)?);
    rows.extend(floors(object("harness")?)?);
    Ok(rows)
}

/// A packet and what must become of it.
struct Case {
    program: &'static str,
    family: &'static str,
    mode: &'static str,
    packet: &'static str,
    tracking: &'static str,
    frame: Vec<u8>,
    action: u64,
    /// Bytes that the frame gains.
    growth: i64,
}

impl Case {
    /// Runs the case and makes sure that it ends as it should. Returns the packet, too.
    fn run(self, machine: &mut Machine<'_>, object: &Object) -> Result<(Row, Vec<u8>)> {
        let function = program_of(object, self.program)?;
        let run = machine.run(function, &self.frame)?;
        let row = self.row(&run);
        let name = row.name();
        let growth = run.packet.len() as i64 - self.frame.len() as i64;
        ensure!(
            (run.action, growth) == (self.action, self.growth),
            "{name}: XDP action {}, {growth} bytes gained; {} and {} expected",
            run.action,
            self.action,
            self.growth
        );
        Ok((row, run.packet))
    }

    fn row(&self, run: &Run) -> Row {
        let helpers = run.helpers.iter();
        Row {
            program: self.program,
            family: self.family,
            mode: self.mode,
            packet: self.packet,
            tracking: self.tracking,
            instructions: run.instructions(),
            helpers: helpers
                .map(|(number, calls)| (helper::name(*number), *calls))
                .collect(),
            visits: run.visits.clone(),
        }
    }
}

fn forwarded(object: &Object) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        for mode in [forward::L2, forward::IPIP] {
            for payload in Payload::FLOWS {
                for tracking in &TRACKING {
                    rows.push(forward_one(object, family, mode, payload, tracking)?);
                }
            }
        }
    }
    Ok(rows)
}

fn forward_one(
    object: &Object,
    family: Family,
    mode: u8,
    payload: Payload,
    tracking: &Tracking,
) -> Result<Row> {
    let (name, reason, growth) = match mode {
        forward::L2 => ("l2", Reason::ForwardedL2, 0),
        _ => ("ipip", Reason::ForwardedIpip, outer_bytes(family)),
    };
    let mut machine = balancer(object, family, mode, payload, tracking.state)?;
    let frame = packet_to_vip(family, payload);
    if tracking.is_known {
        machine.run(program_of(object, program::BALANCER)?, &frame)?;
    }
    let before = events(&machine)?;
    let case = Case {
        program: program::BALANCER,
        family: family_name(family),
        mode: name,
        packet: payload.name(),
        tracking: tracking.name,
        frame: frame.clone(),
        action: TX,
        growth,
    };
    let (row, packet) = case.run(&mut machine, object)?;
    let opens = payload == Payload::TcpSyn;
    let packets = 1 + u64::from(tracking.is_known);
    ensure_counted(&machine, &row, reason, packets)?;
    let owner = if tracking.state.moves && !opens {
        contents::PREVIOUS
    } else {
        contents::CURRENT
    };
    let by_owner = contents::count(&machine, map::BACKEND_COUNTS, u32::from(owner))?;
    let is_addressed = is_addressed(&packet, &frame, family, owner);
    ensure!(
        by_owner == packets && is_addressed,
        "{}: it does not go to backend {owner}",
        row.name()
    );
    let expected = if opens {
        tracking.opens
    } else {
        tracking.other
    };
    ensure_happened(&row, &before, &events(&machine)?, expected)?;
    Ok(row)
}

/// The packet has the next hop's MAC addresses, the backend's address in the tunnel header, if there
/// is one, and behind all that what came in.
fn is_addressed(packet: &[u8], frame: &[u8], family: Family, owner: u16) -> bool {
    let address = contents::backend_address(family, owner).to_bytes();
    let address_bytes = match family {
        Family::V4 => 4,
        Family::V6 => 16,
    };
    let tunnel_end = packet.len() - frame.len() + ETHERNET_BYTES;
    let is_tunnelled = tunnel_end > ETHERNET_BYTES;
    packet.starts_with(&contents::HOP_MACS.concat())
        && packet[tunnel_end..] == frame[ETHERNET_BYTES..]
        && (!is_tunnelled || packet[..tunnel_end].ends_with(&address[16 - address_bytes..]))
}

fn not_forwarded(object: &Object) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        let other = packet::address(family, &contents::OTHER_V4, &contents::OTHER_V6);
        let ack = Payload::TcpAck;
        let echo = Payload::EchoRequest;
        let frames = [
            (
                "pass",
                ack,
                packet::to(family, other, ack),
                PASS,
                Reason::NotVip,
            ),
            (
                "reply",
                echo,
                packet_to_vip(family, echo),
                TX,
                Reason::EchoReplied,
            ),
        ];
        for (mode, payload, frame, action, reason) in frames {
            let mut machine = balancer(object, family, forward::L2, payload, NOTHING)?;
            let case = Case {
                program: program::BALANCER,
                family: family_name(family),
                mode,
                packet: payload.name(),
                tracking: "",
                frame,
                action,
                growth: 0,
            };
            let (row, _) = case.run(&mut machine, object)?;
            ensure_counted(&machine, &row, reason, 1)?;
            rows.push(row);
        }
    }
    let mut machine = balancer(object, Family::V4, forward::L2, Payload::TcpAck, NOTHING)?;
    let arp = simple(program::BALANCER, "pass", "arp", packet::arp(), PASS);
    let (row, _) = arp.run(&mut machine, object)?;
    ensure_counted(&machine, &row, Reason::NotIp, 1)?;
    rows.push(row);
    Ok(rows)
}

fn decapsulated(object: &Object) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        let ack = Payload::TcpAck;
        let tunnel = packet::address(family, &contents::TUNNEL_V4, &contents::TUNNEL_V6);
        let vip = packet::address(family, &contents::VIP_V4, &contents::VIP_V6);
        let cases = [
            (
                "decap",
                packet::tunnelled(family, tunnel, vip, ack),
                -outer_bytes(family),
                DecapReason::Decapsulated,
            ),
            (
                "pass",
                packet::to(family, vip, ack),
                0,
                DecapReason::NotTunnel,
            ),
        ];
        for (mode, frame, growth, reason) in cases {
            let mut machine = machine(object)?;
            contents::open_tunnel(&mut machine, family)?;
            let case = Case {
                family: family_name(family),
                growth,
                ..simple(program::DECAP, mode, ack.name(), frame, PASS)
            };
            let (row, _) = case.run(&mut machine, object)?;
            let counted = contents::count(&machine, map::DECAP_COUNTS, reason as u32)?;
            ensure!(counted == 1, "{}: not {}", row.name(), reason.name());
            rows.push(row);
        }
    }
    Ok(rows)
}

/// What the benches compare with: programs that do next to nothing.
fn floors(object: &Object) -> Result<Vec<Row>> {
    let floors = [
        ("null_tx", Family::V4, 0),
        ("encap_only_20", Family::V4, 20),
        ("encap_only_40", Family::V6, 40),
    ];
    let run = |(program, family, growth)| {
        let frame = packet_to_vip(family, Payload::TcpAck);
        let case = Case {
            growth,
            ..simple(program, "", Payload::TcpAck.name(), frame, TX)
        };
        Ok(case.run(&mut machine(object)?, object)?.0)
    };
    floors.into_iter().map(run).collect()
}

fn simple(
    program: &'static str,
    mode: &'static str,
    packet: &'static str,
    frame: Vec<u8>,
    action: u64,
) -> Case {
    Case {
        program,
        family: "",
        mode,
        packet,
        tracking: "",
        frame,
        action,
        growth: 0,
    }
}

fn machine(object: &Object) -> Result<Machine<'_>> {
    let now_ns = u64::from(contents::NOW_S) * NANOS_PER_SECOND;
    Machine::new(object, contents::INGRESS, now_ns)
}

fn balancer(
    object: &Object,
    family: Family,
    mode: u8,
    payload: Payload,
    state: State,
) -> Result<Machine<'_>> {
    let mut machine = machine(object)?;
    contents::fill(&mut machine, family, mode, payload.protocol(family), state)?;
    Ok(machine)
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

/// Bytes of a tunnel header.
fn outer_bytes(family: Family) -> i64 {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

fn packet_to_vip(family: Family, payload: Payload) -> Vec<u8> {
    let vip = packet::address(family, &contents::VIP_V4, &contents::VIP_V6);
    packet::to(family, vip, payload)
}

fn program_of<'a>(object: &'a Object, name: &str) -> Result<&'a Function> {
    let program = object.program(name);
    program.with_context(|| format!("the object has no program `{name}`"))
}

/// Every packet so far was counted under `reason`.
fn ensure_counted(machine: &Machine<'_>, row: &Row, reason: Reason, packets: u64) -> Result<()> {
    for other in Reason::ALL {
        let counted = contents::count(machine, map::REASON_COUNTS, *other as u32)?;
        let expected = if *other == reason { packets } else { 0 };
        ensure!(
            counted == expected,
            "{}: {counted} packets counted as {}, {expected} expected",
            row.name(),
            other.name()
        );
    }
    Ok(())
}

fn events(machine: &Machine<'_>) -> Result<Vec<u64>> {
    let count = |event: &Event| contents::count(machine, map::TRACK_COUNTS, *event as u32);
    Event::ALL.iter().map(count).collect()
}

fn ensure_happened(row: &Row, before: &[u64], after: &[u64], expected: &[Event]) -> Result<()> {
    for (event, (before, after)) in Event::ALL.iter().zip(before.iter().zip(after)) {
        let times = u64::from(expected.contains(event));
        ensure!(
            after - before == times,
            "{}: event {} happened {} times, {times} expected",
            row.name(),
            event.name(),
            after - before
        );
    }
    Ok(())
}
