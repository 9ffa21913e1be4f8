//! TCP (RFC 9293).

use super::header;

header! {
    /// A TCP header without its options (RFC 9293, 3.1).
    Tcp, 20
}

impl Tcp {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

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

    /// Length of the header with options, in bytes: 20 to 60 in a sound header.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (self.0[12] as usize >> 4) * 4
    }

    /// True for the packet that opens a connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.0[13] & (Self::SYN | Self::ACK) == Self::SYN
    }
}
