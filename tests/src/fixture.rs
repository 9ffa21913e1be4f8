//! A small balancer whose tables a reader can hold in the head, for kernel and host alike.
//!
//! The same [`Fixture`] answers the packet logic on the host (it implements
//! [`Tables`]) and fills the maps of the kernel program, so a test can
//! ask both the same question.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use lb_ebpf::{
    abi::{
        Backend, Egress, Forward, HashKind, Hop, Mark, Settings, Slot, Tracking, VERSION, Vip,
        VipKey, forward, tracking,
    },
    address::{Address, Mac},
    flow::{Family, Flow},
    flow_table::{Put, Remembered},
    hash,
    steer::Tables,
    track::{EVENTS, Event, FlowTable, FlowTables},
    wire::protocol::{TCP, UDP},
};
use lb_userspace::dataplane::clock;

/// Interface that `BPF_PROG_TEST_RUN` says a packet came in through: the loopback device.
pub const INGRESS: u32 = 1;
/// Another interface, for packets that leave elsewhere.
pub const ELSEWHERE: u32 = 7;
/// Outer source of IPv4 tunnels.
pub const SOURCE_V4: Address = Address::v4([10, 0, 0, 1]);
/// Outer source of IPv6 tunnels.
pub const SOURCE_V6: Address = Address::v6(v6(0x01));
/// MAC address of every next hop.
pub const HOP_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
/// MAC address of the balancer.
pub const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
/// The IPv4 address of the VIPs.
pub const VIP_V4: [u8; 4] = [203, 0, 113, 10];
/// The IPv6 address of the VIPs.
pub const VIP_V6: [u8; 16] = v6(0x10);
/// MTU of the way to every backend.
pub const MTU: u16 = 1500;

/// Port of the VIPs that forward by MAC address.
pub const PORT_L2: u16 = 80;
/// Port of the VIPs that tunnel to an IPv4 backend.
pub const PORT_IPIP_V4: u16 = 443;
/// Port of the VIPs that tunnel to an IPv6 backend.
pub const PORT_IPIP_V6: u16 = 444;
/// Port of the VIPs without a backend.
pub const PORT_EMPTY: u16 = 1000;
/// Port of the VIPs whose ring names a backend that is not in the table.
pub const PORT_UNKNOWN: u16 = 1001;
/// Port of the VIPs whose backend has no resolved next hop.
pub const PORT_UNRESOLVED: u16 = 1002;
/// Port of the VIPs whose backend is behind another interface.
pub const PORT_ELSEWHERE: u16 = 1003;
/// Port of the VIPs that forward by MAC address to a backend of the other family.
pub const PORT_MISMATCH: u16 = 1004;
/// Port of the VIPs with a full ring over two backends, by source address.
pub const PORT_RING: u16 = 1005;

/// Port of the VIPs whose slots all move from [`backend::V4_SECOND`] to [`backend::V4`].
pub const PORT_MOVING: u16 = 1006;
/// Port of the same VIPs, when the window for unknown UDP flows is long over.
pub const PORT_MOVING_LATE: u16 = 1007;
/// Port of the VIPs whose slots move away from a backend that is not in the table.
pub const PORT_MOVING_GONE: u16 = 1008;
/// Port of the VIPs whose slots move away from a backend without a next hop.
pub const PORT_MOVING_UNRESOLVED: u16 = 1009;
/// Port of the VIPs with a full ring of which every third slot moves.
pub const PORT_MOVING_RING: u16 = 1010;

/// Port of the VIPs with full tracking whose slot is [`backend::V4`]'s.
pub const PORT_TRACKED: u16 = 1011;
/// Port of the same VIPs, whose slot moves there from [`backend::V4_SECOND`].
pub const PORT_TRACKED_MOVING: u16 = 1012;
/// Port of the VIPs whose only backend, [`backend::V4_SECOND`], is being drained.
pub const PORT_DRAINED: u16 = 1013;

