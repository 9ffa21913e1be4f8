//! Ethernet II.

use super::header;
use crate::address::Mac;

header! {
    /// An Ethernet header: destination, source, type.
    Ethernet, u16, 7
}

/// EtherTypes (IANA "IEEE 802 Numbers"), in network order.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800_u16.to_be();
    /// IPv6.
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    /// Customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100_u16.to_be();
    /// Service VLAN tag (IEEE 802.1ad), the outer one of two.
    pub const VLAN_SERVICE: u16 = 0x88a8_u16.to_be();
}

impl Ethernet {
    /// Offset of the EtherType in the header.
    pub const ETHER_TYPE_AT: usize = 12;

    /// A header from its fields.
    #[inline(always)]
    pub const fn new(destination: Mac, source: Mac, ether_type: u16) -> Self {
        let [a, b, c] = destination.words();
        let [d, e, f] = source.words();
        Self([a, b, c, d, e, f, ether_type])
    }

    /// Destination MAC address.
    #[inline(always)]
    pub const fn destination(&self) -> Mac {
        Mac::from_words([self.0[0], self.0[1], self.0[2]])
    }

    /// Source MAC address.
    #[inline(always)]
    pub const fn source(&self) -> Mac {
        Mac::from_words([self.0[3], self.0[4], self.0[5]])
    }

    /// What follows: one of [`ether_type`].
    #[inline(always)]
    pub const fn ether_type(&self) -> u16 {
        self.0[6]
    }
}
