//! The maps, by their pinned names.

use std::os::fd::AsFd as _;
use std::time::Instant;

use aya::Pod;
use aya::maps::{Array, Map, MapData, MapError};
use lb_ebpf::abi::{self, Backend, Egress, Mark, Settings, Slot, Vip, VipCell, VipKey, map};
use lb_ebpf::flow_table::{self, Put, Remembered};
use lb_ebpf::reason::REASONS;
use lb_ebpf::steer::Tables;
use lb_ebpf::track::{EVENTS, Event, FlowTable, FlowTables};
use lb_ebpf::vip_table;
use tracing::info;

use super::flows::Flows;
use super::ring::{Halves, Rings};
use super::vips::{Full, Table};
use super::{Error, Pins, clock, grace, stats};
use crate::config::Limits;
use crate::control::apply::{Forget, Store};

/// Elements of the maps whose size is a matter of configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// VIPs, at most.
    pub vips: u32,
    /// Backend ids, id 0 (no backend) included.
    pub backends: u32,
    /// Ring slots over all VIPs and both generations.
    pub ring_slots: u32,
    /// Flows on moving slots whose owner is remembered.
    pub exceptions: u32,
    /// Flows of VIPs with full tracking.
    pub flows: u32,
    /// Exceptions that one CPU may make in a second: no size, but it comes with them.
    pub inserts_per_second: u32,
}

impl Sizes {
    /// What `limits` come to: rings have two generations, and each begins at an even slot.
    pub fn new(limits: Limits) -> Self {
        let pairs = limits.ring_slots_max.saturating_add(limits.vips_max);
        Self {
            vips: limits.vips_max,
            backends: limits.backends_max.saturating_add(1),
            ring_slots: pairs.saturating_mul(2),
            exceptions: limits.exceptions_max,
            flows: limits.flows_max,
            inserts_per_second: limits.inserts_per_second_max,
        }
    }

    /// Map name and number of elements. The VIP table has room for as many addresses as VIPs.
    pub(super) fn elements(self) -> [(&'static str, u32); 10] {
        [
            (map::VIPS, vip_table::cells(self.vips)),
            (map::RINGS, self.ring_slots / abi::SLOTS_PER_CELL),
            (map::MARKS, self.ring_slots / abi::SLOTS_PER_CELL),
            (map::EXCEPTIONS, flow_table::buckets(self.exceptions)),
            (map::FLOWS, flow_table::buckets(self.flows)),
            (map::TRACK_COUNTS, EVENTS),
            (map::BACKENDS, self.backends),
            (map::VIP_COUNTS, self.vips),
            (map::BACKEND_COUNTS, self.backends),
            (map::REASON_COUNTS, REASONS),
        ]
    }
}

/// All maps of the balancer.
pub struct Maps {
    settings: Array<MapData, Settings>,
    vips: Array<MapData, VipCell>,
    vip_table: Table,
    backends: Array<MapData, Backend>,
    rings: Rings,
    marks: Rings<Mark>,
    exceptions: Flows,
    flows: Flows,
    pub(super) counters: stats::Counters,
}

impl Maps {
    /// Opens the pinned maps.
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        let vips: Array<MapData, VipCell> = open_array(pins, map::VIPS)?;
        let vip_table = vips
            .iter()
            .collect::<Result<Vec<_>, _>>()
            .map(Table::new)
            .map_err(|source| Error::map("read", map::VIPS, source))?;
        Ok(Self {
            settings: open_array(pins, map::SETTINGS)?,
            vips,
            vip_table,
            backends: open_array(pins, map::BACKENDS)?,
            rings: open_rings(pins, map::RINGS)?,
            marks: open_rings(pins, map::MARKS)?,
            exceptions: open_flows(pins, map::EXCEPTIONS)?,
            flows: open_flows(pins, map::FLOWS)?,
            counters: stats::Counters::open(pins)?,
        })
    }

    /// What holds for the whole data path.
    pub fn read_settings(&self) -> Result<Settings, Error> {
        self.settings
            .get(&0, 0)
            .map_err(|source| Error::map("read", map::SETTINGS, source))
    }

