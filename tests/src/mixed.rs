//! Does a packet ever see a mixed table? One CPU sends packets that look at whole tables (the
//! `watch_table` program of the harness object), while another one publishes.
//!
//! Every published ring belongs to one backend, and a field of the VIP says to which
//! ([`watched::owner`]). A packet that reads slots all over the ring sees that they are all alike and
//! the VIP's, or it has seen parts of two tables.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray},
    programs::{TestRun, TestRunOptions, Xdp},
};
use lb_ebpf::abi::{self, Mark, Slot, Vip, VipCell, watched};
use lb_userspace::control::{apply::Store, plan::Wanted, slots::Clock};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    fixture::VIP_V4,
    object,
    packet::{self, Addresses, Segment},
    publisher::{self, FIRST_PORT, Publisher},
    wait,
};

/// VIPs that are published one after the other. While the others have their turn, the old ring of one
/// goes out of use, so a grace period serves as many publishes.
const VIPS: u16 = 8;
/// Backends that own rings in turn.
const BACKENDS: u16 = 64;
/// Packets of one test run, about a millisecond: the kernel lets no grace period pass within.
const BURST: u32 = 2000;
/// How long to wait for the first packet.
const START_MAX: Duration = Duration::from_secs(10);

/// How tables are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// As the agent does it: grace period, idle ring, flip.
    Agent,
    /// Over the ring in use, which is wrong: shows that the packets would see it.
    InPlace,
}

/// What the packets saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Tables that were published meanwhile.
    pub publishes: u32,
    /// Packets, each of which looked at one table.
    pub packets: u64,
    /// Packets that saw parts of two tables.
    pub mixed: u64,
    /// Packets that found no table.
    pub absent: u64,
    /// How long it took.
    pub took: Duration,
}

/// Publishes `publishes` tables of `ring_size` slots while packets look at them.
///
/// # Errors
///
/// Without root or the objects, or when the kernel refuses.
pub fn publish(writer: Writer, publishes: u32, ring_size: u32) -> Result<Seen> {
    let mut publisher = Publisher::new(u32::from(VIPS), ring_size)?;
    let mut tables = Tables::new(ring_size);
    publisher.publish(&tables.wanted)?;
    tables.check(&publisher)?;
    let watcher = Watcher::start(&publisher)?;
    let started = Instant::now();
    for number in 0..publishes {
        tables.next((number % u32::from(VIPS)) as u16);
        match writer {
            Writer::Agent => publisher.publish(&tables.wanted)?,
            Writer::InPlace => tables.overwrite(&mut publisher, number)?,
        }
    }
    let took = started.elapsed();
    let seen = watcher.stop()?;
    Ok(Seen {
        publishes,
        took,
        ..seen
    })
}

/// What is to be published: a ring for each VIP, each of one backend.
struct Tables {
    wanted: Wanted,
    ring_size: u32,
}

impl Tables {
    fn new(ring_size: u32) -> Self {
        let backends = publisher::members(BACKENDS);
        let first = |number| publisher::vip(number, ring_size, vec![backends[0]], &backends);
        let wanted = Wanted {
            vips: (0..VIPS).map(first).collect(),
            // Every change begins a move, and the one before has ended: slots name two owners.
            clock: Clock {
                quiet: 0,
                ..Clock::default()
            },
            ..Wanted::default()
        };
        Self { wanted, ring_size }
    }

    /// Gives the ring of VIP `number` to the next backend.
    fn next(&mut self, number: u16) {
        let vip = &mut self.wanted.vips[usize::from(number)];
        vip.hash = (vip.hash + 1) % BACKENDS as u8;
        vip.members = vec![publisher::members(BACKENDS)[usize::from(vip.hash)]];
    }

    /// The agent gives ids in order: what the packets go by.
    fn check(&self, publisher: &Publisher) -> Result<()> {
        for (hash, backend) in (0..).zip(publisher::members(BACKENDS)) {
            let id = publisher.published.backend_id(backend.address);
            ensure!(
                id == Some(watched::owner(hash)),
                "{} has id {id:?}",
                backend.address
            );
        }
        Ok(())
    }

