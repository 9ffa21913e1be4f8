//! Default and hard limits of the tables. The loader may resize maps below the hard limits.

/// VIPs, by default; ids run from 0 to this minus one. Hard limit 65 536.
pub const VIPS_MAX: u32 = 512;

/// Backends over all VIPs, by default, id 0 (no backend) included. Hard limit 65 536, since a
/// ring slot holds 16 bits.
pub const BACKENDS_MAX: u32 = 4096;

/// Slots of one ring at most. A ring is indexed by 32-bit multiply-and-shift, and 2^24 slots keep
/// one table under 64 MiB.
pub const RING_SIZE_MAX: u32 = 1 << 24;

/// Ring slots over all VIPs and both generations, by default: 64 rings of 65 537 slots, 32 MiB.
pub const RING_SLOTS_MAX: u32 = 2 * 64 * 65_537;

/// Ring slots in one cell of the ring map. Array values are rounded up to 8 bytes by the kernel,
/// so a cell of two slots wastes nothing and keeps a 65 537-slot ring in 256 KiB.
pub const SLOTS_PER_CELL: u32 = 2;

/// Flows on moving slots whose owner is remembered, by default: room for a third of 1.5 million live
/// connections, those that a third of the slots moves. The table has at least twice the room, 16
/// bytes for each entry, and a power of two of buckets: 16 MiB.
pub const EXCEPTIONS_MAX: u32 = 1 << 19;

/// Flows of VIPs with full tracking whose owner is remembered, by default: 32 MiB.
pub const FLOWS_MAX: u32 = 1 << 20;

/// Exceptions that one CPU may make in a second, by default: so many new connections a second on
/// *moving* slots keep their backend. On eight CPUs a flood takes six seconds to fill the default
/// table; without the budget, one. Nothing is spent while all slots are settled.
pub const INSERTS_PER_SECOND_MAX: u32 = 10_000;
