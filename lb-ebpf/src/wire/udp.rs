//! UDP (RFC 768).

use super::header;

header! {
    /// A UDP header.
    Udp, 8
}

impl Udp {
    /// Source port, in network order.
    #[inline(always)]
    pub const fn source_port(&self) -> [u8; 2] {
        [self.0[0], self.0[1]]
    }

    /// Destination port, in network order.
    #[inline(always)]
    pub const fn destination_port(&self) -> [u8; 2] {
        [self.0[2], self.0[3]]
    }

    /// Length of header and payload in bytes, at least 8 in a sound header.
    #[inline(always)]
    pub const fn length(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }
}
