//! Rewrites a packet on its way out: MAC addresses, tunnel header, echo reply.

use crate::{
    abi::{Egress, Hop, Settings},
    flow::Family,
    frame::Frame,
    parse::Parsed,
    reason::Reason,
    wire::{Ethernet, Icmp, Ipv4, Ipv6, Vlan, checksum, ether_type, icmp_type, protocol},
};

/// Sends the frame to `hop` as it is, VLAN tags included.
#[inline(always)]
pub fn l2<F: Frame>(frame: &mut F, hop: &Hop) -> Result<(), Reason> {
    // One store of twelve bytes: one comparison against the end of the packet.
    frame.store(0, hop.link).ok_or(Reason::FrameTruncated)
}

/// Puts the packet into an outer IP header of the backend's family and addresses it to the next
/// hop. DSCP and ECN are copied outwards (RFC 2983, 4.1; RFC 6040, 4.1); VLAN tags stay.
///
/// `entropy` becomes the flow label of an IPv6 tunnel.
#[inline(always)]
pub fn ipip<F: Frame>(
    frame: &mut F,
    parsed: &Parsed,
    backend: &Egress,
    settings: &Settings,
    entropy: u32,
) -> Result<(), Reason> {
    let outer_len = if backend.family == Family::V4 as u8 {
        Ipv4::LEN
    } else {
        Ipv6::LEN
    };
    let len = parsed.ip_len + outer_len as u32;
    if backend.mtu != 0 && len > u32::from(backend.mtu) || len > u32::from(u16::MAX) {
        return Err(Reason::PacketTooBig);
    }
    let inner = match parsed.flow.family {
        Family::V4 => protocol::IPV4,
        Family::V6 => protocol::IPV6,
    };
    let hop = backend.hop;
    if backend.family == Family::V4 as u8 {
        let outer = Ipv4::outer(
            parsed.traffic_class,
            len as u16,
            inner,
            settings.source_v4,
            backend.address,
        );
        link::<{ Ipv4::LEN }, F>(frame, parsed.ip_at, &hop, ether_type::IPV4)?;
        outer
            .write(frame, parsed.ip_at)
            .ok_or(Reason::FrameTruncated)
    } else {
        let outer = Ipv6::outer(
            parsed.traffic_class,
            entropy,
            parsed.ip_len as u16,
            inner,
            settings.source_v6,
            backend.address,
        );
        link::<{ Ipv6::LEN }, F>(frame, parsed.ip_at, &hop, ether_type::IPV6)?;
        outer
            .write(frame, parsed.ip_at)
            .ok_or(Reason::FrameTruncated)
    }
}

/// Moves the link header `ROOM` bytes forward and addresses it to `hop`.
///
/// The header's length is one of three; each gets code of its own with constant offsets.
#[inline(always)]
fn link<const ROOM: usize, F: Frame>(
    frame: &mut F,
    ip_at: usize,
    hop: &Hop,
    ether_type: u16,
) -> Result<(), Reason> {
    const UNTAGGED: usize = Ethernet::LEN;
    if ip_at == UNTAGGED {
        frame.grow::<ROOM>().ok_or(Reason::NoHeadroom)?;
        let type_at = Ethernet::ETHER_TYPE_AT;
        return frame
            .store(type_at, [ether_type])
            .and_then(|()| frame.store(0, hop.link))
            .ok_or(Reason::FrameTruncated);
    }
    const TAGS_AT: usize = Ethernet::ETHER_TYPE_AT;
    if ip_at == UNTAGGED + Vlan::LEN {
        let [a, b] = frame
            .load::<u16, 2>(TAGS_AT)
            .ok_or(Reason::FrameTruncated)?;
        frame.grow::<ROOM>().ok_or(Reason::NoHeadroom)?;
        l2(frame, hop)?;
        return frame
            .store(TAGS_AT, [a, b, ether_type])
            .ok_or(Reason::FrameTruncated);
    }
    let [a, b, c, d] = frame
        .load::<u16, 4>(TAGS_AT)
        .ok_or(Reason::FrameTruncated)?;
    frame.grow::<ROOM>().ok_or(Reason::NoHeadroom)?;
    l2(frame, hop)?;
    frame
        .store(TAGS_AT, [a, b, c, d, ether_type])
        .ok_or(Reason::FrameTruncated)
}

/// Turns an echo request into its reply (RFC 792, RFC 4443 section 4.2) and addresses it to
/// where it came from.
#[inline(always)]
pub fn echo_reply<F: Frame>(frame: &mut F, parsed: &Parsed) -> Result<(), Reason> {
    let (reply, reason) = match parsed.flow.family {
        Family::V4 => (icmp_type::ECHO_REPLY, swap_ipv4(frame, parsed.ip_at)),
        Family::V6 => (icmp_type::V6_ECHO_REPLY, swap_ipv6(frame, parsed.ip_at)),
    };
    reason?;
    let icmp = Icmp::read(frame, parsed.transport_at).ok_or(Reason::IcmpTruncated)?;
    icmp.turned_into(reply)
        .write(frame, parsed.transport_at)
        .ok_or(Reason::IcmpTruncated)?;
    let ethernet = Ethernet::read(frame, 0).ok_or(Reason::FrameTruncated)?;
    Ethernet::new(
        ethernet.source(),
        ethernet.destination(),
        ethernet.ether_type(),
    )
    .write(frame, 0)
    .ok_or(Reason::FrameTruncated)
}

#[inline(always)]
fn swap_ipv4<F: Frame>(frame: &mut F, at: usize) -> Result<(), Reason> {
    let ip = Ipv4::read(frame, at).ok_or(Reason::Ipv4Truncated)?;
    // Swapping the addresses leaves the checksum as it is; the fresh time to live does not.
    let old = u16::from_be_bytes([ip.ttl(), ip.protocol()]);
    let new = u16::from_be_bytes([Ipv4::TTL_DEFAULT, ip.protocol()]);
    let sum = checksum::update(ip.checksum(), old, new);
    let third = (u32::from(new) << 16 | u32::from(sum)).to_be();
    let (source, destination) = (ip.source().v4_word(), ip.destination().v4_word());
    frame
        .store(at + Ipv4::TTL_AT, [third, destination, source])
        .ok_or(Reason::Ipv4Truncated)
}

#[inline(always)]
fn swap_ipv6<F: Frame>(frame: &mut F, at: usize) -> Result<(), Reason> {
    let ip = Ipv6::read(frame, at).ok_or(Reason::Ipv6Truncated)?;
    frame
        .store(at + Ipv6::HOP_LIMIT_AT, [Ipv6::HOP_LIMIT_DEFAULT])
        .ok_or(Reason::Ipv6Truncated)?;
    frame
        .store(at + Ipv6::ADDRESSES_AT, ip.destination().words())
        .ok_or(Reason::Ipv6Truncated)?;
    frame
        .store(at + Ipv6::ADDRESSES_AT + 16, ip.source().words())
        .ok_or(Reason::Ipv6Truncated)
}
