//! A packet that looks whether the table it sees is one table.
//!
//! It finds its VIP as the balancer does, in the balancer's own pinned maps, and then reads slots all
//! over the ring. Whoever publishes makes rings whose slots are all alike, and says in the VIP whose
//! they are ([`watched::owner`]): a slot that differs, from the others or from the VIP, belongs to
//! another table.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, xdp_action},
    helpers::bpf_get_prandom_u32,
    macros::{map, xdp},
    maps::{Array, PerCpuArray},
    programs::XdpContext,
};
use lb_ebpf::{
    abi::{RingCell, SLOTS_PER_CELL, Slot, Vip, VipCell, VipKey, watched},
    parse::parse,
    vip_table,
};

use crate::frame::XdpFrame;

/// Cells, two slots each, that a packet reads: one in each cache line of a ring of 65 537 slots. It is
/// in flight for some 10 µs, longer than other packets by far.
const SAMPLES: u64 = 4096;

/// The balancer's: the loader opens what is pinned instead of making a map.
#[map]
static VIPS: Array<VipCell> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The balancer's, too.
#[map]
static RINGS: Array<RingCell> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Cells of `VIPS` minus one. Read-only to the program.
#[unsafe(no_mangle)]
static VIP_CELL_MASK: Global<u32> = Global::new(0);

/// Packets by what they saw, one of [`watched`].
#[map]
static WATCHED: PerCpuArray<u64> = PerCpuArray::with_max_entries(watched::KINDS, 0);

#[xdp]
fn watch_table(context: XdpContext) -> u32 {
    let seen = watch(&XdpFrame::new(&context));
    if let Some(count) = WATCHED.get_ptr_mut(seen) {
        // SAFETY: the element is this CPU's own, and a program is not preempted by another instance
        // of itself on the same CPU.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}

#[inline(always)]
fn watch(frame: &XdpFrame<'_>) -> u32 {
    let Ok(parsed) = parse(frame) else {
        return watched::ABSENT;
    };
    let key = VipKey {
        address: parsed.flow.destination,
        port: parsed.flow.destination_port,
        protocol: parsed.flow.protocol,
        reserved: [0; 5],
    };
    match vip_table::find(&key, VIP_CELL_MASK.load(), |index| VIPS.get(index)) {
        Some(vip) if vip.ring_size >= SLOTS_PER_CELL => walk(&vip),
        _ => watched::ABSENT,
    }
}

/// Reads cells at even distances over the whole ring, elsewhere each time. (The last slot of an odd
/// number shares its cell with nobody and is left out.)
#[inline(always)]
fn walk(vip: &Vip) -> u32 {
    let (start, cells) = (
        vip.ring_start / SLOTS_PER_CELL,
        vip.ring_size / SLOTS_PER_CELL,
    );
    // SAFETY: the helper takes nothing and returns a number.
    let first = unsafe { bpf_get_prandom_u32() } % cells;
    let Some(one) = RINGS.get(start + first) else {
        return watched::ABSENT;
    };
    let expected = Slot {
        current: watched::owner(vip.hash),
        previous: one.slots[0].previous,
    };
    // Put together without a branch: the verifier follows but so many of them.
    let mut difference = 0;
    for sample in 0..SAMPLES {
        let step = (sample * u64::from(cells) + u64::from(first)) / SAMPLES;
        let Some(cell) = RINGS.get(start + step as u32) else {
            return watched::ABSENT;
        };
        for slot in cell.slots {
            difference |= slot.current ^ expected.current;
            difference |= slot.previous ^ expected.previous;
        }
    }
    if difference == 0 {
        watched::WHOLE
    } else {
        watched::MIXED
    }
}
