//! Ethernet II.

use super::header;

header! {
    /// An Ethernet header: destination, source, type.
    Ethernet, 14
}

/// EtherTypes (IANA "IEEE 802 Numbers"), in network order.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: [u8; 2] = [0x08, 0x00];
    /// IPv6.
    pub const IPV6: [u8; 2] = [0x86, 0xdd];
    /// Customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: [u8; 2] = [0x81, 0x00];
    /// Service VLAN tag (IEEE 802.1ad), the outer one of two.
    pub const VLAN_SERVICE: [u8; 2] = [0x88, 0xa8];
}

impl Ethernet {
    /// A header from its fields.
    #[inline(always)]
    pub fn new(destination: [u8; 6], source: [u8; 6], ether_type: [u8; 2]) -> Self {
        let [a, b, c, d, e, f] = destination;
        let [g, h, i, j, k, l] = source;
        let [m, n] = ether_type;
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n])
    }

    /// Destination MAC address.
    #[inline(always)]
    pub const fn destination(&self) -> [u8; 6] {
        [
            self.0[0], self.0[1], self.0[2], self.0[3], self.0[4], self.0[5],
        ]
    }

    /// Source MAC address.
    #[inline(always)]
    pub const fn source(&self) -> [u8; 6] {
        [
            self.0[6], self.0[7], self.0[8], self.0[9], self.0[10], self.0[11],
        ]
    }

    /// What follows: one of [`ether_type`].
    #[inline(always)]
    pub const fn ether_type(&self) -> [u8; 2] {
        [self.0[12], self.0[13]]
    }
}
