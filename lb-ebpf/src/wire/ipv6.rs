//! IPv6 (RFC 8200) and its extension headers.

use super::{header, protocol};
use crate::address::Address;

header! {
    /// An IPv6 header (RFC 8200, 3).
    Ipv6, u32, 10
}

header! {
    /// The first bytes that hop-by-hop options, routing and destination options have in common
    /// (RFC 6564, 4).
    Extension, u8, 2
}

header! {
    /// A fragment header (RFC 8200, 4.5).
    Ipv6Fragment, u16, 4
}

impl Ipv6 {
    /// Offset of the hop limit in the header.
    pub const HOP_LIMIT_AT: usize = 7;
    /// Offset of the source address in the header; the destination follows.
    pub const ADDRESSES_AT: usize = 8;
    /// Hop limit of packets that the data path makes.
    pub const HOP_LIMIT_DEFAULT: u8 = 64;
    /// Extension headers that are followed; RFC 8883, 3 lets a middlebox set such a limit.
    pub const EXTENSIONS_MAX: usize = 4;

    /// An outer header. `flow_label` gives routers entropy to spread tunnels by (RFC 6438); only
    /// its low 20 bits are used.
    #[inline(always)]
    pub const fn outer(
        traffic_class: u8,
        flow_label: u32,
        payload_length: u16,
        next_header: u8,
        source: Address,
        destination: Address,
    ) -> Self {
        let first = (6 << 28 | (traffic_class as u32) << 20 | flow_label & 0xf_ffff).to_be();
        let second = (payload_length as u32) << 16
            | (next_header as u32) << 8
            | Self::HOP_LIMIT_DEFAULT as u32;
        let [s0, s1, s2, s3] = source.words();
        let [d0, d1, d2, d3] = destination.words();
        Self([first, second.to_be(), s0, s1, s2, s3, d0, d1, d2, d3])
    }

    /// IP version; 6 in a sound header.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.0[0].to_ne_bytes()[0] >> 4
    }

    /// DSCP and ECN (RFC 2474, RFC 3168).
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        (u32::from_be(self.0[0]) >> 20) as u8
    }

    /// Length of what follows this header, extension headers included, in bytes.
    #[inline(always)]
    pub const fn payload_length(&self) -> u16 {
        (u32::from_be(self.0[1]) >> 16) as u16
    }

    /// What follows: an extension header or a transport, one of [`protocol`].
    #[inline(always)]
    pub const fn next_header(&self) -> u8 {
        self.0[1].to_ne_bytes()[2]
    }

    /// Source address.
    #[inline(always)]
    pub const fn source(&self) -> Address {
        Address::from_words([self.0[2], self.0[3], self.0[4], self.0[5]])
    }

    /// Destination address.
    #[inline(always)]
    pub const fn destination(&self) -> Address {
        Address::from_words([self.0[6], self.0[7], self.0[8], self.0[9]])
    }
}

impl Extension {
    /// True for the extension headers of this form.
    #[inline(always)]
    pub const fn announced_by(next_header: u8) -> bool {
        matches!(
            next_header,
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS
        )
    }

    /// What follows, one of [`protocol`].
    #[inline(always)]
    pub const fn next_header(&self) -> u8 {
        self.0[0]
    }

    /// Length of the extension header in bytes, 8 to 2048.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (self.0[1] as usize + 1) * 8
    }
}

impl Ipv6Fragment {
    const MORE_OR_OFFSET: u16 = 0xfff9;

    /// What follows, one of [`protocol`].
    #[inline(always)]
    pub const fn next_header(&self) -> u8 {
        self.0[0].to_ne_bytes()[0]
    }

    /// True when offset and "more" flag are both 0: the whole datagram in one fragment, to be
    /// handled like a packet without this header (RFC 6946).
    #[inline(always)]
    pub const fn is_atomic(&self) -> bool {
        self.0[1] & Self::MORE_OR_OFFSET.to_be() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_header_holds_what_was_given() {
        let (source, destination) = (Address::v6([1; 16]), Address::v6([2; 16]));
        let header = Ipv6::outer(0xb9, 0xfff1_2345, 1460, 41, source, destination);
        let first = [
            header.to_words()[0].to_ne_bytes(),
            header.to_words()[1].to_ne_bytes(),
        ];
        assert_eq!(first, [[0x6b, 0x91, 0x23, 0x45], [0x05, 0xb4, 41, 64]]);
        assert_eq!(header.version(), 6);
        assert_eq!(header.traffic_class(), 0xb9);
        assert_eq!(header.payload_length(), 1460);
        assert_eq!(header.next_header(), 41);
        assert_eq!(header.source(), source);
        assert_eq!(header.destination(), destination);
    }

    #[test]
    fn atomic_fragments_are_told_from_pieces() {
        let fragment = |offset_and_flags: [u8; 2]| {
            let [high, low] = offset_and_flags;
            let first = u16::from_ne_bytes([6, 0]);
            Ipv6Fragment::from_words([first, u16::from_ne_bytes([high, low]), 1, 2])
        };
        assert!(fragment([0, 0]).is_atomic());
        assert!(
            fragment([0, 0b110]).is_atomic(),
            "reserved bits say nothing"
        );
        assert!(!fragment([0, 1]).is_atomic(), "first of several");
        assert!(!fragment([0, 8]).is_atomic(), "a later one, and the last");
    }
}
