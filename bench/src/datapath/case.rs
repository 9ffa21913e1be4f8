//! What is sent, and through what: the cases of the data path bench.

use lb_ebpf::{
    abi::{self, Forward, Tracking, forward, tracking},
    address::Address,
    flow::Family,
    hash, steer,
    wire::protocol::{TCP, UDP},
};
use tests::{
    fixture::{Fixture, MOVING_FOR_S, VIP_V4, VIP_V6, backend},
    object::Room,
    packet::{self, Addresses, Segment},
};

/// Slots of the rings under test, but for those of many VIPs.
const RING_SIZE: usize = 65_537;
/// Slots of each ring where there are many VIPs.
const RING_SIZE_SMALL: usize = 251;
/// Port of the first VIP under test.
const FIRST_PORT: u16 = 10_000;
/// Source port of flow 0, as the harness makes it.
const FLOW_0_PORT: u16 = 1024;
/// Source address of IPv4 flow 0, and the last 32 bits of that of IPv6 flow 0.
const FLOW_0_SOURCE: u32 = 0xc612_0000;
/// The other bits of it.
const SOURCE_V6: [u8; 16] = [0x20; 16];

/// Numbers of flows for every case that knows its flows.
const FLOWS: [u32; 4] = [1, 1 << 16, 1 << 20, FLOWS_MOST];
const FLOWS_MOST: u32 = 1 << 22;
/// So many that a bench never sends two packets of one.
pub(crate) const FLOWS_ENDLESS: u32 = 1 << 27;
/// Room for all of the new flows of a bench.
const ROOM_AMPLE: u32 = 1 << 23;
/// Room that the first pass of new flows fills twice over.
const ROOM_SCARCE: u32 = 1 << 20;

/// How many of the slots move: every one of so many; 0 for none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step(pub(crate) usize);

const SETTLED: Step = Step(0);
const ALL_MOVE: Step = Step(1);
const THIRD_MOVES: Step = Step(3);

impl Step {
    /// The share of slots that move, in percent.
    pub(crate) fn percent(self) -> u32 {
        match self.0 {
            0 => 0,
            step => 100 / step as u32,
        }
    }
}

/// What the tables know about the flows that are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// All of them: they have been seen before.
    All,
    /// None, and there is room to remember them.
    None,
    /// None, and for each that is remembered another one is forgotten.
    NoneAndFull,
}

/// One line of the results, but for the number of flows.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) family: Family,
    pub(crate) mode: Forward,
    pub(crate) packet: &'static str,
    /// VIPs that there are.
    pub(crate) vips: u32,
    /// VIPs that packets go to, in no order.
    pub(crate) vips_used: u32,
    pub(crate) backends: usize,
    pub(crate) moving: Step,
    pub(crate) tracking: Tracking,
    pub(crate) known: Known,
}

/// Every family, mode and packet in every state of the slots; then other scales, and new flows.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let states = [
        (SETTLED, tracking::MOVING),
        (THIRD_MOVES, tracking::MOVING),
        (SETTLED, tracking::FULL),
    ];
    for (moving, tracking) in states {
        for mode in [forward::IPIP, forward::L2] {
            for family in [Family::V4, Family::V6] {
                for packet in ["tcp ack", "tcp syn", "udp"] {
                    cases.push(Case {
                        family,
                        mode,
                        packet,
                        moving,
                        tracking,
                        ..COMMON
                    });
                }
            }
        }
    }
    cases.extend(scales());
    cases.extend(new_flows());
    cases
}

const COMMON: Case = Case {
    family: Family::V4,
    mode: forward::IPIP,
    packet: "tcp ack",
    vips: 1,
    vips_used: 1,
    backends: 100,
    moving: SETTLED,
    tracking: tracking::MOVING,
    known: Known::All,
};

fn scales() -> [Case; 4] {
    let backends = |backends| Case { backends, ..COMMON };
    let vips_used = |vips_used| Case {
        vips: 10_000,
        vips_used,
        ..COMMON
    };
    [
        backends(10),
        backends(4000),
        vips_used(1),
        vips_used(10_000),
    ]
}

/// An insert for each packet. What a balancer with a connection table pays for every new flow, this
/// one pays while a slot moves, or with full tracking.
fn new_flows() -> impl Iterator<Item = Case> {
    let tables = [(ALL_MOVE, tracking::MOVING), (SETTLED, tracking::FULL)];
    tables.into_iter().flat_map(|(moving, tracking)| {
        [Known::None, Known::NoneAndFull].map(|known| Case {
            packet: "tcp syn",
            moving,
            tracking,
            known,
            ..COMMON
        })
    })
}

impl Case {
    /// Settled slots and IPv4, by forwarding mode.
    pub(crate) const fn settled(mode: Forward) -> Self {
        Self { mode, ..COMMON }
    }

    /// What is special about it: nothing is said of one VIP and a hundred backends.
    pub(crate) fn name(&self) -> String {
        let (mode, family, packet) = (self.mode_name(), self.family_name(), self.packet);
        let state = match (self.moving, self.tracking) {
            (_, tracking::FULL) => ", full tracking",
            (ALL_MOVE, _) => ", all moving",
            (THIRD_MOVES, _) => ", 1/3 moving",
            _ => ", settled",
        };
        let known = match self.known {
            Known::All => "",
            Known::None => ", new flows",
            Known::NoneAndFull => ", new flows, table full",
        };
        let mut name = format!("{mode} {family} {packet}{state}{known}");
        if self.vips != COMMON.vips {
            name += &format!(", {} of {} vips", self.vips_used, self.vips);
        }
        if self.backends != COMMON.backends {
            name += &format!(", {} backends", self.backends);
        }
        name
    }

