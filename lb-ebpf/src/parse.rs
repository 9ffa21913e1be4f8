//! From the bytes of a frame to a flow, or to the reason why there is none.
//!
//! What the host's stack would drop anyway (truncated or contradicting headers) is an error with
//! its own reason. What is sound but carries no ports (fragments, other protocols) is left to
//! [`steer`](crate::steer), which alone knows whether it is addressed to a VIP.

use crate::{
    address::Address,
    flow::{Family, Flow},
    frame::Frame,
    reason::Reason,
    wire::{
        Ethernet, Extension, Icmp, Ipv4, Ipv6, Ipv6Fragment, Tcp, Udp, Vlan, ether_type, icmp_type,
        protocol,
    },
};

/// What a packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Who talks to whom.
    pub flow: Flow,
    /// What the IP payload is.
    pub payload: Payload,
    /// Offset of the IP header: 14, 18 or 22, by the number of VLAN tags.
    pub ip_at: usize,
    /// Offset of the transport header. Meaningless for fragments and other protocols.
    pub transport_at: usize,
    /// Length of the IP packet, header included, in bytes; a frame may have padding behind it.
    pub ip_len: u32,
    /// DSCP and ECN.
    pub traffic_class: u8,
}

/// What an IP packet carries, as far as steering cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A TCP segment; `opens` for SYN without ACK.
    Tcp {
        /// True for the packet that opens a connection.
        opens: bool,
    },
    /// A UDP datagram.
    Udp,
    /// An ICMP or ICMPv6 echo request.
    Echo,
    /// A piece of a fragmented datagram.
    Fragment,
    /// Anything else.
    Other,
}

/// Parses a frame from its Ethernet header on.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Result<Parsed, Reason> {
    match link(frame)? {
        (ip_at, ether_type::IPV4) => ipv4(frame, ip_at),
        (ip_at, ether_type::IPV6) => ipv6(frame, ip_at),
        _ => Err(Reason::NotIp),
    }
}

/// Offset of what is behind the Ethernet header and its VLAN tags, and the EtherType of it.
#[inline(always)]
pub fn link<F: Frame>(frame: &F) -> Result<(usize, u16), Reason> {
    let ethernet = Ethernet::read(frame, 0).ok_or(Reason::FrameTruncated)?;
    skip_tags(frame, ethernet.ether_type())
}

/// Steps over up to [`Vlan::TAGS_MAX`] tags; a third one is "not IP".
#[inline(always)]
fn skip_tags<F: Frame>(frame: &F, kind: u16) -> Result<(usize, u16), Reason> {
    const OUTER_AT: usize = Ethernet::LEN;
    const INNER_AT: usize = OUTER_AT + Vlan::LEN;
    if !Vlan::announced_by(kind) {
        return Ok((OUTER_AT, kind));
    }
    let outer = Vlan::read(frame, OUTER_AT).ok_or(Reason::FrameTruncated)?;
    if !Vlan::announced_by(outer.ether_type()) {
        return Ok((INNER_AT, outer.ether_type()));
    }
    let inner = Vlan::read(frame, INNER_AT).ok_or(Reason::FrameTruncated)?;
    Ok((INNER_AT + Vlan::LEN, inner.ether_type()))
}

/// Parses an IPv4 packet that begins at `ip_at`.
#[inline(always)]
pub fn ipv4<F: Frame>(frame: &F, ip_at: usize) -> Result<Parsed, Reason> {
    let header = Ipv4::read(frame, ip_at).ok_or(Reason::Ipv4Truncated)?;
    if header.version() != 4 {
        return Err(Reason::Ipv4Version);
    }
    let header_len = header.header_len();
    if header_len < Ipv4::LEN {
        return Err(Reason::Ipv4HeaderLength);
    }
    let ip_len = usize::from(header.total_length());
    if ip_len < header_len || ip_at + ip_len > frame.len() {
        return Err(Reason::Ipv4TotalLength);
    }
    let ip = Ip {
        family: Family::V4,
        source: header.source(),
        destination: header.destination(),
        traffic_class: header.traffic_class(),
        at: ip_at,
        end: ip_at + ip_len,
    };
    if header.is_fragment() {
        return Ok(ip.without_ports(Payload::Fragment, header.protocol()));
    }
    transport(frame, &ip, ip_at + header_len, header.protocol())
}