    /// Replaces what holds for the whole data path.
    pub fn write_settings(&mut self, settings: &Settings) -> Result<(), Error> {
        self.settings
            .set(0, settings, 0)
            .map_err(|source| Error::map("write", map::SETTINGS, source))
    }

    /// All VIP and address entries.
    pub fn read_vips(&self) -> Vec<(VipKey, Vip)> {
        self.vip_table.entries().collect()
    }

    /// Changes of the VIP table so far: to be told to [`grace_passed`](Self::grace_passed) by whoever
    /// begins to wait for a grace period now.
    pub fn vip_changes(&self) -> u64 {
        self.vip_table.changes()
    }

    /// Notes that a grace period has passed since there were so many changes of the VIP table.
    pub fn grace_passed(&mut self, vip_changes: u64) {
        self.vip_table.grace_passed(vip_changes);
    }

    fn flow_table(&self, table: FlowTable) -> &Flows {
        match table {
            FlowTable::Exceptions => &self.exceptions,
            FlowTable::Flows => &self.flows,
        }
    }

    /// Flows of `table` that had a packet within the last `quiet_s` seconds; an estimate when the
    /// table is large.
    pub fn live_flows(&self, table: FlowTable, quiet_s: u32) -> u64 {
        let since_s = clock::now_s().saturating_sub(quiet_s);
        self.flow_table(table).seen_since(since_s)
    }

    /// All backends, by id.
    pub fn read_backends(&self) -> Result<Vec<(u16, Backend)>, Error> {
        let mut found = Vec::new();
        for (id, backend) in (0_u16..=u16::MAX).zip(self.backends.iter()) {
            let backend = backend.map_err(|source| Error::map("read", map::BACKENDS, source))?;
            if backend.family != 0 {
                found.push((id, backend));
            }
        }
        Ok(found)
    }

    /// The `len` slots from `start` on; `None` when the ring map has no such slots.
    pub fn read_ring(&self, start: u32, len: u32) -> Option<Vec<Slot>> {
        self.rings.read(start, len)
    }

    /// The marks of the `len` slots from `start` on.
    pub fn read_marks(&self, start: u32, len: u32) -> Option<Vec<Mark>> {
        self.marks.read(start, len)
    }

    /// Ring slots there are.
    pub fn ring_slots(&self) -> usize {
        self.rings.slots()
    }

    /// Every counter, summed over the CPUs.
    pub fn totals(&self) -> Result<stats::Totals, Error> {
        self.counters.totals()
    }
}

impl Store for Maps {
    type Error = Error;

    fn wait_grace_period(&mut self) {
        let changes = self.vip_table.changes();
        grace::wait();
        self.vip_table.grace_passed(changes);
    }

    fn write_ring(&mut self, start: u32, slots: &[Slot], marks: &[Mark]) -> Result<(), Error> {
        if self.marks.write(start, marks) && self.rings.write(start, slots) {
            Ok(())
        } else {
            Err(Error::RingBounds {
                start,
                len: slots.len(),
            })
        }
    }

    fn write_vip(&mut self, key: VipKey, vip: Option<Vip>) -> Result<(), Error> {
        let change = match vip {
            Some(vip) => self
                .vip_table
                .set(key, vip)
                .map_err(|_: Full| Error::VipTableFull)?,
            None => match self.vip_table.remove(&key) {
                Some(change) => change,
                None => return Ok(()),
            },
        };
        if change.grace_period {
            self.wait_grace_period();
        }
        for step in &change.steps {
            self.vips
                .set(change.index, step, 0)
                .map_err(|source| Error::map("write", map::VIPS, source))?;
        }
        self.vip_table.commit(&change);
        Ok(())
    }

    fn write_backend(&mut self, id: u16, backend: &Backend) -> Result<(), Error> {
        self.backends
            .set(u32::from(id), backend, 0)
            .map_err(|source| Error::map("write", map::BACKENDS, source))
    }

    fn clear_vip_counts(&mut self, id: u32) -> Result<(), Error> {
        self.counters.clear_vip(id)
    }

    fn clear_backend_counts(&mut self, id: u16) -> Result<(), Error> {
        self.counters.clear_backend(id)
    }

