//! Map keys. They are built on the BPF stack, where the verifier wants every access aligned; the
//! compiler may join two stores to one of eight bytes, so the keys are aligned to eight.

use core::mem::size_of;

use crate::address::Address;

/// Key of the VIP table: one well-known address, port and transport protocol.
///
/// Beside each VIP the agent keeps an *address entry* ([`VipKey::address_entry`]): port 0 and
/// protocol 0. It lets the data path recognise packets to a VIP's address that carry no ports
/// (fragments, ICMP) without knowing which VIP they belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct VipKey {
    /// The well-known address.
    pub address: Address,
    /// Port in network order; 0 stands for every port.
    pub port: u16,
    /// IP protocol number: 6 TCP, 17 UDP; 0 in an address entry.
    pub protocol: u8,
    /// Always 0: map keys are compared byte for byte.
    pub reserved: [u8; 5],
}

const _: () = assert!(size_of::<VipKey>() == 24);

impl VipKey {
    /// Key of the VIP at `address`, `port` (host order, 0 = every port), `protocol`.
    #[inline(always)]
    pub const fn new(address: Address, port: u16, protocol: u8) -> Self {
        Self {
            address,
            port: port.to_be(),
            protocol,
            reserved: [0; 5],
        }
    }

    /// Whether both are the same, but for the bytes that are always 0.
    #[inline(always)]
    pub(crate) fn names(&self, other: &Self) -> bool {
        self.address == other.address && self.port == other.port && self.protocol == other.protocol
    }

    /// Key of the entry that says "this address carries VIPs".
    #[inline(always)]
    pub const fn address_entry(address: Address) -> Self {
        Self::new(address, 0, 0)
    }
}

/// Key of the tunnel address set of the decapsulation program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct AddressKey {
    /// The outer destination of tunnels.
    pub address: Address,
}

const _: () = assert!(size_of::<AddressKey>() == 16);
