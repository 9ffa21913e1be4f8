//! The real BPF objects under `BPF_PROG_TEST_RUN`: packets in, bytes and counters out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader, Pod, VerifierLogLevel,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{TestRun, TestRunOptions, Xdp},
};
use lb_ebpf::{
    abi::{
        self, AddressKey, Backend, Counts, Mark, MarkCell, RingCell, Settings, Slot, Vip, VipCell,
        cell_state,
    },
    address::Address,
    flow_table::{self, FlowBucket, Remembered},
    reason::Reason,
    track::{Event, FlowTable},
    vip_table,
};

use crate::fixture::Fixture;

/// Directory that holds the objects; set by `cargo xtask test`.
pub const DIRECTORY_VARIABLE: &str = "WEIR_BPF_DIR";

/// Bytes that a tunnel header adds at most.
const GROWTH_MAX: usize = 40;

/// What keeps kernel tests from running here, in one sentence that says what to do.
#[must_use]
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("loading BPF programs needs root: run it with sudo".to_owned());
    }
    let path = path("balancer");
    (!path.is_file()).then(|| format!("{} is not built: run `cargo xtask ebpf`", path.display()))
}

/// Path of the object `name`: `balancer`, `decap` or `harness`.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let directory = std::env::var_os(DIRECTORY_VARIABLE).map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf")),
        PathBuf::from,
    );
    directory.join(format!("{name}.o"))
}

/// An XDP action (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAction {
    /// The program failed.
    Aborted,
    /// The packet is dropped.
    Drop,
    /// The packet goes to the network stack.
    Pass,
    /// The packet leaves through the interface it came from.
    Transmit,
    /// The packet leaves through another interface.
    Redirect,
}

impl XdpAction {
    fn from_return_value(value: u32) -> Result<Self> {
        let actions = [
            Self::Aborted,
            Self::Drop,
            Self::Pass,
            Self::Transmit,
            Self::Redirect,
        ];
        actions
            .get(value as usize)
            .copied()
            .ok_or_else(|| anyhow!("{value} is no XDP action"))
    }
}

/// Flows that the tables of the balancer have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// On slots that move.
    pub exceptions: u32,
    /// Of VIPs with full tracking.
    pub flows: u32,
}

const DEFAULT_ROOM: Room = Room {
    exceptions: abi::EXCEPTIONS_MAX,
    flows: abi::FLOWS_MAX,
};

/// The words of a bucket of a flow table, as system calls carry them.
type BucketWords = [u64; 8];

/// A loaded object and the name of its program.
pub struct Object {
    ebpf: Ebpf,
    program: &'static str,
}

impl Object {
    /// Loads the balancer with the tables of `fixture`.
    ///
    /// # Errors
    ///
    /// When the object is not built, or the kernel refuses it; the verifier's log is in the text.
    pub fn balancer(fixture: &Fixture) -> Result<Self> {
        Self::balancer_within(fixture, DEFAULT_ROOM, u32::MAX)
    }

    /// The same, with room for so many flows, of which a CPU may remember `inserts` in a second on
    /// slots that move.
    ///
    /// # Errors
    ///
    /// As [`balancer`](Self::balancer).
    pub fn balancer_within(fixture: &Fixture, room: Room, inserts: u32) -> Result<Self> {
        let vips = (fixture.vips.len() as u32).max(abi::VIPS_MAX);
        let vip_cells = vip_table::cells(vips);
        let ring_cells = (fixture.slots.len() as u32)
            .div_ceil(abi::SLOTS_PER_CELL)
            .max(1);
        let mask = vip_cells - 1;
        let exceptions = flow_table::buckets(room.exceptions);
        let flows = flow_table::buckets(room.flows);
        let (exception_mask, flow_mask) = (exceptions - 1, flows - 1);
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries(abi::map::RINGS, ring_cells)
            .map_max_entries(abi::map::MARKS, ring_cells)
            .map_max_entries(abi::map::VIPS, vip_cells)
            .map_max_entries(abi::map::VIP_COUNTS, vips)
            .map_max_entries(abi::map::EXCEPTIONS, exceptions)
            .map_max_entries(abi::map::FLOWS, flows)
            .override_global(abi::global::EXCEPTION_BUCKET_MASK, &exception_mask, true)
            .override_global(abi::global::FLOW_BUCKET_MASK, &flow_mask, true)
            .override_global(abi::global::VIP_CELL_MASK, &mask, true)
            .override_global(abi::global::INSERTS_PER_SECOND, &inserts, true);
        let mut object = Self::load("balancer", abi::program::BALANCER, &mut loader)?;
        object.install(fixture)?;
        Ok(object)
    }

