//! The balancer's maps; `lb_ebpf::abi` says what they hold. The agent may resize them.
//!
//! Arrays whose elements are cache lines are mmap-able even where nobody maps them: the kernel lays
//! such an array out from the beginning of a page, any other one 16 bytes off a line
//! (`array_map_alloc`, kernel/bpf/arraymap.c), where each element would straddle two.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, PerCpuArray},
};
use lb_ebpf::{
    abi::{
        BACKENDS_MAX, Backend, Budget, Counts, EXCEPTIONS_MAX, FLOWS_MAX, INSERTS_PER_SECOND_MAX,
        MarkCell, RING_SLOTS_MAX, RingCell, SLOTS_PER_CELL, Settings, VIPS_MAX, VipCell,
    },
    flow_table::{self, FlowBucket},
    reason::REASONS,
    track::EVENTS,
    vip_table,
};

#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static VIPS: Array<VipCell> =
    Array::with_max_entries(vip_table::cells(VIPS_MAX), BPF_F_MMAPABLE);

/// Cells of `VIPS` minus one. Read-only to the program: the verifier sees a constant.
#[unsafe(no_mangle)]
pub(crate) static VIP_CELL_MASK: Global<u32> = Global::new(vip_table::cells(VIPS_MAX) - 1);

#[map]
pub(crate) static RINGS: Array<RingCell> =
    Array::with_max_entries(RING_SLOTS_MAX / SLOTS_PER_CELL, BPF_F_MMAPABLE);

#[map]
pub(crate) static MARKS: Array<MarkCell> =
    Array::with_max_entries(RING_SLOTS_MAX / SLOTS_PER_CELL, BPF_F_MMAPABLE);

#[map]
pub(crate) static EXCEPTIONS: Array<FlowBucket> =
    Array::with_max_entries(flow_table::buckets(EXCEPTIONS_MAX), BPF_F_MMAPABLE);

/// Buckets of `EXCEPTIONS` minus one. Read-only to the program.
#[unsafe(no_mangle)]
pub(crate) static EXCEPTION_BUCKET_MASK: Global<u32> =
    Global::new(flow_table::buckets(EXCEPTIONS_MAX) - 1);

#[map]
pub(crate) static FLOWS: Array<FlowBucket> =
    Array::with_max_entries(flow_table::buckets(FLOWS_MAX), BPF_F_MMAPABLE);

/// Buckets of `FLOWS` minus one. Read-only to the program.
#[unsafe(no_mangle)]
pub(crate) static FLOW_BUCKET_MASK: Global<u32> = Global::new(flow_table::buckets(FLOWS_MAX) - 1);

#[map]
pub(crate) static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);

/// Exceptions that a CPU may make in a second. Read-only to the program.
#[unsafe(no_mangle)]
pub(crate) static INSERTS_PER_SECOND: Global<u32> = Global::new(INSERTS_PER_SECOND_MAX);

#[map]
pub(crate) static TRACK_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(EVENTS, 0);

#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(BACKENDS_MAX, BPF_F_MMAPABLE);

#[map]
pub(crate) static REASON_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);

#[map]
pub(crate) static VIP_COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(VIPS_MAX, 0);

#[map]
pub(crate) static BACKEND_COUNTS: PerCpuArray<Counts> =
    PerCpuArray::with_max_entries(BACKENDS_MAX, 0);
