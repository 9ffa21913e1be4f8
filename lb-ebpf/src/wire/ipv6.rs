//! IPv6 (RFC 8200) and its extension headers.

use super::{header, protocol};

header! {
    /// An IPv6 header (RFC 8200, 3).
    Ipv6, 40
}

header! {
    /// The first bytes that hop-by-hop options, routing and destination options have in common
    /// (RFC 6564, 4).
    Extension, 2
}

header! {
    /// A fragment header (RFC 8200, 4.5).
    Ipv6Fragment, 8
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
    pub fn outer(
        traffic_class: u8,
        flow_label: u32,
        payload_length: u16,
        next_header: u8,
        source: [u8; 16],
        destination: [u8; 16],
    ) -> Self {
        let first = 6 << 28 | u32::from(traffic_class) << 20 | flow_label & 0xf_ffff;
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&first.to_be_bytes());
        bytes[4..6].copy_from_slice(&payload_length.to_be_bytes());
        bytes[6] = next_header;
        bytes[7] = Self::HOP_LIMIT_DEFAULT;
        bytes[8..24].copy_from_slice(&source);
        bytes[24..].copy_from_slice(&destination);
        Self(bytes)
    }

    /// IP version; 6 in a sound header.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// DSCP and ECN (RFC 2474, RFC 3168).
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        self.0[0] << 4 | self.0[1] >> 4
    }

    /// Length of what follows this header, extension headers included, in bytes.
    #[inline(always)]
    pub const fn payload_length(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// What follows: an extension header or a transport, one of [`protocol`].
    #[inline(always)]
    pub const fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.0[8..24]);
        address
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination(&self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.0[24..40]);
        address
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
    /// What follows, one of [`protocol`].
    #[inline(always)]
    pub const fn next_header(&self) -> u8 {
        self.0[0]
    }

    /// True when offset and "more" flag are both 0: the whole datagram in one fragment, to be
    /// handled like a packet without this header (RFC 6946).
    #[inline(always)]
    pub const fn is_atomic(&self) -> bool {
        u16::from_be_bytes([self.0[2], self.0[3]]) & 0xfff9 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_header_holds_what_was_given() {
        let header = Ipv6::outer(0xb9, 0xfff1_2345, 1460, 41, [1; 16], [2; 16]);
        assert_eq!(
            header.to_bytes()[..8],
            [0x6b, 0x91, 0x23, 0x45, 0x05, 0xb4, 41, 64]
        );
        assert_eq!(header.version(), 6);
        assert_eq!(header.traffic_class(), 0xb9);
        assert_eq!(header.payload_length(), 1460);
        assert_eq!(header.source(), [1; 16]);
        assert_eq!(header.destination(), [2; 16]);
    }

    #[test]
    fn atomic_fragments_are_told_from_pieces() {
        let fragment = |offset_and_flags: [u8; 2]| {
            Ipv6Fragment::from_bytes([6, 0, offset_and_flags[0], offset_and_flags[1], 1, 2, 3, 4])
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
