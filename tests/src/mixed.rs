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
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, MapData, PerCpuArray},
    programs::{TestRun, TestRunOptions, Xdp},
};
use lb_ebpf::abi::{self, HashKind, Mark, Slot, Vip, VipCell, watched};
use lb_userspace::{
    control::{apply::Store, plan::Wanted, slots::Clock},
    table::Member,
};
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

/// Backends that own rings in turn.
const BACKENDS: u16 = 64;
/// How long to wait for the first packet.
const START_MAX: Duration = Duration::from_secs(10);

/// How tables are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// As the agent does it: grace period, idle ring, flip.
    Agent,
    /// Over the ring in use, without a flip, which is wrong: shows that the packets would see it.
    InPlace,
    /// Into the other one of two rings, then a flip, but without a grace period: over a ring that
    /// packets in flight still read.
    Hasty,
}

impl Writer {
    /// VIPs that are published one after the other. While the others have their turn, the old ring of
    /// one goes out of use, so a grace period serves as many publishes. Haste has nothing to wait for.
    fn vips(self) -> u16 {
        match self {
            Self::Agent | Self::InPlace => 8,
            Self::Hasty => 1,
        }
    }
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
    let vips = writer.vips();
    let mut publisher = Publisher::new(u32::from(vips), ring_size)?;
    let mut tables = Tables::new(vips, ring_size);
    publisher.publish(&tables.wanted)?;
    tables.check(&publisher)?;
    let watcher = Watcher::start(&publisher, writer)?;
    let started = Instant::now();
    for publish in 0..publishes as usize {
        let vip = publish % usize::from(vips);
        tables.next(vip);
        match writer {
            Writer::Agent => publisher.publish(&tables.wanted)?,
            Writer::InPlace => tables.overwrite(&mut publisher, vip, 0)?,
            // The first publish has used half 0.
            Writer::Hasty => tables.overwrite(&mut publisher, vip, 1 - publish % 2)?,
        }
    }
    let took = started.elapsed();
    Ok(Seen {
        publishes,
        took,
        ..watcher.stop()?
    })
}

/// What is to be published: a ring for each VIP, each of one backend.
struct Tables {
    wanted: Wanted,
    backends: Vec<Member>,
    /// A ring of each backend, for those who write without a plan.
    rings: Vec<Vec<Slot>>,
    marks: Vec<Mark>,
}

impl Tables {
    fn new(vips: u16, ring_size: u32) -> Self {
        let backends = publisher::members(BACKENDS);
        let first = |number| publisher::vip(number, ring_size, vec![backends[0]], &backends);
        let wanted = Wanted {
            vips: (0..vips).map(first).collect(),
            // Every change begins a move, and the one before has ended: slots name two owners.
            clock: Clock {
                quiet: 0,
                ..Clock::default()
            },
            ..Wanted::default()
        };
        let slots = ring_size as usize;
        let hashes = 0..BACKENDS as HashKind;
        Self {
            wanted,
            rings: hashes
                .map(|hash| vec![Slot::settled(watched::owner(hash)); slots])
                .collect(),
            marks: vec![Mark::default(); slots],
            backends,
        }
    }

    /// Gives the ring of VIP `vip` to the next backend.
    fn next(&mut self, vip: usize) {
        let vip = &mut self.wanted.vips[vip];
        vip.hash = (vip.hash + 1) % BACKENDS as HashKind;
        vip.members = vec![self.backends[usize::from(vip.hash)]];
    }

    /// The agent gives ids in order: what the packets go by.
    fn check(&self, publisher: &Publisher) -> Result<()> {
        for (hash, backend) in (0..).zip(&self.backends) {
            let id = publisher.published.backend_id(backend.address);
            ensure!(
                id == Some(watched::owner(hash)),
                "{} has id {id:?}",
                backend.address
            );
        }
        Ok(())
    }

    /// Writes the ring of VIP `vip` into half `half` of the ring map, and points the VIP there. Waits for
    /// nobody. (The first publish has left the VIPs' rings in half 0.)
    fn overwrite(&self, publisher: &mut Publisher, vip: usize, half: usize) -> Result<()> {
        let wanted = &self.wanted.vips[vip];
        let first = publisher.published.vips[&wanted.key].vip;
        let maps = publisher.dataplane.maps_mut();
        let ring_start = first.ring_start as usize + half * maps.ring_slots() / 2;
        let next = Vip {
            hash: wanted.hash,
            ring_start: ring_start as u32,
            ..first
        };
        // A lie: none has passed.
        maps.grace_passed(maps.vip_changes());
        let slots = &self.rings[usize::from(wanted.hash)];
        maps.write_ring(next.ring_start, slots, &self.marks)?;
        Ok(maps.write_vip(wanted.key, Some(next))?)
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
    fn start(publisher: &Publisher, writer: Writer) -> Result<Self> {
        let mut ebpf = load(publisher)?;
        let counts = ebpf.take_map("WATCHED").context("no map WATCHED")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let packets = thread::spawn(move || send(&ebpf, writer, &stopped));
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
        .verifier_log_level(VerifierLogLevel::STATS)
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

/// Sends packets to the VIPs in turn, without a pause, until told to stop.
fn send(ebpf: &Ebpf, writer: Writer, stop: &AtomicBool) -> Result<()> {
    pin_to_last_cpu()?;
    let xdp: &Xdp = ebpf
        .program("watch_table")
        .context("no program watch_table")?
        .try_into()?;
    let frame = |number| {
        let addresses = Addresses::V4([192, 0, 2, 1], VIP_V4);
        packet::tcp(addresses, (1024, FIRST_PORT + number), Segment::Ack, b"")
    };
    let frames: Vec<_> = (0..writer.vips()).map(frame).collect();
    for frame in frames.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // One at a time: before and after a run of more, the kernel patches its XDP dispatcher and waits
        // for a grace period itself.
        xdp.test_run(TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::default()
        })?;
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
