//! Counter values.

use core::mem::size_of;

/// Packets and bytes, per CPU, of one VIP or backend.
///
/// Bytes are those of the frame as received, Ethernet header included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    /// Packets forwarded.
    pub packets: u64,
    /// Bytes received in these packets.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Counts>() == 16);
