//! Why a packet was forwarded, passed on, answered or dropped: the one table for counters, CLI,
//! metrics and documentation.
//!
//! Each packet that enters the program is counted under exactly one reason, so the sum over the
//! reasons is the number of packets received.

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Handed to the host's network stack (`XDP_PASS`).
    Pass,
    /// Dropped (`XDP_DROP`).
    Drop,
    /// Sent to a backend (`XDP_TX` or `XDP_REDIRECT`).
    Forward,
    /// Answered by the program itself (`XDP_TX`).
    Reply,
}

impl Action {
    /// Name for metrics and the CLI.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Forward => "forward",
            Self::Reply => "reply",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident, $action:ident, $name:literal, $text:literal;)+) => {
        /// Why a packet met its fate. The numbers are indexes of the counter map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = $text] $variant,)+
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// What happens to packets of this reason.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action,)+ }
            }

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

reasons! {
    ForwardedL2, Forward, "forwarded_l2", "Sent to a backend by rewriting the MAC addresses.";
    ForwardedIpip, Forward, "forwarded_ipip", "Sent to a backend through an IP-in-IP tunnel.";
    EchoReplied, Reply, "echo_replied", "ICMP echo request to a VIP, answered.";
    NotIp, Pass, "not_ip", "Neither IPv4 nor IPv6, such as ARP; the host's business.";
    NotVip, Pass, "not_vip", "Not addressed to a VIP; the host's business.";
    OtherProtocol, Pass, "other_protocol",
        "To the address of a VIP, but neither TCP, UDP nor an echo request.";
    ExtensionsTooMany, Pass, "extensions_too_many",
        "More IPv6 extension headers than the program follows.";
    FrameTruncated, Drop, "frame_truncated", "Ends inside the Ethernet header or a VLAN tag.";
    Ipv4Truncated, Drop, "ipv4_truncated", "Ends inside the IPv4 header.";
    Ipv4Version, Drop, "ipv4_version", "Says IPv4 in Ethernet, another version in the header.";
    Ipv4HeaderLength, Drop, "ipv4_header_length", "IPv4 header length below 20 bytes.";
    Ipv4TotalLength, Drop, "ipv4_total_length",
        "IPv4 total length is beyond the frame or shorter than the header.";
    Ipv6Truncated, Drop, "ipv6_truncated", "Ends inside the IPv6 header or an extension header.";
    Ipv6Version, Drop, "ipv6_version", "Says IPv6 in Ethernet, another version in the header.";
    Ipv6PayloadLength, Drop, "ipv6_payload_length", "IPv6 payload length is beyond the frame.";
    TcpTruncated, Drop, "tcp_truncated", "IP payload ends inside the TCP header.";
    TcpHeaderLength, Drop, "tcp_header_length",
        "TCP data offset below 20 bytes or beyond the IP payload.";
    UdpTruncated, Drop, "udp_truncated", "IP payload ends inside the UDP header.";
    UdpLength, Drop, "udp_length", "UDP length below 8 bytes or beyond the IP payload.";
    IcmpTruncated, Drop, "icmp_truncated", "IP payload ends inside the ICMP header.";
    Fragment, Drop, "fragment", "Fragment of a datagram to a VIP; it may carry no ports.";
    NoBackend, Drop, "no_backend", "The VIP has no backend to send to.";
    BackendUnknown, Drop, "backend_unknown", "The ring names a backend that the table lacks.";
    NextHopUnknown, Drop, "next_hop_unknown", "The MAC address of the next hop is not resolved.";
    FamilyMismatch, Drop, "family_mismatch",
        "The VIP forwards by MAC address to a backend of the other IP version.";
    PacketTooBig, Drop, "packet_too_big", "With the tunnel header beyond the way's MTU.";
    NoHeadroom, Drop, "no_headroom", "The driver left no room in front for the tunnel header.";
    TableMissing, Drop, "table_missing", "A map of the program is missing or too small.";
}

/// Number of reasons: elements of the counter map.
pub const REASONS: u32 = Reason::ALL.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indexes_and_names_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let same = Reason::ALL
                .iter()
                .filter(|other| other.name() == reason.name())
                .count();
            assert_eq!(same, 1, "{}", reason.name());
        }
    }
}
