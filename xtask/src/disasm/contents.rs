//! What is in the maps: a balancer with one VIP, in the layout of `lb_ebpf::abi`.
//!
//! Every structure is taken apart by name, so that a change of the contract stops the compiler
//! here.
use anyhow::{Context, Result};
use lb_ebpf::abi::{
    Backend, Forward, Hop, Mark, MarkCell, RingCell, Settings, Slot, Tracking, VERSION, VIPS_MAX,
    Vip, VipCell, VipKey, cell_state, forward, hash_kind, map, tracking,
};
use lb_ebpf::address::{Address, Mac};
use lb_ebpf::flow::Family;
use lb_ebpf::flow_table::ENTRIES_PER_BUCKET;
use lb_ebpf::vip_table;

use super::machine::Machine;
use super::packet::PORT;

/// Whom packets come from.
pub(super) const CLIENT_V4: [u8; 4] = [198, 51, 100, 7];
/// Whom packets come from, by IPv6.
pub(super) const CLIENT_V6: [u8; 16] = v6(0x77);
/// Where they go.
pub(super) const VIP_V4: [u8; 4] = [203, 0, 113, 10];
/// Where they go, by IPv6.
pub(super) const VIP_V6: [u8; 16] = v6(0x10);
/// Addresses of no VIP.
pub(super) const OTHER_V4: [u8; 4] = [203, 0, 113, 99];
/// Addresses of no VIP, by IPv6.
pub(super) const OTHER_V6: [u8; 16] = v6(0x99);
/// The end of tunnels.
pub(super) const TUNNEL_V4: [u8; 4] = [10, 0, 0, 11];
/// The end of tunnels, by IPv6.
pub(super) const TUNNEL_V6: [u8; 16] = v6(0x0b);
/// Interface that packets come in and leave through.
pub(super) const INGRESS: u32 = 2;
/// Seconds of the monotonic clock.
pub(super) const NOW_S: u32 = 1_000_000;
/// The next hop of all backends, and the interface towards it.
pub(super) const HOP_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0x0b], [2, 0, 0, 0, 0, 0x0a]];
/// The owner of the VIP's slot.
pub(super) const CURRENT: u16 = 1;
/// Its earlier owner, if the slot moves.
pub(super) const PREVIOUS: u16 = 2;

/// The VIP's one slot: not the first, so that an index that is forgotten is noticed.
const RING_START: u32 = 8;
const VIP_ID: u32 = 3;
const MOVING_FOR_S: u32 = 10;
const QUIET_S: u32 = 60;

const fn v6(last: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    [bytes[0], bytes[1], bytes[2], bytes[3]] = [0x20, 0x01, 0x0d, 0xb8];
    bytes[15] = last;
    bytes
}

/// What is special about the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Its slot moves.
    pub(super) moves: bool,
    /// Every flow is remembered.
    pub(super) tracks: bool,
    /// Both flow tables are full of other flows, all of them live.
    pub(super) is_full: bool,
}

/// Fills the balancer's maps.
pub(super) fn fill(
    machine: &mut Machine<'_>,
    family: Family,
    forward: Forward,
    protocol: u8,
    state: State,
) -> Result<()> {
    machine.set(map::SETTINGS, &key(0), &settings())?;
    let address = match family {
        Family::V4 => Address::v4(VIP_V4),
        Family::V6 => Address::v6(VIP_V6),
    };
    let vip = Vip {
        ring_start: RING_START,
        ring_size: 1,
        id: VIP_ID,
        forward,
        hash: hash_kind::FIVE_TUPLE,
        tracking: tracking_of(state),
        reserved: 0,
    };
    add_vip(machine, VipKey::new(address, PORT, protocol), vip)?;
    let entry = Vip {
        forward: forward::ADDRESS,
        ..Vip::default()
    };
    add_vip(machine, VipKey::address_entry(address), entry)?;
    add_slot(machine, state)?;
    for id in [CURRENT, PREVIOUS] {
        let address = backend_address(family, id);
        machine.set(
            map::BACKENDS,
            &key(u32::from(id)),
            &backend(address, family),
        )?;
    }
    if state.is_full {
        for flows in [map::EXCEPTIONS, map::FLOWS] {
            machine.fill(flows, &full_bucket())?;
        }
    }
    Ok(())
}

/// Where backend `id` is.
pub(super) fn backend_address(family: Family, id: u16) -> Address {
    let last = 10 + id as u8;
    match family {
        Family::V4 => Address::v4([10, 0, 0, last]),
        Family::V6 => Address::v6(v6(last)),
    }
}

/// Makes an address an end of tunnels, in the map of the decapsulation program.
pub(super) fn open_tunnel(machine: &mut Machine<'_>, family: Family) -> Result<()> {
    let address = match family {
        Family::V4 => Address::v4(TUNNEL_V4),
        Family::V6 => Address::v6(TUNNEL_V6),
    };
    machine.set(map::TUNNELS, &address.to_bytes(), &1_u32.to_le_bytes())
}

/// The counter `index` of an array of 64-bit counters.
pub(super) fn count(machine: &Machine<'_>, map: &str, index: u32) -> Result<u64> {
    let value = machine.value(map, &key(index))?;
    let bytes = value.and_then(|value| value.first_chunk());
    let bytes = bytes.with_context(|| format!("map {map} has no counter {index}"))?;
    Ok(u64::from_le_bytes(*bytes))
}

