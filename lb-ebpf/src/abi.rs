//! The contract between the kernel programs and user space: map names, keys, values, limits.
//!
//! Everything here is `repr(C)` without hidden padding, and its size is asserted at compile time.
//! Multi-byte fields that travel in packets are kept as byte arrays in network order, so that no
//! side has to remember to swap them. Change anything and [`VERSION`] must change too: the agent
//! refuses to adopt pinned maps of another version.

mod harness;
mod key;
mod limit;
mod stats;
mod value;

pub use harness::{Harness, watched};
pub use key::{AddressKey, VipKey};
pub use limit::{
    BACKENDS_MAX, EXCEPTIONS_MAX, FLOWS_MAX, INSERTS_PER_SECOND_MAX, RING_SIZE_MAX, RING_SLOTS_MAX,
    SLOTS_PER_CELL, VIPS_MAX,
};
pub use stats::Counts;
pub use value::{
    Backend, Budget, Egress, Forward, HashKind, Hop, Mark, MarkCell, RingCell, Settings, Slot,
    Tracking, Vip, VipCell, cell_state, forward, hash_kind, tracking,
};

/// Version of this contract. Kept in [`Settings::version`] and checked before maps are re-adopted.
pub const VERSION: u32 = 5;

/// Names of the maps in the `balancer` object, as the loader and `bpftool` see them.
pub mod map {
    /// `Array<Settings>` of one element.
    pub const SETTINGS: &str = "SETTINGS";
    /// `Array<VipCell>`: the hash table of [`vip_table`](crate::vip_table), a power of two of cells.
    pub const VIPS: &str = "VIPS";
    /// `Array<RingCell>`, mmap-able: all rings of all VIPs, two slots to a cell.
    pub const RINGS: &str = "RINGS";
    /// `Array<MarkCell>`, mmap-able: the life of each slot that moves, at the slot's own index.
    pub const MARKS: &str = "MARKS";
    /// `Array<FlowBucket>`, mmap-able: the [`flow_table`](crate::flow_table) of slots that move, a
    /// power of two of buckets.
    pub const EXCEPTIONS: &str = "EXCEPTIONS";
    /// `Array<FlowBucket>`, mmap-able: the flow table of VIPs with full tracking, a power of two of
    /// buckets.
    pub const FLOWS: &str = "FLOWS";
    /// `PerCpuArray<Budget>` of one element: exceptions made in this second.
    pub const BUDGET: &str = "BUDGET";
    /// `PerCpuArray<u64>`: what happened on slots that move, by
    /// [`Event`](crate::track::Event).
    pub const TRACK_COUNTS: &str = "TRACK_COUNTS";
    /// `Array<Backend>`, indexed by backend id; id 0 is never a backend.
    pub const BACKENDS: &str = "BACKENDS";
    /// `PerCpuArray<u64>`: packets by [`Reason`](crate::reason::Reason).
    pub const REASON_COUNTS: &str = "REASON_COUNTS";
    /// `PerCpuArray<Counts>`: packets and bytes by VIP id.
    pub const VIP_COUNTS: &str = "VIP_COUNTS";
    /// `PerCpuArray<Counts>`: packets and bytes by backend id.
    pub const BACKEND_COUNTS: &str = "BACKEND_COUNTS";

    /// `HashMap<AddressKey, u32>` of the `decap` object: tunnel addresses of this host.
    pub const TUNNELS: &str = "TUNNELS";
    /// `PerCpuArray<u64>` of the `decap` object: packets by
    /// [`DecapReason`](crate::decap::DecapReason).
    pub const DECAP_COUNTS: &str = "DECAP_COUNTS";
}

/// Names of the read-only globals that the loader sets.
pub mod global {
    /// `u32`: cells of the VIP table minus one.
    pub const VIP_CELL_MASK: &str = "VIP_CELL_MASK";
    /// `u32`: buckets of `EXCEPTIONS` minus one.
    pub const EXCEPTION_BUCKET_MASK: &str = "EXCEPTION_BUCKET_MASK";
    /// `u32`: buckets of `FLOWS` minus one.
    pub const FLOW_BUCKET_MASK: &str = "FLOW_BUCKET_MASK";
    /// `u32`: exceptions that one CPU may make in a second.
    pub const INSERTS_PER_SECOND: &str = "INSERTS_PER_SECOND";
}

/// Names of the programs in the objects.
pub mod program {
    /// The XDP program of the balancer.
    pub const BALANCER: &str = "weir_balancer";
    /// The XDP program of backend hosts that strips the tunnel header.
    pub const DECAP: &str = "weir_decap";
}
