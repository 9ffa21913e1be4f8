//! A flow: who talks to whom.

/// The IP version of an address or packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// The 5-tuple of a packet. Ports are 0 where the packet has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IP version of the packet; addresses of version 4 are in mapped form.
    pub family: Family,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Source port, in network order.
    pub source_port: [u8; 2],
    /// Destination port, in network order.
    pub destination_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
}

/// The mapped form `::ffff:a.b.c.d` of an IPv4 address (RFC 4291, 2.5.5.2), in which it travels
/// through keys and tables.
#[inline(always)]
pub const fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The IPv4 address in a mapped one: its last four bytes.
#[inline(always)]
pub const fn unmapped(address: [u8; 16]) -> [u8; 4] {
    [address[12], address[13], address[14], address[15]]
}
