//! Protocol headers, one to a file, all of the same form: a type over the header's bytes, made by
//! `header!`, with `read` and `write` against a [`Frame`](crate::frame::Frame), getters in
//! host order for numbers and in network order for what is only compared or copied, and the
//! protocol's numbers as constants. The bytes are kept in words of the fields' own width, so that
//! a field is one load.
//!
//! A getter never fails: the bytes were checked to exist when the header was read. Whether the
//! values make sense is decided in [`parse`](crate::parse).

pub mod checksum;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod tcp;
mod udp;
mod vlan;

pub use ethernet::{Ethernet, ether_type};
pub use icmp::{Icmp, icmp_type};
pub use ipv4::Ipv4;
pub use ipv6::{Extension, Ipv6, Ipv6Fragment};
pub use tcp::Tcp;
pub use udp::Udp;
pub use vlan::Vlan;

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options, an extension header.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 inside IP (RFC 2003, RFC 2473).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 inside IP (RFC 2473, RFC 4213).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header, an extension header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header, an extension header.
    pub const FRAGMENT: u8 = 44;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options, an extension header.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// Declares a header type of a fixed number of words, each of which holds its bytes in the order
/// of memory.
macro_rules! header {
    ($(#[$doc:meta])* $name:ident, $word:ty, $count:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name([$word; $count]);

        impl $name {
            /// Length of the header in bytes, without options.
            pub const LEN: usize = $count * size_of::<$word>();

            /// The header that begins at offset `at`, or `None` when the packet ends inside it.
            #[inline(always)]
            pub fn read<F: $crate::frame::Frame>(frame: &F, at: usize) -> Option<Self> {
                frame.load(at).map(Self)
            }

            /// Writes the header at offset `at`, or does nothing and returns `None` when the
            /// packet ends inside it.
            #[inline(always)]
            pub fn write<F: $crate::frame::Frame>(self, frame: &mut F, at: usize) -> Option<()> {
                frame.store(at, self.0)
            }

            /// The header in these words.
            #[inline(always)]
            pub const fn from_words(words: [$word; $count]) -> Self {
                Self(words)
            }

            /// The words of the header.
            #[inline(always)]
            pub const fn to_words(self) -> [$word; $count] {
                self.0
            }
        }
    };
}
use header;
