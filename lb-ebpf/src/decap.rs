//! The way of a packet through a backend host: the tunnel header comes off, the host's stack
//! sees the packet that the client sent.
//!
//! Only tunnels to this host's own addresses are opened. Whoever can reach such an address can
//! still wrap packets with any inner source; like any IP-in-IP receiver, a backend host belongs
//! behind a network that drops protocols 4 and 41 at its edge (RFC 6169, 3.1).

use crate::{
    address::Address,
    frame::Frame,
    wire::{Ethernet, Ipv4, Ipv6, checksum, ether_type, protocol},
};

macro_rules! decap_reasons {
    ($($variant:ident, $name:literal, $text:literal;)+) => {
        /// What became of a packet at a backend host. The numbers are indexes of the counter map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum DecapReason { $(#[doc = $text] $variant,)+ }

        impl DecapReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Name for metrics and the CLI, in snake case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for people.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

decap_reasons! {
    Decapsulated, "decapsulated", "The tunnel header was taken off; the stack got the inner packet.";
    NotTunnel, "not_tunnel", "Not a tunnel packet to this host; passed on as it is.";
    InnerInvalid, "inner_invalid", "The inner packet is truncated or of another version; dropped.";
    CongestionLost, "congestion_lost",
        "Congestion was marked outside on a packet that does not understand it; dropped (RFC 6040).";
}

impl DecapReason {
    /// Number of reasons: elements of the counter map.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// True when the packet is dropped rather than passed to the stack.
    #[inline(always)]
    pub const fn drops(self) -> bool {
        matches!(self, Self::InnerInvalid | Self::CongestionLost)
    }
}

/// Takes the tunnel header off when `is_local` knows its destination.
#[inline(always)]
pub fn run<F: Frame>(frame: &mut F, is_local: impl Fn(Address) -> bool) -> DecapReason {
    match decide(frame, is_local) {
        Ok(reason) | Err(reason) => reason,
    }
}

#[inline(always)]
fn decide<F: Frame>(
    frame: &mut F,
    is_local: impl Fn(Address) -> bool,
) -> Result<DecapReason, DecapReason> {
    let ethernet = Ethernet::read(frame, 0).ok_or(DecapReason::NotTunnel)?;
    let (destination, inner, traffic_class, outer_len) = match ethernet.ether_type() {
        ether_type::IPV4 => {
            let outer = Ipv4::read(frame, Ethernet::LEN).ok_or(DecapReason::NotTunnel)?;
            if outer.header_len() != Ipv4::LEN || outer.is_fragment() {
                return Err(DecapReason::NotTunnel);
            }
            (
                outer.destination(),
                outer.protocol(),
                outer.traffic_class(),
                Ipv4::LEN,
            )
        }
        ether_type::IPV6 => {
            let outer = Ipv6::read(frame, Ethernet::LEN).ok_or(DecapReason::NotTunnel)?;
            (
                outer.destination(),
                outer.next_header(),
                outer.traffic_class(),
                Ipv6::LEN,
            )
        }
        _ => return Err(DecapReason::NotTunnel),
    };
    let kind = match inner {
        protocol::IPV4 => ether_type::IPV4,
        protocol::IPV6 => ether_type::IPV6,
        _ => return Err(DecapReason::NotTunnel),
    };
    if !is_local(destination) {
        return Err(DecapReason::NotTunnel);
    }
    if outer_len == Ipv4::LEN {
        open::<{ Ipv4::LEN }, F>(frame, &ethernet, kind, traffic_class)
    } else {
        open::<{ Ipv6::LEN }, F>(frame, &ethernet, kind, traffic_class)
    }
}

#[inline(always)]
fn open<const OUTER: usize, F: Frame>(
    frame: &mut F,
    ethernet: &Ethernet,
    kind: u16,
    traffic_class: u8,
) -> Result<DecapReason, DecapReason> {
    merge_congestion(frame, Ethernet::LEN + OUTER, kind, traffic_class)?;
    frame.shrink::<OUTER>().ok_or(DecapReason::InnerInvalid)?;
    Ethernet::new(ethernet.destination(), ethernet.source(), kind)
        .write(frame, 0)
        .ok_or(DecapReason::InnerInvalid)?;
    Ok(DecapReason::Decapsulated)
}

const ECN_MASK: u8 = 0b11;
const CONGESTION_EXPERIENCED: u8 = 0b11;
const NOT_CAPABLE: u8 = 0b00;

/// Carries a congestion mark of the outer header into the inner one (RFC 6040, 4.2), and checks
/// that there is an inner header of the announced version.
#[inline(always)]
fn merge_congestion<F: Frame>(
    frame: &mut F,
    at: usize,
    kind: u16,
    outer_class: u8,
) -> Result<(), DecapReason> {
    let marked = outer_class & ECN_MASK == CONGESTION_EXPERIENCED;
    if kind == ether_type::IPV4 {
        let inner = Ipv4::read(frame, at).ok_or(DecapReason::InnerInvalid)?;
        if inner.version() != 4 {
            return Err(DecapReason::InnerInvalid);
        }
        let Some(class) = merged(marked, inner.traffic_class())? else {
            return Ok(());
        };
        let [first, ..] = inner.to_words();
        let (old, rest) = (u32::from_be(first) >> 16, u32::from_be(first) & 0xffff);
        let new = old & 0xff00 | u32::from(class);
        let sum = checksum::update(inner.checksum(), old as u16, new as u16);
        frame
            .store(at, [(new << 16 | rest).to_be()])
            .ok_or(DecapReason::InnerInvalid)?;
        frame
            .store(at + Ipv4::CHECKSUM_AT, [sum.to_be()])
            .ok_or(DecapReason::InnerInvalid)
    } else {
        let inner = Ipv6::read(frame, at).ok_or(DecapReason::InnerInvalid)?;
        if inner.version() != 6 {
            return Err(DecapReason::InnerInvalid);
        }
        let Some(class) = merged(marked, inner.traffic_class())? else {
            return Ok(());
        };
        let [first, ..] = inner.to_words();
        let first = u32::from_be(first) & !(0xff << 20) | u32::from(class) << 20;
        frame
            .store(at, [first.to_be()])
            .ok_or(DecapReason::InnerInvalid)
    }
}

/// The inner traffic class to write, if it changes.
#[inline(always)]
fn merged(marked: bool, inner_class: u8) -> Result<Option<u8>, DecapReason> {
    if !marked || inner_class & ECN_MASK == CONGESTION_EXPERIENCED {
        return Ok(None);
    }
    if inner_class & ECN_MASK == NOT_CAPABLE {
        return Err(DecapReason::CongestionLost);
    }
    Ok(Some(inner_class | CONGESTION_EXPERIENCED))
}

#[cfg(test)]
mod tests;