/// How long ago slots began to move, in seconds.
pub const MOVING_FOR_S: u32 = 100;
/// And those that began to move when the window was still open.
pub const MOVING_LATE_FOR_S: u32 = 10_000;
/// The window for unknown UDP flows, in seconds: far from both.
pub const QUIET_S: u32 = 5_000;

/// Backend ids.
pub mod backend {
    /// IPv4, same interface.
    pub const V4: u16 = 1;
    /// IPv6, same interface.
    pub const V6: u16 = 2;
    /// IPv4, no next hop.
    pub const UNRESOLVED: u16 = 3;
    /// IPv4, another interface.
    pub const ELSEWHERE: u16 = 4;
    /// A second IPv4 one on the same interface.
    pub const V4_SECOND: u16 = 5;
    /// In no table.
    pub const UNKNOWN: u16 = 60;
}

/// `2001:db8::` with `last` as its last byte.
pub const fn v6(last: u8) -> [u8; 16] {
    [
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last,
    ]
}

/// Settings, VIPs, ring slots and backends.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Element of the settings map.
    pub settings: Settings,
    /// Elements of the VIP map.
    pub vips: BTreeMap<VipKey, Vip>,
    /// The ring map, slot by slot.
    pub slots: Vec<Slot>,
    /// The mark map, slot by slot.
    pub marks: Vec<Mark>,
    /// The backend map by id; empty elements are no backends.
    pub backends: Vec<Backend>,
    /// Seconds of the monotonic clock. The host's stands still.
    pub now_s: u32,
    /// What is remembered about flows on moving slots, by fingerprint.
    pub exceptions: RefCell<BTreeMap<u64, Remembered>>,
    /// What is remembered about flows of VIPs with full tracking, by fingerprint.
    pub flows: RefCell<BTreeMap<u64, Remembered>>,
    /// Exceptions that may still be made.
    pub budget: Cell<u32>,
    /// What happened on moving slots, by event.
    pub events: RefCell<[u64; EVENTS as usize]>,
    /// Slots whose previous owner had a packet.
    pub hits: RefCell<Vec<u32>>,
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    /// Every mode and every refusal, each under a port of its own, on both VIP addresses.
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings {
            hash_key: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
            source_v6: SOURCE_V6,
            source_v4: SOURCE_V4,
            version: VERSION,
            quiet_s: QUIET_S,
        };
        let mut fixture = Self {
            settings,
            vips: BTreeMap::new(),
            slots: Vec::new(),
            marks: Vec::new(),
            backends: backends(),
            now_s: clock::now_s(),
            exceptions: RefCell::default(),
            flows: RefCell::default(),
            budget: Cell::new(u32::MAX),
            events: RefCell::default(),
            hits: RefCell::default(),
        };
        let l2 = [backend::V4, backend::V6];
        fixture.add(PORT_L2, forward::L2, l2.map(|id| vec![id]), 0);
        for (port, id) in [
            (PORT_IPIP_V4, backend::V4),
            (PORT_IPIP_V6, backend::V6),
            (PORT_EMPTY, 0),
            (PORT_UNKNOWN, backend::UNKNOWN),
            (PORT_UNRESOLVED, backend::UNRESOLVED),
            (PORT_ELSEWHERE, backend::ELSEWHERE),
        ] {
            fixture.add(port, forward::IPIP, [vec![id], vec![id]], 0);
        }
        let swapped = [backend::V6, backend::V4];
        fixture.add(PORT_MISMATCH, forward::L2, swapped.map(|id| vec![id]), 0);
        let ring: Vec<u16> = (0..251)
            .map(|slot| {
                if slot % 3 == 0 {
                    backend::V4
                } else {
                    backend::V4_SECOND
                }
            })
            .collect();
        fixture.add(PORT_RING, forward::IPIP, [ring.clone(), ring], 1);
        fixture.add_moving();
        for address in [Address::v4(VIP_V4), Address::v6(VIP_V6)] {
            let entry = fixture.vip(0, 0, forward::ADDRESS, 0);
            fixture.vips.insert(VipKey::address_entry(address), entry);
        }
        fixture
    }

    /// Adds a VIP at `address` and `port` (0 = every port), whose ring names
    /// `backends`.
    pub fn add_vip(
        &mut self,
        address: Address,
        port: u16,
        protocol: u8,
        forward: Forward,
        backends: &[u16],
    ) {
        let (start, size) = self.place(backends);
        let vip = self.vip(start, size, forward, 0);
        self.vips.insert(VipKey::new(address, port, protocol), vip);
    }

    /// Adds `count` backends like `model`, each with an address of its own; returns their ids.
    pub fn add_backends(&mut self, model: u16, count: usize) -> Vec<u16> {
        let first = self.backends.len();
        let ids = first..first + count;
        for id in ids.clone() {
            let mut bytes = self.backends[usize::from(model)].address.to_bytes();
            bytes[14..].copy_from_slice(&(id as u16).to_be_bytes());
            let address = Address::v6(bytes);
            self.backends.push(Backend {
                address,
                ..self.backends[usize::from(model)]
            });
        }
        ids.map(|id| id as u16).collect()
    }

    fn add(&mut self, port: u16, forward: Forward, rings: [Vec<u16>; 2], hash: HashKind) {
        for (address, ring) in [Address::v4(VIP_V4), Address::v6(VIP_V6)]
            .into_iter()
            .zip(rings)
        {
            let (start, size) = self.place(&ring);
            for protocol in [TCP, UDP] {
                let vip = self.vip(start, size, forward, hash);
                self.vips.insert(VipKey::new(address, port, protocol), vip);
            }
        }
    }

    fn add_moving(&mut self) {
        let to = backend::V4;
        for (port, from, for_s) in [
            (PORT_MOVING, backend::V4_SECOND, MOVING_FOR_S),
            (PORT_MOVING_LATE, backend::V4_SECOND, MOVING_LATE_FOR_S),
            (PORT_MOVING_GONE, backend::UNKNOWN, MOVING_FOR_S),
            (PORT_MOVING_UNRESOLVED, backend::UNRESOLVED, MOVING_FOR_S),
            (PORT_TRACKED_MOVING, backend::V4_SECOND, MOVING_FOR_S),
        ] {
            let start = self.slots.len();
            self.add(port, forward::IPIP, [vec![to], vec![to]], 0);
            self.moves(start, 1, from, for_s);
        }
        self.add(PORT_TRACKED, forward::IPIP, [vec![to], vec![to]], 0);
        for port in [PORT_TRACKED, PORT_TRACKED_MOVING] {
            self.track(port, tracking::FULL);
        }
        let start = self.slots.len();
        self.add(PORT_DRAINED, forward::IPIP, [vec![0], vec![0]], 0);
        self.moves(start, 1, backend::V4_SECOND, MOVING_FOR_S);
        let start = self.slots.len();
        let ring = vec![to; 251];
        self.add(PORT_MOVING_RING, forward::IPIP, [ring.clone(), ring], 0);
        self.moves(start, 3, backend::V4_SECOND, MOVING_FOR_S);
    }

    /// Every `step`-th slot from `start` on moves away from `previous`, and has for `for_s` seconds.
    pub fn moves(&mut self, start: usize, step: usize, previous: u16, for_s: u32) {
        let since = self.now_s.wrapping_sub(for_s) as u16;
        self.marks.resize(self.slots.len(), Mark::default());
        for index in (start..self.slots.len()).step_by(step) {
            self.slots[index].previous = previous;
            self.marks[index] = Mark::begun(since);
        }
    }

    /// The fingerprint of a flow to one of the VIPs.
    #[must_use]
    pub fn fingerprint(&self, flow: &Flow) -> u64 {
        let port = u16::from_be(flow.destination_port);
        let key = VipKey::new(flow.destination, port, flow.protocol);
        let hash = hash::flow(self.settings.hash_key, flow, self.vips[&key].hash);
        hash::fingerprint(hash, flow)
    }

    /// One of the two tables.
    #[must_use]
    pub fn flow_table(&self, table: FlowTable) -> &RefCell<BTreeMap<u64, Remembered>> {
        match table {
            FlowTable::Exceptions => &self.exceptions,
            FlowTable::Flows => &self.flows,
        }
    }

    /// Gives every VIP at `port` another kind of tracking.
    pub fn track(&mut self, port: u16, tracking: Tracking) {
        for (key, vip) in &mut self.vips {
            if u16::from_be(key.port) == port {
                vip.tracking = tracking;
            }
        }
    }

    /// How often `event` happened.
    pub fn event(&self, event: Event) -> u64 {
        self.events.borrow()[event as usize]
    }

    fn vip(&self, ring_start: u32, ring_size: u32, forward: Forward, hash: HashKind) -> Vip {
        let id = self.vips.len() as u32;
        Vip {
            ring_start,
            ring_size,
            id,
            forward,
            hash,
            tracking: tracking::MOVING,
            reserved: 0,
        }
    }

    /// Appends a ring that starts at an even slot.
    fn place(&mut self, ring: &[u16]) -> (u32, u32) {
        if self.slots.len() % 2 == 1 {
            self.slots.push(Slot::default());
        }
        let start = self.slots.len() as u32;
        self.slots.extend(ring.iter().map(|id| Slot::settled(*id)));
        (start, ring.len() as u32)
    }
}

