//! TCP (RFC 9293).

use super::header;

header! {
    /// A TCP header without its options (RFC 9293, 3.1).
    Tcp, u16, 10
}

impl Tcp {
    const SYN: u16 = 0x02;
    const ACK: u16 = 0x10;

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

    /// Length of the header with options, in bytes: 20 to 60 in a sound header.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (u16::from_be(self.0[6]) as usize >> 12) * 4
    }

    /// True for the packet that opens a connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        u16::from_be(self.0[6]) & (Self::SYN | Self::ACK) == Self::SYN
    }
}
