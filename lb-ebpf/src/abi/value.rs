//! Map values.

use core::mem::{offset_of, size_of};

use super::VipKey;
use crate::address::{Address, Mac};

/// What holds for the whole data path: one element, written before the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Settings {
    /// Secret of the flow hash, 128 bits. Balancers that share a configuration share it.
    pub hash_key: [u64; 2],
    /// Outer source address of IPv6 tunnels.
    pub source_v6: Address,
    /// Outer source address of IPv4 tunnels, in mapped form.
    pub source_v4: Address,
    /// [`VERSION`](super::VERSION) of the writer.
    pub version: u32,
    /// After how many seconds without a packet a flow counts as ended. For so long after a slot began
    /// to move, an unknown UDP flow is taken for an earlier one.
    pub quiet_s: u32,
}

const _: () = assert!(size_of::<Settings>() == 56);

/// One VIP: where its ring lies and how its packets are forwarded.
///
/// Replacing this value is the generation flip: a reader sees the old ring or the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Vip {
    /// First slot of the ring; always even.
    pub ring_start: u32,
    /// Slots of the ring; 0 means that the VIP has no ring (every packet is dropped, counted).
    pub ring_size: u32,
    /// Index of this VIP's counters.
    pub id: u32,
    /// Forwarding mode, one of [`forward`]; 0 in an address entry.
    pub forward: Forward,
    /// Which fields of the flow select the slot, one of [`hash_kind`].
    pub hash: HashKind,
    /// What is remembered of its flows, one of [`tracking`].
    pub tracking: Tracking,
    /// Always 0.
    pub reserved: u8,
}

const _: () = assert!(size_of::<Vip>() == 16);

/// One cell of the VIP table ([`vip_table`](crate::vip_table)): a key and two generations of its
/// value. One cache line.
///
/// The kernel copies array values in 8-byte words. The agent writes the idle generation first and
/// then flips `state`, which lies in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct VipCell {
    /// Whose value this is. Meaningless in an empty or removed cell.
    pub key: VipKey,
    /// The two generations of the value.
    pub generations: [Vip; 2],
    /// Which generation is live, one of [`cell_state`].
    pub state: u32,
    /// Always 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<VipCell>() == 64);
const _: () = assert!(offset_of!(VipCell, state) % 8 == 0);

/// States of a cell of the VIP table.
pub mod cell_state {
    /// Never used: a search ends here.
    pub const EMPTY: u32 = 0;
    /// The first generation is live.
    pub const LIVE_FIRST: u32 = 1;
    /// The second generation is live.
    pub const LIVE_SECOND: u32 = 2;
    /// Used once: a search goes on behind it.
    pub const REMOVED: u32 = 3;
}

/// A forwarding mode on the wire of the ABI. A plain byte, because a value from a map may be
/// anything.
pub type Forward = u8;

/// Forwarding modes.
pub mod forward {
    /// No forwarding: the entry only marks a VIP's address.
    pub const ADDRESS: u8 = 0;
    /// Rewrite the MAC addresses; the backend shares a link with the balancer.
    pub const L2: u8 = 1;
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213): the inner packet is IPv4 or IPv6, and the outer
    /// header follows the backend's address.
    pub const IPIP: u8 = 2;
}

/// A flow hash kind on the wire of the ABI.
pub type HashKind = u8;

/// Flow hash kinds.
pub mod hash_kind {
    /// Source address and source port: with the VIP, the whole 5-tuple.
    pub const FIVE_TUPLE: u8 = 0;
    /// Source address only: all flows of a client go to one backend.
    pub const SOURCE: u8 = 1;
}

/// How flows are tracked, on the wire of the ABI.
pub type Tracking = u8;

/// Kinds of tracking.
pub mod tracking {
    /// Flows are remembered while their slot moves. With slots that never move, not at all.
    pub const MOVING: u8 = 0;
    /// Every flow is remembered.
    pub const FULL: u8 = 1;
}

/// One slot of a ring: who owns the flows that hash to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Slot {
    /// Backend id that new flows go to; 0 = none takes them.
    pub current: u16,
    /// Backend id that owned the slot before; equal to `current` when the slot is settled. Not 0
    /// unless `current` is.
    pub previous: u16,
}

const _: () = assert!(size_of::<Slot>() == 4);

impl Slot {
    /// A slot without history.
    #[inline(always)]
    pub const fn settled(backend: u16) -> Self {
        Self {
            current: backend,
            previous: backend,
        }
    }

