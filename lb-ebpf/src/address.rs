//! Addresses as the data path keeps them: in machine words, in the order of memory.
//!
//! A packet's address is compared, hashed and copied, never calculated with. Kept as words it
//! travels through registers; kept as bytes the compiler takes it apart byte by byte.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address: IPv6, or IPv4 in its mapped form `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Address([u32; 4]);

impl Address {
    /// `00 00 ff ff`, the word before an IPv4 address in mapped form.
    const MAPPED: u32 = 0xffff_u32.to_be();

    /// The mapped form of the IPv4 address whose four bytes lie in memory as `word` does.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, Self::MAPPED, word])
    }

    /// The IPv6 address whose sixteen bytes lie in memory as these words do.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The four words of the address.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        self.0
    }

    /// The IPv4 address in a mapped one.
    #[inline(always)]
    pub const fn v4_word(self) -> u32 {
        self.0[3]
    }

    /// The mapped form of an IPv4 address.
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(bytes))
    }

    /// An IPv6 address.
    pub const fn v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// The sixteen bytes of the address.
    pub const fn to_bytes(self) -> [u8; 16] {
        let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
            self.0[3].to_ne_bytes(),
        ];
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(address.octets()),
            IpAddr::V6(address) => Self::v6(address.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    /// A mapped address becomes an IPv4 one.
    fn from(address: Address) -> Self {
        let v6 = Ipv6Addr::from(address.to_bytes());
        v6.to_ipv4_mapped()
            .map_or(Self::V6(v6), |v4: Ipv4Addr| Self::V4(v4))
    }
}

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Mac([u16; 3]);

impl Mac {
    /// The MAC address whose six bytes lie in memory as these words do.
    #[inline(always)]
    pub const fn from_words(words: [u16; 3]) -> Self {
        Self(words)
    }

    /// The three words of the address.
    #[inline(always)]
    pub const fn words(self) -> [u16; 3] {
        self.0
    }

    /// A MAC address from its bytes.
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([a, b]),
            u16::from_ne_bytes([c, d]),
            u16::from_ne_bytes([e, f]),
        ])
    }

    /// The six bytes of the address.
    pub const fn to_bytes(self) -> [u8; 6] {
        let [[a, b], [c, d], [e, f]] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
        ];
        [a, b, c, d, e, f]
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Self {
        Self::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_bytes_and_their_family() {
        for address in [
            IpAddr::from([192, 0, 2, 7]),
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]),
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            assert_eq!(IpAddr::from(Address::from(address)), address);
        }
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7];
        assert_eq!(Address::v4([192, 0, 2, 7]).to_bytes(), mapped);
        assert_eq!(Address::v6(mapped), Address::v4([192, 0, 2, 7]));
        assert_eq!(Mac::new([1, 2, 3, 4, 5, 6]).to_bytes(), [1, 2, 3, 4, 5, 6]);
    }
}