    /// Loads the decapsulator with tunnels to `addresses`.
    ///
    /// # Errors
    ///
    /// As [`balancer`](Self::balancer).
    pub fn decap(addresses: &[Address]) -> Result<Self> {
        let mut object = Self::load("decap", abi::program::DECAP, &mut EbpfLoader::new())?;
        let mut tunnels: HashMap<_, AddressKey, u32> = object.map(abi::map::TUNNELS)?.try_into()?;
        for address in addresses {
            tunnels.insert(AddressKey { address: *address }, 1, 0)?;
        }
        Ok(object)
    }

    fn load(name: &str, program: &'static str, loader: &mut EbpfLoader<'_>) -> Result<Self> {
        let path = path(name);
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut ebpf = loader
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(&bytes)
            .with_context(|| format!("creating the maps of {}", path.display()))?;
        let xdp: &mut Xdp = ebpf
            .program_mut(program)
            .with_context(|| format!("no program {program}"))?
            .try_into()?;
        xdp.load().with_context(|| format!("loading {program}"))?;
        Ok(Self { ebpf, program })
    }

    fn install(&mut self, fixture: &Fixture) -> Result<()> {
        let mut settings: Array<_, Settings> = self.map(abi::map::SETTINGS)?.try_into()?;
        settings.set(0, fixture.settings, 0)?;
        let mut vips: Array<_, VipCell> = self.map(abi::map::VIPS)?.try_into()?;
        let mask = vips.len() - 1;
        let mut used = BTreeSet::new();
        for (key, vip) in &fixture.vips {
            let free = vip_table::run(key, mask).find(|index| used.insert(*index));
            let generations = [*vip, Vip::default()];
            let state = cell_state::LIVE_FIRST;
            let cell = VipCell {
                key: *key,
                generations,
                state,
                reserved: 0,
            };
            vips.set(free.context("no cell is free for a VIP")?, cell, 0)?;
        }
        let mut rings: Array<_, RingCell> = self.map(abi::map::RINGS)?.try_into()?;
        for (index, pair) in fixture.slots.chunks(2).enumerate() {
            let odd = pair.get(1).copied().unwrap_or_else(Slot::default);
            rings.set(
                index as u32,
                RingCell {
                    slots: [pair[0], odd],
                },
                0,
            )?;
        }
        let mut marks: Array<_, MarkCell> = self.map(abi::map::MARKS)?.try_into()?;
        for (index, pair) in fixture.marks.chunks(2).enumerate() {
            let odd = pair.get(1).copied().unwrap_or_default();
            let marks_of_both = [pair[0], odd];
            marks.set(
                index as u32,
                MarkCell {
                    marks: marks_of_both,
                },
                0,
            )?;
        }
        self.install_flows(fixture, FlowTable::Exceptions)?;
        self.install_flows(fixture, FlowTable::Flows)?;
        let mut backends: Array<_, Backend> = self.map(abi::map::BACKENDS)?.try_into()?;
        for (id, backend) in fixture.backends.iter().enumerate() {
            backends.set(id as u32, *backend, 0)?;
        }
        Ok(())
    }