    fn forget_flows(&mut self, which: Forget<'_>) {
        let started = Instant::now();
        let forgotten = self
            .flows
            .retain(|flow| !which.covers(flow.tag, flow.owner));
        let took = started.elapsed();
        if forgotten > 0 {
            info!(forgotten, ?took, "full tracking forgot flows");
        }
    }
}

/// The live tables, for `weir explain`: the kernel's own steering code asks these maps.
pub struct LiveTables<'a> {
    maps: &'a Maps,
    settings: Settings,
}

impl Maps {
    /// A view for the steering code, with the settings as they are now.
    pub fn tables(&self) -> Result<LiveTables<'_>, Error> {
        Ok(LiveTables {
            maps: self,
            settings: self.read_settings()?,
        })
    }
}

impl Tables for LiveTables<'_> {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn vip(&self, key: &VipKey) -> Option<Vip> {
        let mask = self.maps.vips.len().checked_sub(1)?;
        vip_table::find(key, mask, |index| self.maps.vips.get(&index, 0).ok())
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.maps.rings.slot(index)
    }

    fn backend(&self, id: u16) -> Option<Egress> {
        self.maps.backends.get(&u32::from(id), 0).ok()?.egress()
    }
}

/// Reads only: explaining a packet leaves no trace.
impl FlowTables for LiveTables<'_> {
    fn now_s(&self) -> u32 {
        clock::now_s()
    }

    fn mark(&self, index: u32) -> Option<Mark> {
        self.maps.marks.slot(index)
    }

    fn note_hit(&self, _: u32, _: u16) {}

    fn recall(&self, table: FlowTable, fingerprint: u64, _: u32) -> Option<Remembered> {
        self.maps.flow_table(table).find(fingerprint)
    }

    fn remember(&self, _: FlowTable, _: u64, _: Remembered, _: u32) -> Put {
        Put::Lost
    }

    fn spend(&self, _: u32, _: u32) -> bool {
        false
    }

    fn count(&self, _: Event) {}
}

/// Maps a pinned array of slots or marks into memory.
fn open_rings<T: Halves>(pins: &Pins, name: &'static str) -> Result<Rings<T>, Error> {
    let rings = open_map(pins, name)?;
    let fail = |source| Error::map("open", name, source);
    let cells = rings.info().map_err(fail)?.max_entries();
    Rings::of_map(rings.fd().as_fd(), cells)
        .map_err(|source| Error::io("map into memory", &pins.map(name), source))
}

/// Maps a pinned flow table into memory.
fn open_flows(pins: &Pins, name: &'static str) -> Result<Flows, Error> {
    let flows = open_map(pins, name)?;
    let fail = |source| Error::map("open", name, source);
    let buckets = flows.info().map_err(fail)?.max_entries();
    Flows::of_map(flows.fd().as_fd(), buckets)
        .map_err(|source| Error::io("map into memory", &pins.map(name), source))
}

/// Opens the pinned map `name`, whatever its type.
pub(super) fn open_map(pins: &Pins, name: &'static str) -> Result<MapData, Error> {
    MapData::from_pin(pins.map(name)).map_err(|source| Error::map("open", name, source))
}

fn open_array<V: Pod>(pins: &Pins, name: &'static str) -> Result<Array<MapData, V>, Error> {
    typed(name, Map::Array(open_map(pins, name)?))
}

/// Gives a map its key and value types, which aya checks against the sizes in the kernel.
pub(super) fn typed<T>(name: &'static str, map: Map) -> Result<T, Error>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(map).map_err(|source| Error::map("open", name, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_leave_room_for_both_generations_at_even_slots() {
        let limits = Limits {
            vips_max: 2,
            backends_max: 10,
            ring_slots_max: 2 * 251,
            exceptions_max: 1024,
            flows_max: 2048,
            inserts_per_second_max: 7,
        };
        let sizes = Sizes::new(limits);
        // Two rings of 251 slots: each generation takes 252.
        assert_eq!(sizes.ring_slots, 4 * 252);
        assert_eq!(sizes.backends, 11);
        assert_eq!(sizes.elements()[0], (map::VIPS, 32));
        // Two flows to a bucket of four.
        assert_eq!(
            sizes.elements()[3..5],
            [(map::EXCEPTIONS, 512), (map::FLOWS, 1024)]
        );
        assert_eq!(sizes.inserts_per_second, 7);
    }
}
