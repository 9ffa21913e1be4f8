//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the part that both have in common.

use super::header;

header! {
    /// The first eight bytes of an ICMP message: type, code, checksum, rest.
    Icmp, 8
}

/// ICMP types.
pub mod icmp_type {
    /// Echo reply (RFC 792).
    pub const ECHO_REPLY: u8 = 0;
    /// Echo request (RFC 792).
    pub const ECHO: u8 = 8;
    /// Echo request (RFC 4443, 4.1).
    pub const V6_ECHO: u8 = 128;
    /// Echo reply (RFC 4443, 4.2).
    pub const V6_ECHO_REPLY: u8 = 129;
}

impl Icmp {
    /// Offset of the checksum in the message.
    pub const CHECKSUM_AT: usize = 2;

    /// Type: one of [`icmp_type`].
    #[inline(always)]
    pub const fn kind(&self) -> u8 {
        self.0[0]
    }

    /// Code: refines the type.
    #[inline(always)]
    pub const fn code(&self) -> u8 {
        self.0[1]
    }

    /// Checksum over the message.
    #[inline(always)]
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }
}