fn tracking_of(state: State) -> Tracking {
    if state.tracks {
        tracking::FULL
    } else {
        tracking::MOVING
    }
}

fn add_vip(machine: &mut Machine<'_>, vip_key: VipKey, vip: Vip) -> Result<()> {
    let mask = vip_table::cells(VIPS_MAX) - 1;
    for index in vip_table::run(&vip_key, mask) {
        let cell = machine.value(map::VIPS, &key(index))?;
        if cell.is_some_and(|cell| cell.iter().all(|byte| *byte == 0)) {
            // The second generation, the one that takes an instruction more to find.
            let cell = VipCell {
                key: vip_key,
                generations: [Vip::default(), vip],
                state: cell_state::LIVE_SECOND,
                reserved: 0,
            };
            return machine.set(map::VIPS, &key(index), &vip_cell(&cell));
        }
    }
    anyhow::bail!("the VIP table has no room for {vip_key:?}")
}

fn add_slot(machine: &mut Machine<'_>, state: State) -> Result<()> {
    let moving = Slot {
        current: CURRENT,
        previous: PREVIOUS,
    };
    let slot = if state.moves {
        moving
    } else {
        Slot::settled(CURRENT)
    };
    let slots = [slot, Slot::default()];
    let marks = [Mark::begun((NOW_S - MOVING_FOR_S) as u16), Mark::default()];
    let cell = key(RING_START / 2);
    machine.set(map::RINGS, &cell, &ring_cell(&RingCell { slots }))?;
    machine.set(map::MARKS, &cell, &mark_cell(&MarkCell { marks }))
}

fn key(index: u32) -> [u8; 4] {
    index.to_le_bytes()
}

fn settings() -> Vec<u8> {
    let Settings {
        hash_key: [first, second],
        source_v6,
        source_v4,
        version,
        quiet_s,
    } = Settings {
        hash_key: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
        source_v6: Address::v6(v6(0x01)),
        source_v4: Address::v4([10, 0, 0, 1]),
        version: VERSION,
        quiet_s: QUIET_S,
    };
    [
        &first.to_le_bytes()[..],
        &second.to_le_bytes(),
        &source_v6.to_bytes(),
        &source_v4.to_bytes(),
        &version.to_le_bytes(),
        &quiet_s.to_le_bytes(),
    ]
    .concat()
}

fn vip_cell(cell: &VipCell) -> Vec<u8> {
    let VipCell {
        key:
            VipKey {
                address,
                port,
                protocol,
                reserved: key_reserved,
            },
        generations: [first, second],
        state,
        reserved,
    } = cell;
    [
        &address.to_bytes()[..],
        &port.to_le_bytes(),
        &[*protocol],
        key_reserved,
        &vip_value(first),
        &vip_value(second),
        &state.to_le_bytes(),
        &reserved.to_le_bytes(),
    ]
    .concat()
}

fn vip_value(vip: &Vip) -> Vec<u8> {
    let Vip {
        ring_start,
        ring_size,
        id,
        forward,
        hash,
        tracking,
        reserved,
    } = vip;
    [
        &ring_start.to_le_bytes()[..],
        &ring_size.to_le_bytes(),
        &id.to_le_bytes(),
        &[*forward, *hash, *tracking, *reserved],
    ]
    .concat()
}

fn ring_cell(cell: &RingCell) -> Vec<u8> {
    let words = cell.slots.map(|slot| {
        let Slot { current, previous } = slot;
        [current.to_le_bytes(), previous.to_le_bytes()].concat()
    });
    words.concat()
}

fn mark_cell(cell: &MarkCell) -> Vec<u8> {
    let words = cell.marks.map(|mark| {
        let Mark { since, hit } = mark;
        [since.to_le_bytes(), hit.to_le_bytes()].concat()
    });
    words.concat()
}

fn backend(address: Address, family: Family) -> Vec<u8> {
    let hop = Hop::new(Mac::new(HOP_MACS[0]), Mac::new(HOP_MACS[1]), INGRESS);
    let Backend {
        address,
        hops: [first, second],
        live,
        family,
        mtu,
        reserved,
    } = Backend {
        address,
        hops: [Hop::default(), hop],
        live: 1,
        family: family as u8,
        mtu: 1500,
        reserved: [0; 12],
    };
    [
        &address.to_bytes()[..],
        &hop_value(first),
        &hop_value(second),
        &[live, family],
        &mtu.to_le_bytes(),
        &reserved,
    ]
    .concat()
}

fn hop_value(hop: Hop) -> Vec<u8> {
    let Hop { link, ifindex } = hop;
    let [a, b, c] = link.map(u32::to_le_bytes);
    [a, b, c, ifindex.to_le_bytes()].concat()
}

/// A bucket of flows that nobody asks for, all of them seen just now: fingerprint, then owner, tag
/// and time of the last packet.
fn full_bucket() -> Vec<u8> {
    let entry = |number: usize| {
        let fingerprint = 0x1000 + number as u64;
        [
            &fingerprint.to_le_bytes()[..],
            &CURRENT.to_le_bytes(),
            &0_u16.to_le_bytes(),
            &NOW_S.to_le_bytes(),
        ]
        .concat()
    };
    (0..ENTRIES_PER_BUCKET).flat_map(entry).collect()
}
