//! What benches and tests tell the harness object, and what it tells them.

use core::mem::size_of;

/// How to restore the packet and pick the next flow: the element of the harness's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Harness {
    /// Flows minus one; the number of flows is a power of two.
    pub flow_mask: u32,
    /// Source address of flow 0 (of IPv6, its last 32 bits), in host order.
    pub source: u32,
    /// Offset of these 32 bits in the frame.
    pub source_at: u32,
    /// Offset of the source port in the frame; the destination port follows.
    pub port_at: u32,
    /// VIPs that packets go to in turn: consecutive ports of one address.
    pub vips: u32,
    /// Destination port of the first of them, in host order.
    pub first_port: u32,
    /// Length of the frame before the program under test grew it, in bytes.
    pub frame_len: u32,
    /// Bytes that the program under test adds in front: 0, 20 or 40.
    pub growth: u32,
    /// The words of the Ethernet header to restore.
    pub ethernet: [u16; 7],
    /// Always 0.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Harness>() == 48);

/// What a packet can see that looks at a whole table: elements of the harness's counter map.
pub mod watched {
    use super::super::HashKind;

    /// One table.
    pub const WHOLE: u32 = 0;
    /// Parts of two.
    pub const MIXED: u32 = 1;
    /// None: no such VIP, or no ring.
    pub const ABSENT: u32 = 2;
    /// Elements of the map.
    pub const KINDS: u32 = 3;

    /// The backend that owns every slot of a ring, said by a field of the VIP that no packet of such a
    /// VIP is steered by. So one flip changes both, and neither may be seen without the other.
    #[inline(always)]
    pub const fn owner(hash: HashKind) -> u16 {
        hash as u16 + 1
    }
}
