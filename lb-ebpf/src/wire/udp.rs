//! UDP (RFC 768).

use super::header;

header! {
    /// A UDP header.
    Udp, u16, 4
}

impl Udp {
    /// Source port, in network order.
    #[inline(always)]
    pub const fn source_port(&self) -> u16 {
        self.0[0]
    }

    /// Destination port, in network order.
    #[inline(always)]
    pub const fn destination_port(&self) -> u16 {
        self.0[1]
    }

    /// Length of header and payload in bytes, at least 8 in a sound header.
    #[inline(always)]
    pub const fn length(&self) -> u16 {
        u16::from_be(self.0[2])
    }
}