fn backends() -> Vec<Backend> {
    let resolved = |address, family: Family, ifindex| {
        // The dead generation is poisoned: a reader that took it would be seen.
        let poison = Hop::new(Mac::new([0xee; 6]), Mac::new([0xee; 6]), 99);
        let hop = Hop::new(Mac::new(HOP_MAC), Mac::new(OWN_MAC), ifindex);
        let (hops, live) = match family {
            Family::V4 => ([hop, poison], 0),
            Family::V6 => ([poison, hop], 1),
        };
        Backend {
            address,
            hops,
            live,
            family: family as u8,
            mtu: MTU,
            reserved: [0; 12],
        }
    };
    let mut table = vec![Backend::default(); 64];
    table[usize::from(backend::V4)] = resolved(Address::v4([10, 0, 0, 2]), Family::V4, INGRESS);
    table[usize::from(backend::V6)] = resolved(Address::v6(v6(0x02)), Family::V6, INGRESS);
    table[usize::from(backend::UNRESOLVED)] = resolved(Address::v4([10, 0, 0, 3]), Family::V4, 0);
    table[usize::from(backend::ELSEWHERE)] =
        resolved(Address::v4([10, 0, 0, 4]), Family::V4, ELSEWHERE);
    table[usize::from(backend::V4_SECOND)] =
        resolved(Address::v4([10, 0, 0, 5]), Family::V4, INGRESS);
    table
}

