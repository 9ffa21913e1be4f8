//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the part that both have in common.

use super::{checksum, header};

header! {
    /// The first eight bytes of an ICMP message: type, code, checksum, rest.
    Icmp, u16, 4
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
    /// Type: one of [`icmp_type`].
    #[inline(always)]
    pub const fn kind(&self) -> u8 {
        self.0[0].to_ne_bytes()[0]
    }

    /// Code: refines the type.
    #[inline(always)]
    pub const fn code(&self) -> u8 {
        self.0[0].to_ne_bytes()[1]
    }

    /// Checksum over the message.
    #[inline(always)]
    pub const fn checksum(&self) -> u16 {
        u16::from_be(self.0[1])
    }

    /// The same message as `kind` with code 0, its checksum brought up to date.
    #[inline(always)]
    pub const fn turned_into(self, kind: u8) -> Self {
        let first = u16::from_ne_bytes([kind, 0]);
        let (old, new) = (u16::from_be(self.0[0]), u16::from_be(first));
        let sum = checksum::update(self.checksum(), old, new);
        Self([first, sum.to_be(), self.0[2], self.0[3]])
    }
}