    /// The slot whose four bytes lie in memory as `word` does.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        let [a, b, c, d] = word.to_ne_bytes();
        Self {
            current: u16::from_ne_bytes([a, b]),
            previous: u16::from_ne_bytes([c, d]),
        }
    }

    /// True when some flows of the slot belong to an earlier owner.
    #[inline(always)]
    pub const fn moves(&self) -> bool {
        self.previous != self.current
    }
}

/// Two neighbouring slots: the element of the ring map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct RingCell {
    /// Slots `2 i` and `2 i + 1`.
    pub slots: [Slot; 2],
}

const _: () = assert!(size_of::<RingCell>() == 8);

/// The life of a slot that moves. Meaningless while the slot is settled.
///
/// Times are seconds of the monotonic clock modulo 2^16 (18 hours): a move lasts minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Mark {
    /// When the slot began to move. Written by the agent, before the slot is published.
    pub since: u16,
    /// When a packet last went to the previous owner. Written by the data path.
    pub hit: u16,
}

const _: () = assert!(size_of::<Mark>() == 4);

impl Mark {
    /// The mark of a slot that begins to move at `now`.
    #[inline(always)]
    pub const fn begun(now: u16) -> Self {
        Self {
            since: now,
            hit: now,
        }
    }
}

/// The marks of two neighbouring slots: the element of the mark map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct MarkCell {
    /// Marks of slots `2 i` and `2 i + 1`.
    pub marks: [Mark; 2],
}

const _: () = assert!(size_of::<MarkCell>() == 8);

/// Exceptions that this CPU made in the second that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct Budget {
    /// Which second, of the monotonic clock.
    pub second: u32,
    /// How many.
    pub spent: u32,
}

const _: () = assert!(size_of::<Budget>() == 8);

/// The next hop to a backend, as the agent learnt it from netlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Hop {
    /// The first twelve bytes of a frame to it, in the order of memory: two MAC addresses.
    pub link: [u32; 3],
    /// Interface the packet leaves through; 0 = the next hop is not known.
    pub ifindex: u32,
}

const _: () = assert!(size_of::<Hop>() == 16);

impl Hop {
    /// The hop to `destination`, the backend or the router towards it, through an interface whose
    /// own address is `source`.
    pub const fn new(destination: Mac, source: Mac, ifindex: u32) -> Self {
        let [a, b, c, d, e, f] = destination.to_bytes();
        let [g, h, i, j, k, l] = source.to_bytes();
        let link = [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
        ];
        Self { link, ifindex }
    }

    /// Destination MAC address.
    pub const fn destination(&self) -> Mac {
        let ([a, b, c, d], [e, f, ..]) = (self.link[0].to_ne_bytes(), self.link[1].to_ne_bytes());
        Mac::new([a, b, c, d, e, f])
    }

    /// Source MAC address.
    pub const fn source(&self) -> Mac {
        let ([.., a, b], [c, d, e, f]) = (self.link[1].to_ne_bytes(), self.link[2].to_ne_bytes());
        Mac::new([a, b, c, d, e, f])
    }
}

/// One backend: its address and how to reach it. One cache line.
///
/// A next hop must not be read half written. The kernel copies array values in 8-byte words, so
/// the agent writes the idle one of `hops` first and then flips `live`, which lies in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct Backend {
    /// Where its packets go.
    pub address: Address,
    /// The two generations of the next hop.
    pub hops: [Hop; 2],
    /// Index of the valid next hop, 0 or 1.
    pub live: u8,
    /// 4 or 6: the family of `address`; 0 = there is no backend with this id.
    pub family: u8,
    /// Largest IP packet, in bytes, that the way to the backend takes; 0 = not checked.
    pub mtu: u16,
    /// Always 0.
    pub reserved: [u8; 12],
}

const _: () = assert!(size_of::<Backend>() == 64);
const _: () = assert!(offset_of!(Backend, live) % 8 == 0);

impl Backend {
    /// The valid next hop.
    pub fn hop(&self) -> Hop {
        self.hops[usize::from(self.live & 1)]
    }

    /// What a packet to the backend needs; `None` when there is no backend.
    ///
    /// Read out of the table, only one of the two hops is touched.
    #[inline(always)]
    pub fn egress(&self) -> Option<Egress> {
        if self.family == 0 {
            return None;
        }
        Some(Egress {
            address: self.address,
            hop: self.hops[usize::from(self.live & 1)],
            family: self.family,
            mtu: self.mtu,
        })
    }
}

/// The way to a backend, as one packet sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Where packets go.
    pub address: Address,
    /// The valid next hop.
    pub hop: Hop,
    /// 4 or 6: the family of `address`.
    pub family: u8,
    /// Largest IP packet, in bytes, that the way to the backend takes; 0 = not checked.
    pub mtu: u16,
}