    fn install_flows(&mut self, fixture: &Fixture, table: FlowTable) -> Result<()> {
        let flows = fixture.flow_table(table).borrow();
        if flows.is_empty() {
            return Ok(());
        }
        let mut map: Array<_, BucketWords> = self.map(flow_map(table))?.try_into()?;
        let buckets: Vec<_> = (0..map.len()).map(|_| FlowBucket::default()).collect();
        for (fingerprint, remembered) in &*flows {
            flow_table::put(*fingerprint, *remembered, u32::MAX, &buckets.as_slice());
        }
        for (index, bucket) in (0..).zip(&buckets) {
            map.set(index, bucket.to_words(), 0)?;
        }
        Ok(())
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("no map {name}"))
    }

    /// The loaded program.
    ///
    /// # Panics
    ///
    /// Never: the constructor found it.
    #[must_use]
    pub fn xdp(&self) -> &Xdp {
        self.ebpf
            .program(self.program)
            .and_then(|program| program.try_into().ok())
            .expect("the constructor loaded it")
    }

    /// The same, to attach it.
    ///
    /// # Panics
    ///
    /// Never, as [`xdp`](Self::xdp).
    #[must_use]
    pub fn xdp_mut(&mut self) -> &mut Xdp {
        self.ebpf
            .program_mut(self.program)
            .and_then(|program| program.try_into().ok())
            .expect("the constructor loaded it")
    }

    /// Runs one packet through the program. Frames are at least 14 bytes long; the kernel refuses
    /// shorter ones before the program sees them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the run.
    pub fn run(&self, frame: &[u8]) -> Result<(XdpAction, Vec<u8>)> {
        let mut out = vec![0; frame.len() + GROWTH_MAX];
        let result = self.xdp().test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok((XdpAction::from_return_value(result.return_value)?, out))
    }

    /// Packets counted for `reason`, over all CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn reason_count(&self, reason: Reason) -> Result<u64> {
        Ok(self
            .per_cpu::<u64>(abi::map::REASON_COUNTS, reason as u32)?
            .iter()
            .sum())
    }

    /// How often `event` happened, over all CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn event_count(&self, event: Event) -> Result<u64> {
        let counts = self.per_cpu::<u64>(abi::map::TRACK_COUNTS, event as u32)?;
        Ok(counts.iter().sum())
    }

    /// What `table` remembers, by fingerprint.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn flows(&self, table: FlowTable) -> Result<BTreeMap<u64, Remembered>> {
        let name = flow_map(table);
        let map = self.ebpf.map(name);
        let map = map.with_context(|| format!("no map {name}"))?;
        let map: Array<&MapData, BucketWords> = map.try_into()?;
        let buckets = map.iter().map(|words| words.map(FlowBucket::from_words));
        let buckets: Vec<FlowBucket> = buckets.collect::<Result<_, _>>()?;
        Ok(flow_table::flows(&buckets.as_slice()).collect())
    }

    /// The mark of the slot at `index`.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn mark(&self, index: u32) -> Result<Mark> {
        let map = self.ebpf.map(abi::map::MARKS).context("no map MARKS")?;
        let map: Array<&MapData, MarkCell> = map.try_into()?;
        Ok(map.get(&(index / 2), 0)?.marks[index as usize % 2])
    }

    /// Packets counted over all reasons and CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn packets(&self) -> Result<u64> {
        Reason::ALL
            .iter()
            .map(|reason| self.reason_count(*reason))
            .sum()
    }

    /// The counters under `index` of the VIP or backend map `name`, over all CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn counts(&self, name: &str, index: u32) -> Result<Counts> {
        let sum = |sum: Counts, counts: &Counts| Counts {
            packets: sum.packets + counts.packets,
            bytes: sum.bytes + counts.bytes,
        };
        Ok(self
            .per_cpu(name, index)?
            .iter()
            .fold(Counts::default(), sum))
    }

    /// The value of every CPU under `index` of the per-CPU array `name`.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn per_cpu<T: Pod>(&self, name: &str, index: u32) -> Result<Vec<T>> {
        let map = self
            .ebpf
            .map(name)
            .with_context(|| format!("no map {name}"))?;
        let array: PerCpuArray<_, T> = map.try_into()?;
        Ok(array.get(&index, 0)?.iter().copied().collect())
    }
}

/// The map of a flow table.
fn flow_map(table: FlowTable) -> &'static str {
    match table {
        FlowTable::Exceptions => abi::map::EXCEPTIONS,
        FlowTable::Flows => abi::map::FLOWS,
    }
}
