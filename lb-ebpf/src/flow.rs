//! A flow: who talks to whom.

use crate::address::Address;

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
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, in network order.
    pub source_port: u16,
    /// Destination port, in network order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}
