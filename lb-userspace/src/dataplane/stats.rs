//! Counters: per CPU in the kernel, summed here.

use aya::Pod;
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use lb_ebpf::abi::{Counts, map};
use lb_ebpf::reason::Reason;
use lb_ebpf::track::Event;

use super::maps::{open_map, typed};
use super::{Error, Pins};

/// Every counter of the balancer, summed over the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets by reason, in the order of [`Reason::ALL`].
    pub reasons: Vec<u64>,
    /// What happened on moving slots, in the order of [`Event::ALL`].
    pub track: Vec<u64>,
    /// By VIP id.
    pub vips: Vec<Counts>,
    /// By backend id.
    pub backends: Vec<Counts>,
}

impl Totals {
    /// Packets that entered the program: each is counted under exactly one reason.
    pub fn packets(&self) -> u64 {
        self.reasons.iter().sum()
    }

    /// Packets of one reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons.get(reason as usize).copied().unwrap_or(0)
    }

    /// How often `event` happened.
    pub fn event(&self, event: Event) -> u64 {
        self.track.get(event as usize).copied().unwrap_or(0)
    }

    /// Counters of the VIP `id`.
    pub fn vip(&self, id: u32) -> Counts {
        self.vips.get(id as usize).copied().unwrap_or_default()
    }

    /// Counters of the backend `id`.
    pub fn backend(&self, id: u16) -> Counts {
        self.backends
            .get(usize::from(id))
            .copied()
            .unwrap_or_default()
    }
}

/// The counter maps.
pub(super) struct Counters {
    reasons: PerCpuArray<MapData, u64>,
    track: PerCpuArray<MapData, u64>,
    vips: PerCpuArray<MapData, Counts>,
    backends: PerCpuArray<MapData, Counts>,
}

impl Counters {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            reasons: open(pins, map::REASON_COUNTS)?,
            track: open(pins, map::TRACK_COUNTS)?,
            vips: open(pins, map::VIP_COUNTS)?,
            backends: open(pins, map::BACKEND_COUNTS)?,
        })
    }

    /// Reads all counters, one system call each: some 5 ms for 4096 backends.
    pub(super) fn totals(&self) -> Result<Totals, Error> {
        Ok(Totals {
            reasons: read_all(&self.reasons, map::REASON_COUNTS, |sum: &mut u64, n| {
                *sum += n
            })?,
            track: read_all(&self.track, map::TRACK_COUNTS, |sum: &mut u64, n| *sum += n)?,
            vips: read_all(&self.vips, map::VIP_COUNTS, add)?,
            backends: read_all(&self.backends, map::BACKEND_COUNTS, add)?,
        })
    }

    /// Sets the counters of a VIP id to 0, before the id gets a new VIP.
    pub(super) fn clear_vip(&mut self, id: u32) -> Result<(), Error> {
        clear(&mut self.vips, map::VIP_COUNTS, id)
    }

    /// Sets the counters of a backend id to 0, before the id gets a new backend.
    pub(super) fn clear_backend(&mut self, id: u16) -> Result<(), Error> {
        clear(&mut self.backends, map::BACKEND_COUNTS, u32::from(id))
    }
}

fn add(sum: &mut Counts, more: Counts) {
    sum.packets += more.packets;
    sum.bytes += more.bytes;
}

fn open<V: Pod>(pins: &Pins, name: &'static str) -> Result<PerCpuArray<MapData, V>, Error> {
    typed(name, Map::PerCpuArray(open_map(pins, name)?))
}

/// Each element of a per-CPU array, folded over the CPUs.
pub(super) fn read_all<V: Pod + Default>(
    array: &PerCpuArray<MapData, V>,
    name: &'static str,
    add: impl Fn(&mut V, V),
) -> Result<Vec<V>, Error> {
    array
        .iter()
        .map(|values| {
            let values = values.map_err(|source| Error::map("read", name, source))?;
            Ok(values.iter().fold(V::default(), |mut sum, value| {
                add(&mut sum, *value);
                sum
            }))
        })
        .collect()
}

fn clear(
    array: &mut PerCpuArray<MapData, Counts>,
    name: &'static str,
    id: u32,
) -> Result<(), Error> {
    let cpus = nr_cpus().map_err(|(path, source)| Error::io("read", path.as_ref(), source))?;
    let zeros = PerCpuValues::try_from(vec![Counts::default(); cpus])
        .map_err(|source| Error::io("count CPUs for", name.as_ref(), source))?;
    array
        .set(id, zeros, 0)
        .map_err(|source| Error::map("write", name, source))
}