impl Tables for Fixture {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn vip(&self, key: &VipKey) -> Option<Vip> {
        self.vips.get(key).copied()
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).copied()
    }

    fn backend(&self, id: u16) -> Option<Egress> {
        self.backends.get(usize::from(id))?.egress()
    }
}

impl FlowTables for Fixture {
    fn now_s(&self) -> u32 {
        self.now_s
    }

    fn mark(&self, index: u32) -> Option<Mark> {
        self.marks.get(index as usize).copied()
    }

    fn note_hit(&self, index: u32, _: u16) {
        self.hits.borrow_mut().push(index);
    }

    fn recall(&self, table: FlowTable, fingerprint: u64, _: u32) -> Option<Remembered> {
        self.flow_table(table).borrow().get(&fingerprint).copied()
    }

    fn remember(&self, table: FlowTable, fingerprint: u64, new: Remembered, _: u32) -> Put {
        let mut flows = self.flow_table(table).borrow_mut();
        match flows.insert(fingerprint, new) {
            Some(_) => Put::Updated,
            None => Put::Inserted,
        }
    }

    fn spend(&self, _: u32, divisor: u32) -> bool {
        // The kernel knows what was spent, this one what is left: the same while there is plenty.
        let left = self.budget.get() / divisor;
        if left > 0 {
            self.budget.set(self.budget.get() - 1);
        }
        left > 0
    }

    fn count(&self, event: Event) {
        self.events.borrow_mut()[event as usize] += 1;
    }
}