/// Parses an IPv6 packet that begins at `ip_at`.
#[inline(always)]
pub fn ipv6<F: Frame>(frame: &F, ip_at: usize) -> Result<Parsed, Reason> {
    let header = Ipv6::read(frame, ip_at).ok_or(Reason::Ipv6Truncated)?;
    if header.version() != 6 {
        return Err(Reason::Ipv6Version);
    }
    let end = ip_at + Ipv6::LEN + usize::from(header.payload_length());
    if end > frame.len() {
        return Err(Reason::Ipv6PayloadLength);
    }
    let ip = Ip {
        family: Family::V6,
        source: header.source(),
        destination: header.destination(),
        traffic_class: header.traffic_class(),
        at: ip_at,
        end,
    };
    let mut at = ip_at + Ipv6::LEN;
    let mut next = header.next_header();
    // One turn more than there may be extension headers: the last one sees the transport.
    for _ in 0..=Ipv6::EXTENSIONS_MAX {
        if Extension::announced_by(next) {
            let extension = Extension::read(frame, at).ok_or(Reason::Ipv6Truncated)?;
            next = extension.next_header();
            at += extension.header_len();
        } else if next == protocol::FRAGMENT {
            let fragment = Ipv6Fragment::read(frame, at).ok_or(Reason::Ipv6Truncated)?;
            next = fragment.next_header();
            at += Ipv6Fragment::LEN;
            if !fragment.is_atomic() {
                return Ok(ip.without_ports(Payload::Fragment, next));
            }
        } else {
            return transport(frame, &ip, at, next);
        }
        if at > end {
            return Err(Reason::Ipv6Truncated);
        }
    }
    Err(Reason::ExtensionsTooMany)
}

/// What both versions of IP have in common.
struct Ip {
    family: Family,
    source: Address,
    destination: Address,
    traffic_class: u8,
    at: usize,
    end: usize,
}

impl Ip {
    #[inline(always)]
    fn without_ports(&self, payload: Payload, protocol: u8) -> Parsed {
        self.with_ports(payload, protocol, 0, [0; 2])
    }

    #[inline(always)]
    fn with_ports(
        &self,
        payload: Payload,
        protocol: u8,
        transport_at: usize,
        [source_port, destination_port]: [u16; 2],
    ) -> Parsed {
        Parsed {
            flow: Flow {
                family: self.family,
                source: self.source,
                destination: self.destination,
                source_port,
                destination_port,
                protocol,
            },
            payload,
            ip_at: self.at,
            transport_at,
            ip_len: (self.end - self.at) as u32,
            traffic_class: self.traffic_class,
        }
    }
}

#[inline(always)]
fn transport<F: Frame>(frame: &F, ip: &Ip, at: usize, next: u8) -> Result<Parsed, Reason> {
    match (next, ip.family) {
        (protocol::TCP, _) => tcp(frame, ip, at),
        (protocol::UDP, _) => udp(frame, ip, at),
        (protocol::ICMP, Family::V4) => icmp(frame, ip, at, next, icmp_type::ECHO),
        (protocol::ICMPV6, Family::V6) => icmp(frame, ip, at, next, icmp_type::V6_ECHO),
        _ => Ok(ip.without_ports(Payload::Other, next)),
    }
}

#[inline(always)]
fn tcp<F: Frame>(frame: &F, ip: &Ip, at: usize) -> Result<Parsed, Reason> {
    // The IP payload must hold the header, not merely the frame: padding is not payload.
    if at + Tcp::LEN > ip.end {
        return Err(Reason::TcpTruncated);
    }
    let header = Tcp::read(frame, at).ok_or(Reason::TcpTruncated)?;
    let header_len = header.header_len();
    if header_len < Tcp::LEN || at + header_len > ip.end {
        return Err(Reason::TcpHeaderLength);
    }
    let ports = [header.source_port(), header.destination_port()];
    let payload = Payload::Tcp {
        opens: header.opens(),
    };
    Ok(ip.with_ports(payload, protocol::TCP, at, ports))
}

#[inline(always)]
fn udp<F: Frame>(frame: &F, ip: &Ip, at: usize) -> Result<Parsed, Reason> {
    if at + Udp::LEN > ip.end {
        return Err(Reason::UdpTruncated);
    }
    let header = Udp::read(frame, at).ok_or(Reason::UdpTruncated)?;
    let length = usize::from(header.length());
    if length < Udp::LEN || at + length > ip.end {
        return Err(Reason::UdpLength);
    }
    let ports = [header.source_port(), header.destination_port()];
    Ok(ip.with_ports(Payload::Udp, protocol::UDP, at, ports))
}

#[inline(always)]
fn icmp<F: Frame>(frame: &F, ip: &Ip, at: usize, next: u8, echo: u8) -> Result<Parsed, Reason> {
    if at + Icmp::LEN > ip.end {
        return Err(Reason::IcmpTruncated);
    }
    let header = Icmp::read(frame, at).ok_or(Reason::IcmpTruncated)?;
    let is_echo = header.kind() == echo && header.code() == 0;
    let payload = if is_echo {
        Payload::Echo
    } else {
        Payload::Other
    };
    Ok(ip.with_ports(payload, next, at, [0; 2]))
}

#[cfg(test)]
mod tests;