    pub(crate) fn mode_name(&self) -> &'static str {
        if self.mode == forward::L2 {
            "l2"
        } else {
            "ipip"
        }
    }

    pub(crate) fn family_name(&self) -> &'static str {
        if self.family == Family::V4 {
            "v4"
        } else {
            "v6"
        }
    }

    pub(crate) fn tracking_name(&self) -> &'static str {
        if self.tracking == tracking::FULL {
            "full"
        } else {
            "moving"
        }
    }

    /// Whether the program looks flows up at all.
    pub(crate) fn remembers(&self) -> bool {
        self.moving != SETTLED || self.tracking == tracking::FULL
    }

    /// The numbers of flows with which the case is measured.
    pub(crate) fn flows(&self) -> &'static [u32] {
        match self.known {
            Known::All => &FLOWS,
            Known::None | Known::NoneAndFull => &[FLOWS_ENDLESS],
        }
    }

    /// Packets to send before time counts.
    pub(crate) fn first_pass(&self, flows: u32) -> u32 {
        match self.known {
            Known::All if self.remembers() => flows,
            Known::All | Known::None => 0,
            Known::NoneAndFull => 4 * ROOM_SCARCE,
        }
    }

    /// Room for all flows that come to be known, as much as by default at least, and next to nothing
    /// for other tables.
    pub(crate) fn room(&self, flows: u32) -> Room {
        let flows = match self.known {
            Known::All if self.tracking == tracking::FULL => flows.max(abi::FLOWS_MAX),
            // A third of the flows, and some more.
            Known::All => (flows / 2).max(abi::EXCEPTIONS_MAX),
            Known::None => ROOM_AMPLE,
            Known::NoneAndFull => ROOM_SCARCE,
        };
        let (mut exceptions, mut tracked) = (1, 1);
        if self.tracking == tracking::FULL {
            tracked = flows;
        } else if self.moving != SETTLED {
            exceptions = flows;
        }
        Room {
            exceptions,
            flows: tracked,
        }
    }

    /// Bytes that the program puts in front.
    pub(crate) fn growth(&self) -> u32 {
        match (self.mode, self.family) {
            (forward::L2, _) => 0,
            (_, Family::V4) => 20,
            (_, Family::V6) => 40,
        }
    }

    /// A packet of flow 0, but for its source port.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let addresses = match self.family {
            Family::V4 => Addresses::V4(FLOW_0_SOURCE.to_be_bytes(), VIP_V4),
            Family::V6 => Addresses::V6(SOURCE_V6, VIP_V6),
        };
        let ports = (FLOW_0_PORT, FIRST_PORT);
        match self.packet {
            "tcp syn" => packet::tcp(addresses, ports, Segment::Syn, &[0; 6]),
            "tcp ack" => packet::tcp(addresses, ports, Segment::Ack, &[0; 6]),
            _ => packet::udp(addresses, ports, &[0; 18]),
        }
    }

    /// What the harness has to know to send `flows` flows.
    pub(crate) fn settings(&self, flows: u32) -> abi::Harness {
        let frame = self.frame();
        let word = |at: usize| u16::from_ne_bytes([frame[2 * at], frame[2 * at + 1]]);
        let (source_at, port_at) = if self.family == Family::V4 {
            (26, 34)
        } else {
            (34, 54)
        };
        abi::Harness {
            flow_mask: flows - 1,
            source: FLOW_0_SOURCE,
            source_at,
            port_at,
            vips: self.vips_used,
            first_port: u32::from(FIRST_PORT),
            frame_len: frame.len() as u32,
            growth: self.growth(),
            ethernet: std::array::from_fn(word),
            reserved: [0; 2],
        }
    }

    pub(crate) fn fixture(&self) -> Fixture {
        let mut fixture = Fixture::new();
        let (vip, model) = match self.family {
            Family::V4 => (Address::v4(VIP_V4), backend::V4),
            Family::V6 => (Address::v6(VIP_V6), backend::V6),
        };
        let ids = fixture.add_backends(model, self.backends);
        let leaving = fixture.add_backends(model, 1)[0];
        let size = if self.vips == 1 {
            RING_SIZE
        } else {
            RING_SIZE_SMALL
        };
        // Neighbouring slots have different owners, as in a Maglev ring.
        let ring: Vec<u16> = (0..size).map(|slot| ids[slot * 7919 % ids.len()]).collect();
        for number in 0..self.vips {
            let port = FIRST_PORT + number as u16;
            // A ring begins at an even slot.
            let start = fixture.slots.len().next_multiple_of(2);
            fixture.add_vip(vip, port, self.protocol(), self.mode, &ring);
            fixture.track(port, self.tracking);
            if self.moving != SETTLED {
                // One that moves is flow 0's, so that one flow alone takes the way of those that move.
                let first = self.slot_of_flow_0(&fixture, vip, size) % self.moving.0;
                fixture.moves(start + first, self.moving.0, leaving, MOVING_FOR_S);
            }
        }
        fixture
    }

    fn protocol(&self) -> u8 {
        if self.packet == "udp" { UDP } else { TCP }
    }

    fn slot_of_flow_0(&self, fixture: &Fixture, vip: Address, ring_size: usize) -> usize {
        let source = FLOW_0_SOURCE.to_be_bytes();
        let source = match self.family {
            Family::V4 => Address::v4(source),
            Family::V6 => {
                let mut bytes = SOURCE_V6;
                bytes[12..].copy_from_slice(&source);
                Address::v6(bytes)
            }
        };
        let client = (source, FLOW_0_PORT);
        let flow = steer::flow(self.family, client, (vip, FIRST_PORT), self.protocol());
        let hash = hash::flow(fixture.settings.hash_key, &flow, abi::hash_kind::FIVE_TUPLE);
        hash::slot(hash, ring_size as u32) as usize
    }
}
