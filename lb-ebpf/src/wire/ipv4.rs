//! IPv4 (RFC 791).

use super::{checksum, header};

header! {
    /// An IPv4 header without its options (RFC 791, 3.1).
    Ipv4, 20
}

impl Ipv4 {
    /// Offset of the time to live in the header.
    pub const TTL_AT: usize = 8;
    /// Offset of the header checksum in the header.
    pub const CHECKSUM_AT: usize = 10;
    /// Offset of the source address in the header; the destination follows.
    pub const ADDRESSES_AT: usize = 12;
    /// Time to live of packets that the data path makes (RFC 1700 and IANA's recommendation).
    pub const TTL_DEFAULT: u8 = 64;

    const DONT_FRAGMENT: u16 = 0x4000;
    const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;

    /// An outer header without options, its checksum set.
    ///
    /// Identification is 0 and "don't fragment" is set, which makes the packet atomic (RFC 6864,
    /// 4.1): a tunnel that fragments would need unique identifications and reassembly.
    #[inline(always)]
    pub fn outer(
        traffic_class: u8,
        total_length: u16,
        protocol: u8,
        source: [u8; 4],
        destination: [u8; 4],
    ) -> Self {
        let sum = (0x4500 | u32::from(traffic_class))
            + u32::from(total_length)
            + u32::from(Self::DONT_FRAGMENT)
            + (u32::from(Self::TTL_DEFAULT) << 8 | u32::from(protocol))
            + checksum::words(source)
            + checksum::words(destination);
        let [length_high, length_low] = total_length.to_be_bytes();
        let [flags_high, flags_low] = Self::DONT_FRAGMENT.to_be_bytes();
        let [sum_high, sum_low] = (!checksum::fold(sum)).to_be_bytes();
        let [s0, s1, s2, s3] = source;
        let [d0, d1, d2, d3] = destination;
        Self([
            0x45,
            traffic_class,
            length_high,
            length_low,
            0,
            0,
            flags_high,
            flags_low,
            Self::TTL_DEFAULT,
            protocol,
            sum_high,
            sum_low,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ])
    }

    /// IP version; 4 in a sound header.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Length of the header with options, in bytes: 20 to 60 in a sound header.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (self.0[0] as usize & 0xf) * 4
    }

    /// DSCP and ECN (RFC 2474, RFC 3168).
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        self.0[1]
    }

    /// Length of header and payload in bytes.
    #[inline(always)]
    pub const fn total_length(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// True for every piece of a fragmented datagram, the first included.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes([self.0[6], self.0[7]]) & Self::MORE_FRAGMENTS_OR_OFFSET != 0
    }

    /// Time to live, in hops.
    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// What the payload is: one of [`protocol`](super::protocol).
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// Header checksum.
    #[inline(always)]
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[10], self.0[11]])
    }

    /// Source address.
    #[inline(always)]
    pub const fn source(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// Destination address.
    #[inline(always)]
    pub const fn destination(&self) -> [u8; 4] {
        [self.0[16], self.0[17], self.0[18], self.0[19]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_an_outer_header_is_that_of_rfc_1071() {
        let cases = [
            (0, 60, [10, 0, 0, 1], [10, 0, 0, 2]),
            (0xb9, 1500, [192, 0, 2, 255], [255, 255, 255, 255]),
            (0xff, u16::MAX, [255; 4], [255; 4]),
            (0, 20, [0; 4], [0; 4]),
        ];
        for (traffic_class, length, source, destination) in cases {
            let header = Ipv4::outer(traffic_class, length, 4, source, destination);
            // A receiver sums all sixteen-bit words, the checksum included, to all ones.
            assert_eq!(checksum::fold(checksum::words(header.to_bytes())), 0xffff);
            assert_eq!(header.total_length(), length);
            assert_eq!(header.source(), source);
            assert_eq!(header.destination(), destination);
            assert!(!header.is_fragment());
        }
    }
}
