//! The maps as [`Tables`].

use core::{arch::asm, sync::atomic::AtomicU64};

use aya_ebpf::{helpers::bpf_ktime_get_coarse_ns, maps::Array};
use lb_ebpf::{
    abi::{Egress, Mark, MarkCell, SLOTS_PER_CELL, Settings, Slot, Vip, VipKey},
    flow_table::{self, Buckets, FlowBucket, Put, Remembered},
    steer::Tables,
    track::{Event, FlowTable, FlowTables},
    vip_table,
};

use crate::maps;

/// The BPF maps, read in place.
pub(crate) struct MapTables;

impl Tables for MapTables {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<Vip> {
        vip_table::find(key, maps::VIP_CELL_MASK.load(), |index| {
            maps::VIPS.get(index)
        })
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        let cell = maps::RINGS.get_ptr(index / SLOTS_PER_CELL)?.cast::<u32>();
        // SAFETY: a cell is two words, each of them a slot. One load, so that a slot is never seen
        // half written.
        let word = unsafe { cell.add((index % SLOTS_PER_CELL) as usize).read_volatile() };
        Some(Slot::from_word(word))
    }

    #[inline(always)]
    fn backend(&self, id: u16) -> Option<Egress> {
        maps::BACKENDS.get(u32::from(id))?.egress()
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl FlowTables for MapTables {
    #[inline(always)]
    fn now_s(&self) -> u32 {
        // It lags behind the agent's clock by a tick at most, and costs a fifth of the exact one.
        // SAFETY: the helper takes nothing and returns a number.
        (unsafe { bpf_ktime_get_coarse_ns() } / NANOS_PER_SECOND) as u32
    }

    #[inline(always)]
    fn mark(&self, index: u32) -> Option<Mark> {
        // SAFETY: `mark_at` points to an element of the map; the race is as in `note_hit`.
        mark_at(index).map(|mark| unsafe { mark.read_volatile() })
    }

    #[inline(always)]
    fn note_hit(&self, index: u32, now: u16) {
        if let Some(mark) = mark_at(index) {
            // SAFETY: `mark_at` points to an element of the map. CPUs race to store the same
            // second, 16 bits at a time, which cannot tear.
            unsafe { (&raw mut (*mark).hit).write_volatile(now) };
        }
    }

    #[inline(always)]
    fn recall(&self, table: FlowTable, fingerprint: u64, now_s: u32) -> Option<Remembered> {
        flow_table::find(fingerprint, Some(now_s), &buckets(table))
    }

    #[inline(always)]
    fn remember(&self, table: FlowTable, fingerprint: u64, new: Remembered, live_s: u32) -> Put {
        flow_table::put(fingerprint, new, live_s, &buckets(table))
    }

    #[inline(always)]
    fn spend(&self, now_s: u32, divisor: u32) -> bool {
        let Some(budget) = maps::BUDGET.get_ptr_mut(0) else {
            return false;
        };
        // SAFETY: the element is this CPU's own, and a program is not preempted by another
        // instance of itself on the same CPU.
        let budget = unsafe { &mut *budget };
        if budget.second != now_s {
            budget.second = now_s;
            budget.spent = 0;
        }
        let left = budget.spent < maps::INSERTS_PER_SECOND.load() / divisor;
        budget.spent += u32::from(left);
        left
    }

    #[inline(always)]
    fn count(&self, event: Event) {
        if let Some(count) = maps::TRACK_COUNTS.get_ptr_mut(event as u32) {
            // SAFETY: as in `spend`.
            unsafe { *count += 1 };
        }
    }
}

#[inline(always)]
fn mark_at(index: u32) -> Option<*mut Mark> {
    let cell: *mut MarkCell = maps::MARKS.get_ptr_mut(index / SLOTS_PER_CELL)?;
    // SAFETY: only computes an address within the element.
    Some(unsafe {
        (&raw mut (*cell).marks)
            .cast::<Mark>()
            .add((index % SLOTS_PER_CELL) as usize)
    })
}

/// A flow table in a map.
struct MapBuckets {
    map: &'static Array<FlowBucket>,
    mask: u32,
}

#[inline(always)]
fn buckets(table: FlowTable) -> MapBuckets {
    match table {
        FlowTable::Exceptions => MapBuckets {
            map: &maps::EXCEPTIONS,
            mask: maps::EXCEPTION_BUCKET_MASK.load(),
        },
        FlowTable::Flows => MapBuckets {
            map: &maps::FLOWS,
            mask: maps::FLOW_BUCKET_MASK.load(),
        },
    }
}

impl Buckets for MapBuckets {
    #[inline(always)]
    fn mask(&self) -> u32 {
        self.mask
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&FlowBucket> {
        self.map.get(index)
    }

    #[inline(always)]
    fn load(&self, word: &AtomicU64) -> u64 {
        // SAFETY: valid for as long as it is borrowed; eight aligned bytes are read at once.
        unsafe { word.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, word: &AtomicU64, value: u64) {
        // SAFETY: as in `load`.
        unsafe { word.as_ptr().write_volatile(value) }
    }

    #[inline(always)]
    fn exchange(&self, word: &AtomicU64, from: u64, to: u64) -> bool {
        compare_exchange(word, from, to)
    }
}

/// `BPF_ATOMIC | BPF_CMPXCHG` (RFC 9669, 5.3): register 0 is compared, and gets what was there.
#[inline(always)]
fn compare_exchange(word: &AtomicU64, from: u64, to: u64) -> bool {
    let found: u64;
    // SAFETY: the word is aligned and valid for as long as it is borrowed, and atomic; nothing but
    // it and register 0 is written.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {to})",
            word = in(reg) word.as_ptr(),
            to = in(reg) to,
            inlateout("r0") from => found,
            options(nostack),
        );
    }
    found == from
}