    /// Writes the next ring over the one in use, right after the VIP has said whose it is.
    fn overwrite(&self, publisher: &mut Publisher, publish: u32) -> Result<()> {
        let wanted = &self.wanted.vips[publish as usize % usize::from(VIPS)];
        let now = publisher.published.vips[&wanted.key].vip;
        let owner = watched::owner(wanted.hash);
        let slots = vec![Slot::settled(owner); self.ring_size as usize];
        let marks = vec![Mark::default(); slots.len()];
        let maps = publisher.dataplane.maps_mut();
        let hash = wanted.hash;
        maps.write_vip(wanted.key, Some(Vip { hash, ..now }))?;
        maps.write_ring(now.ring_start, &slots, &marks)?;
        Ok(())
    }
}

/// Packets that look at tables, on a thread of their own.
struct Watcher {
    stop: Arc<AtomicBool>,
    packets: JoinHandle<Result<()>>,
    counts: PerCpuArray<MapData, u64>,
}

impl Watcher {
    /// Sends packets from now on; returns when the first are through.
    fn start(publisher: &Publisher) -> Result<Self> {
        let mut ebpf = load(publisher)?;
        let counts = ebpf.take_map("WATCHED").context("no map WATCHED")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let packets = thread::spawn(move || send(&ebpf, &stopped));
        let watcher = Self {
            stop,
            packets,
            counts: counts.try_into()?,
        };
        wait::until("the first packet", START_MAX, || {
            let seen = watcher.count(watched::WHOLE);
            (seen.is_ok_and(|seen| seen > 0) || watcher.packets.is_finished()).then_some(())
        })?;
        Ok(watcher)
    }

    fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let counts = [watched::WHOLE, watched::MIXED, watched::ABSENT];
        let (packets, counter) = (self.packets, self.counts);
        packets
            .join()
            .map_err(|_| anyhow!("the sender of packets panicked"))??;
        let [whole, mixed, absent] = counts.map(|kind| sum(&counter, kind));
        let (whole, mixed, absent) = (whole?, mixed?, absent?);
        Ok(Seen {
            packets: whole + mixed + absent,
            mixed,
            absent,
            ..Seen::default()
        })
    }

    fn count(&self, kind: u32) -> Result<u64> {
        sum(&self.counts, kind)
    }
}

fn sum(counts: &PerCpuArray<MapData, u64>, kind: u32) -> Result<u64> {
    Ok(counts.get(&kind, 0)?.iter().sum())
}

/// Loads the watching program over the maps of `publisher`.
fn load(publisher: &Publisher) -> Result<Ebpf> {
    let vips = MapData::from_pin(publisher.pin(abi::map::VIPS))?;
    let vips: Array<_, VipCell> = aya::maps::Map::Array(vips).try_into()?;
    let mask = vips.len() - 1;
    let path = object::path("harness");
    let mut ebpf = EbpfLoader::new()
        .map_pin_path(abi::map::VIPS, publisher.pin(abi::map::VIPS))
        .map_pin_path(abi::map::RINGS, publisher.pin(abi::map::RINGS))
        .override_global(abi::global::VIP_CELL_MASK, &mask, true)
        .load_file(&path)
        .with_context(|| format!("loading {}", path.display()))?;
    let xdp: &mut Xdp = ebpf
        .program_mut("watch_table")
        .context("no program watch_table")?
        .try_into()?;
    xdp.load()?;
    Ok(ebpf)
}

/// Sends packets to every VIP in turn, without a pause, until told to stop.
fn send(ebpf: &Ebpf, stop: &AtomicBool) -> Result<()> {
    pin_to_last_cpu()?;
    let xdp: &Xdp = ebpf
        .program("watch_table")
        .context("no program watch_table")?
        .try_into()?;
    let frame = |number| {
        let addresses = Addresses::V4([192, 0, 2, 1], VIP_V4);
        packet::tcp(addresses, (1024, FIRST_PORT + number), Segment::Ack, b"")
    };
    let frames: Vec<_> = (0..VIPS).map(frame).collect();
    for frame in frames.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        xdp.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat: BURST,
            ..TestRunOptions::default()
        })?;
        // Where grace periods end.
        thread::yield_now();
    }
    Ok(())
}

/// Moves the thread to the last CPU: another one than the publisher's, where there is another.
fn pin_to_last_cpu() -> Result<()> {
    let pinned = (0..CpuSet::count()).rev().any(|cpu| {
        let mut only = CpuSet::new();
        // The kernel refuses CPUs that there are not.
        only.set(cpu).is_ok() && sched_setaffinity(Pid::from_raw(0), &only).is_ok()
    });
    ensure!(pinned, "the thread may run on no CPU");
    Ok(())
}
