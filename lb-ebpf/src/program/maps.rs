//! The balancer's maps; `lb_ebpf::abi` says what they hold. The agent may resize them.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use lb_ebpf::{
    abi::{
        BACKENDS_MAX, Backend, Counts, RING_SLOTS_MAX, RingCell, SLOTS_PER_CELL, Settings,
        VIPS_MAX, Vip, VipKey,
    },
    reason::REASONS,
};

#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

// Not preallocated: a preallocated element is reused at once when it is replaced, so a reader
// could see half of a new value; these are freed after a grace period. Twice the VIPs, since each
// may have an address of its own and so an address entry.
#[map]
pub(crate) static VIPS: HashMap<VipKey, Vip> =
    HashMap::with_max_entries(2 * VIPS_MAX, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static RINGS: Array<RingCell> =
    Array::with_max_entries(RING_SLOTS_MAX / SLOTS_PER_CELL, BPF_F_MMAPABLE);

#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(BACKENDS_MAX, 0);

#[map]
pub(crate) static REASON_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);

#[map]
pub(crate) static VIP_COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(VIPS_MAX, 0);

#[map]
pub(crate) static BACKEND_COUNTS: PerCpuArray<Counts> =
    PerCpuArray::with_max_entries(BACKENDS_MAX, 0);
