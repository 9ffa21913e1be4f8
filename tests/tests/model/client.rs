//! Clients: each has one flow to one VIP, and opens it again after it has ended.

use std::cell::OnceCell;
use std::net::IpAddr;

use lb_ebpf::abi::VipKey;
use lb_ebpf::flow::{Family, Flow};
use lb_ebpf::hash;
use lb_ebpf::steer;
use lb_ebpf::track::Packet;
use tests::packet::{self, Addresses, Segment};

use crate::seen::Kind;
use crate::window::Window;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Where a VIP is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) udp: bool,
}

impl Door {
    pub(crate) fn key(&self) -> VipKey {
        VipKey::new(self.address.into(), self.port, self.protocol())
    }

    fn protocol(&self) -> u8 {
        if self.udp { UDP } else { TCP }
    }
}

/// One end of a flow.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Number of its VIP.
    pub(crate) vip: usize,
    pub(crate) udp: bool,
    pub(crate) flow: Flow,
    pub(crate) fingerprint: u64,
    addresses: Addresses,
    ports: (u16, u16),
    /// Its frames, the opening one first: as of when it has sent one.
    frames: [OnceCell<Vec<u8>>; 2],
    /// Sends a packet every so many seconds.
    pub(crate) every_s: u32,
    /// Its connection, while it has one.
    pub(crate) live: Option<Live>,
    /// The backend to which a packet of it went that was in flight while this backend was lost. Full
    /// tracking may remember that until the packets of that moment are through.
    pub(crate) strayed_to: Option<IpAddr>,
    /// The backend that full tracking may remember for it, by the model's own book: its slot has led it
    /// there, and the agent has not given that backend up since.
    pub(crate) led_to: Option<IpAddr>,
}

/// Number of a publish.
pub(crate) type Publish = u64;

/// A live connection, or a UDP flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    /// Where its first packet was answered.
    pub(crate) backend: IpAddr,
    /// When its last packet was sent, by the monotonic clock.
    pub(crate) seen_s: u32,
    /// The agent may not know of that packet: it came during this publish. And when the last one came
    /// that the agent knew of then.
    pub(crate) unseen: Option<(Publish, u32)>,
    /// Number of the publish during or after which it was opened.
    pub(crate) opened_in: Publish,
    /// A packet of it was not remembered, or forgotten again.
    pub(crate) unpinned: bool,
    /// The publish during or after which it was last forgotten in that way, and the window in which it
    /// was.
    pub(crate) forgotten: Option<(Publish, Window)>,
    /// What its VIP was for its last packet.
    pub(crate) kind: Option<Kind>,
    /// Its next packet would go elsewhere, because of this.
    pub(crate) doom: Option<Window>,
    /// It would have gone elsewhere, but for this publish.
    pub(crate) spared: Option<(Publish, Window)>,
}

impl Client {
    /// Client number `number` of a VIP. Every number is another flow.
    pub(crate) fn new(vip: usize, door: &Door, number: u32, every_s: u32, key: [u64; 2]) -> Self {
        // Some clients have many flows, so that addresses repeat and ports tell flows apart.
        let (host, port) = (number / 7, 1024 + (number % 7) as u16 * 977);
        let [_, high, middle, low] = host.to_be_bytes();
        let (source, addresses, family) = match door.address {
            IpAddr::V4(vip) => {
                let source = [198, 18 + high, middle, low];
                let addresses = Addresses::V4(source, vip.octets());
                (IpAddr::from(source), addresses, Family::V4)
            }
            IpAddr::V6(vip) => {
                let mut source = [0; 16];
                source[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
                source[12..].copy_from_slice(&host.to_be_bytes());
                let addresses = Addresses::V6(source, vip.octets());
                (IpAddr::from(source), addresses, Family::V6)
            }
        };
        let ends = (
            (source.into(), port),
            (door.address.into(), door.port),
            door.protocol(),
        );
        let flow = steer::flow(family, ends.0, ends.1, ends.2);
        let hash = hash::flow(key, &flow, lb_ebpf::abi::hash_kind::FIVE_TUPLE);
        Self {
            vip,
            udp: door.udp,
            flow,
            fingerprint: hash::fingerprint(hash, &flow),
            addresses,
            ports: (port, door.port),
            frames: Default::default(),
            every_s,
            live: None,
            strayed_to: None,
            led_to: None,
        }
    }

    /// What the balancer is to make of a packet in the middle of the flow.
    pub(crate) fn middle(&self) -> Packet {
        if self.udp {
            Packet::Datagram
        } else {
            Packet::Segment
        }
    }

    /// A frame of the flow, with room in front.
    pub(crate) fn frame(&self, opens: bool, headroom: usize) -> Vec<u8> {
        let segment = if opens { Segment::Syn } else { Segment::Ack };
        let frame = self.frames[usize::from(!opens)].get_or_init(|| match self.udp {
            true => packet::udp(self.addresses, self.ports, b"x"),
            false => packet::tcp(self.addresses, self.ports, segment, b"x"),
        });
        let mut bytes = vec![0; headroom + frame.len()];
        bytes[headroom..].copy_from_slice(frame);
        bytes
    }
}
