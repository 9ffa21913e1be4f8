//! IPv4 (RFC 791).

use super::{checksum, header};
use crate::address::Address;

header! {
    /// An IPv4 header without its options (RFC 791, 3.1).
    Ipv4, u32, 5
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
    pub const fn outer(
        traffic_class: u8,
        total_length: u16,
        protocol: u8,
        source: Address,
        destination: Address,
    ) -> Self {
        let first = (0x4500_0000 | (traffic_class as u32) << 16 | total_length as u32).to_be();
        let second = (Self::DONT_FRAGMENT as u32).to_be();
        let third = u32::from_ne_bytes([Self::TTL_DEFAULT, protocol, 0, 0]);
        let (source, destination) = (source.v4_word(), destination.v4_word());
        let sum = checksum::words([first, second, third, source, destination]);
        let [high, low] = (!checksum::fold(sum)).to_ne_bytes();
        let third = third | u32::from_ne_bytes([0, 0, high, low]);
        Self([first, second, third, source, destination])
    }

    /// IP version; 4 in a sound header.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.0[0].to_ne_bytes()[0] >> 4
    }

    /// Length of the header with options, in bytes: 20 to 60 in a sound header.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (self.0[0].to_ne_bytes()[0] as usize & 0xf) * 4
    }

    /// DSCP and ECN (RFC 2474, RFC 3168).
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        self.0[0].to_ne_bytes()[1]
    }

    /// Length of header and payload in bytes.
    #[inline(always)]
    pub const fn total_length(&self) -> u16 {
        u32::from_be(self.0[0]) as u16
    }

    /// True for every piece of a fragmented datagram, the first included.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.0[1] & (Self::MORE_FRAGMENTS_OR_OFFSET as u32).to_be() != 0
    }

    /// Time to live, in hops.
    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        self.0[2].to_ne_bytes()[0]
    }

    /// What the payload is: one of [`protocol`](super::protocol).
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.0[2].to_ne_bytes()[1]
    }

    /// Header checksum.
    #[inline(always)]
    pub const fn checksum(&self) -> u16 {
        u32::from_be(self.0[2]) as u16
    }

    /// Source address, in mapped form.
    #[inline(always)]
    pub const fn source(&self) -> Address {
        Address::from_v4_word(self.0[3])
    }

    /// Destination address, in mapped form.
    #[inline(always)]
    pub const fn destination(&self) -> Address {
        Address::from_v4_word(self.0[4])
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
            let (source, destination) = (Address::v4(source), Address::v4(destination));
            let header = Ipv4::outer(traffic_class, length, 4, source, destination);
            // A receiver sums all sixteen-bit words, the checksum included, to all ones.
            assert_eq!(checksum::fold(checksum::words(header.to_words())), 0xffff);
            assert_eq!(header.total_length(), length);
            assert_eq!(header.source(), source);
            assert_eq!(header.destination(), destination);
            assert!(!header.is_fragment());
        }
    }
}
