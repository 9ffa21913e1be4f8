//! What the process has left for new work: memory, time of the event loop, descriptors.
//!
//! One task of the main thread reads resident memory and publishes the stage as an atomic that
//! all workers look at; each worker watches its own event loop. A request asks [`Strain`] one
//! question, of which the usual answer is one comparison.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::class::Class;
use super::descriptors;
use super::gate::Gates;
use super::lag::{self, Lag};
use super::memory::{self, Ceiling, Stage, Work};
use crate::filter::reject::Reject;
use crate::server::generation::Generation;
use crate::telemetry::metrics::Levels;

/// How many times `lag_max` the event loop must be late for each class to be refused.
const LAG_FACTORS: [u32; Class::ALL.len()] = [1, 2, 4];
/// Bytes read of the process's status; `VmRSS` stands in the first kilobyte.
const STATUS_BYTES_MAX: usize = 4096;
/// Of the connections with requests under way, one in so many is cut at a time, and so of tunnels.
const CUT_ONE_IN: u64 = 8;
/// Of tunnels, one in so many is cut at a time before the last stage, once no request was let in
/// for `TUNNELS_WAIT`: they may be all that is left to give way.
const CUT_SLOWLY_ONE_IN: u64 = 64;
const TUNNELS_WAIT: Duration = Duration::from_secs(5);

/// The limits of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverloadConfig {
    /// Resident bytes; `None`: no ceiling.
    pub memory_max: Option<u64>,
    /// How late an event loop may be; `None`: as it comes.
    pub lag_max: Option<Duration>,
    /// The part of the limit of open files that is kept for connections to instances.
    pub descriptors_reserve_percent: u32,
}

/// What all workers share, and a scrape shows.
#[derive(Debug)]
pub(crate) struct Pressure {
    stage: AtomicU8,
    memory: AtomicU64,
    memory_max: AtomicU64,
    descriptors_max: u64,
    /// Microseconds, by worker.
    lag: Box<[AtomicU64]>,
    shed_by_memory: [AtomicU64; Class::ALL.len()],
    shed_by_lag: [AtomicU64; Class::ALL.len()],
    turned_by_memory: AtomicU64,
    turned_by_descriptors: AtomicU64,
    closed_idle: AtomicU64,
    cut: AtomicU64,
    cut_tunnels: AtomicU64,
}

impl Pressure {
    /// No pressure on a process of so many workers, which may open so many descriptors.
    pub(crate) fn new(workers: usize, descriptors_max: u64) -> Self {
        let lag = (0..workers).map(|_| AtomicU64::new(0));
        Self {
            stage: AtomicU8::new(0),
            memory: AtomicU64::new(0),
            memory_max: AtomicU64::new(0),
            descriptors_max,
            lag: lag.collect(),
            shed_by_memory: Default::default(),
            shed_by_lag: Default::default(),
            turned_by_memory: AtomicU64::new(0),
            turned_by_descriptors: AtomicU64::new(0),
            closed_idle: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            cut_tunnels: AtomicU64::new(0),
        }
    }

    /// What memory still allows.
    pub(crate) fn stage(&self) -> Stage {
        Stage::numbered(self.stage.load(Ordering::Relaxed))
    }

    /// Publishes a reading, and says so in the log where the stage changes.
    fn publish(&self, resident: u64, max: u64, stage: Stage) {
        self.memory.store(resident, Ordering::Relaxed);
        self.memory_max.store(max, Ordering::Relaxed);
        let before = Stage::numbered(self.stage.swap(stage as u8, Ordering::Relaxed));
        let (from, to) = (before.name(), stage.name());
        if stage > before {
            tracing::warn!(from, to, resident, max, "memory runs short");
        } else if stage < before {
            tracing::info!(from, to, resident, max, "memory is less short");
        }
    }

    /// The state, for metrics.
    pub(crate) fn reading(&self) -> Reading {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let by_class = |numbers: &[AtomicU64; Class::ALL.len()]| {
            Class::ALL.map(|class| read(&numbers[class.index()]))
        };
        Reading {
            stage: self.stage(),
            memory: read(&self.memory),
            memory_max: read(&self.memory_max),
            descriptors_max: self.descriptors_max,
            lag_us: self.lag.iter().map(read).collect(),
            shed: [by_class(&self.shed_by_memory), by_class(&self.shed_by_lag)],
            turned: [
                read(&self.turned_by_memory),
                read(&self.turned_by_descriptors),
            ],
            closed: [&self.closed_idle, &self.cut, &self.cut_tunnels].map(read),
        }
    }
}

/// The state of the process, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) stage: Stage,
    /// Bytes; 0: not watched.
    pub(crate) memory: u64,
    pub(crate) memory_max: u64,
    pub(crate) descriptors_max: u64,
    /// Microseconds, by worker.
    pub(crate) lag_us: Vec<u64>,
    /// Requests refused for memory and for lag, by class.
    pub(crate) shed: [[u64; Class::ALL.len()]; 2],
    /// Connections closed at once for memory and for descriptors.
    pub(crate) turned: [u64; 2],
    /// Connections closed while idle, connections cut, and tunnels, to get memory back.
    pub(crate) closed: [u64; 3],
}

/// Reads resident memory while the configuration in force has a ceiling for it. `levels` gives
/// the requests and tunnels under way.
pub(crate) async fn watch_memory(
    pressure: Arc<Pressure>,
    mut generations: watch::Receiver<Arc<Generation>>,
    levels: impl Fn() -> Levels,
) {
    let status = match File::open("/proc/self/status") {
        Ok(status) => status,
        Err(error) => {
            tracing::error!(%error, "memory cannot be watched");
            return;
        }
    };
    let mut ceiling = Ceiling::default();
    let mut ticks = tokio::time::interval(memory::READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let max = generations.borrow_and_update().config.overload.memory_max;
        let Some(max) = max else {
            ceiling = Ceiling::default();
            pressure.publish(0, 0, Stage::Normal);
            if generations.changed().await.is_err() {
                return;
            }
            continue;
        };
        ticks.tick().await;
        // A reading that fails changes nothing; the next one is near.
        if let Ok(Some(resident)) = resident(&status) {
            let Levels {
                tunnels, requests, ..
            } = levels();
            let work = Work { requests, tunnels };
            let stage = ceiling.observe(resident, max, work, Instant::now());
            pressure.publish(resident, max, stage);
        }
    }
}

/// Resident bytes of this process (`VmRSS`, proc(5)).
fn resident(status: &File) -> io::Result<Option<u64>> {
    let mut text = [0; STATUS_BYTES_MAX];
    let length = status.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..length]);
    Ok(vm_rss(&text))
}

fn vm_rss(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// What becomes of a connection when memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relief {
    /// It goes on.
    None,
    /// It ends: it was idle.
    Close,
    /// It is cut in the middle of a request.
    Cut,
}

/// The pressure as one worker sees it.
#[derive(Debug)]
pub(crate) struct Strain {
    process: Arc<Pressure>,
    worker: usize,
    lag: Cell<LagLevel>,
    /// Connections looked at whether they are to be cut.
    asked: Cell<u64>,
    /// Since when no request is let in, and when that was last so.
    short_of_all: Cell<Option<(Instant, Instant)>>,
}

impl Strain {
    pub(crate) fn new(process: Arc<Pressure>, worker: usize) -> Self {
        Self {
            process,
            worker,
            lag: Cell::default(),
            asked: Cell::new(0),
            short_of_all: Cell::new(None),
        }
    }

    /// The refusal for a request of this class, if there is one now.
    pub(crate) fn refusal(&self, class: Class) -> Option<Reject> {
        let (stage, lag) = (self.process.stage(), self.lag.get());
        if stage <= Stage::Relief && lag.0 == 0 {
            return None;
        }
        self.refusal_at(class, stage, lag)
    }

    fn refusal_at(&self, class: Class, stage: Stage, lag: LagLevel) -> Option<Reject> {
        let index = class.index();
        if !stage.allows(class) {
            self.process.shed_by_memory[index].fetch_add(1, Ordering::Relaxed);
            return Some(Reject::MemoryShort);
        }
        if index < usize::from(lag.0) {
            self.process.shed_by_lag[index].fetch_add(1, Ordering::Relaxed);
            return Some(Reject::GatewayBusy);
        }
        None
    }

    /// Refuses what waits at these gates and would not be let in any more.
    pub(crate) fn shed_waiting(&self, gates: &Gates) {
        let stage = self.process.stage();
        for class in Class::ALL.into_iter().filter(|class| !stage.allows(*class)) {
            let all = gates.services.values().chain(gates.routes.values());
            all.for_each(|gate| gate.shed_waiting(class));
        }
    }

    /// Whether connections are not to be kept without a request.
    pub(crate) fn is_relieving(&self) -> bool {
        self.process.stage() >= Stage::Relief
    }

    /// Whether a connection just accepted is to be closed at once, and counts it.
    pub(crate) fn turns_away(&self, connection: BorrowedFd<'_>, reserve_percent: u32) -> bool {
        let end = descriptors::client_end(self.process.descriptors_max, reserve_percent);
        let counter = if self.process.stage() >= Stage::Closed {
            &self.process.turned_by_memory
        } else if descriptors::is_reserved(connection, end) {
            &self.process.turned_by_descriptors
        } else {
            return false;
        };
        // Once in a while is enough for the log: the counter has the number.
        if counter.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::warn!(
                stage = self.process.stage().name(),
                "connections are turned away"
            );
        }
        true
    }

    /// What is to become of one more connection, for want of memory; `idle`: it has no request
    /// under way.
    pub(crate) fn relief(&self, idle: bool) -> Relief {
        if idle {
            self.process.closed_idle.fetch_add(1, Ordering::Relaxed);
            return Relief::Close;
        }
        let asked = self.asked.get().wrapping_add(1);
        self.asked.set(asked);
        if self.process.stage() == Stage::Cut && asked.is_multiple_of(CUT_ONE_IN) {
            self.process.cut.fetch_add(1, Ordering::Relaxed);
            return Relief::Cut;
        }
        Relief::None
    }

    /// Whether no request is let in.
    pub(crate) fn is_short_of_all(&self) -> bool {
        self.process.stage() >= Stage::All
    }

    /// How many of `count` tunnels are to be cut now. To be asked now and then as long as no
    /// request is let in.
    pub(crate) fn tunnels_to_cut(&self, count: usize, now: Instant) -> usize {
        let since = match self.short_of_all.get() {
            Some((since, last)) if now.saturating_duration_since(last) < TUNNELS_WAIT => since,
            _ => now,
        };
        self.short_of_all.set(Some((since, now)));
        let one_in = match self.process.stage() {
            Stage::Cut => CUT_ONE_IN,
            _ if now.saturating_duration_since(since) >= TUNNELS_WAIT => CUT_SLOWLY_ONE_IN,
            _ => return 0,
        };
        let cut = count.div_ceil(one_in as usize);
        let before = self
            .process
            .cut_tunnels
            .fetch_add(cut as u64, Ordering::Relaxed);
        // Once in a while is enough for the log: the counter has the number.
        if (before + cut as u64).div_ceil(1000) > before.div_ceil(1000) {
            let stage = self.process.stage().name();
            tracing::warn!(
                stage,
                cut,
                of = count,
                "tunnels are cut, the most idle first"
            );
        }
        cut
    }

    /// Watches how late the event loop is, as long as the worker lives. `max` gives the limit in
    /// force.
    pub(crate) async fn watch_lag(&self, max: impl Fn() -> Option<Duration>) {
        let mut lag = Lag::default();
        loop {
            let Some(max) = max() else {
                // A look now and then is enough to see a new configuration.
                self.note_lag(LagLevel(0), Duration::ZERO);
                lag = Lag::default();
                tokio::time::sleep(lag::OFF_LOOK).await;
                continue;
            };
            let due = tokio::time::Instant::now() + lag::TICK;
            tokio::time::sleep_until(due).await;
            let stands = lag.observe(due.elapsed());
            self.note_lag(self.lag.get().after(stands, max), stands);
        }
    }

    fn note_lag(&self, level: LagLevel, stands: Duration) {
        self.process.lag[self.worker].store(stands.as_micros() as u64, Ordering::Relaxed);
        let before = self.lag.replace(level);
        let (worker, lag) = (self.worker, stands);
        if before.0 == 0 && level.0 > 0 {
            tracing::warn!(worker, ?lag, "the event loop is late: requests are shed");
        } else if before.0 > 0 && level.0 == 0 {
            tracing::info!(worker, ?lag, "the event loop keeps up again");
        }
    }
}

/// How many classes are refused because the event loop is late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LagLevel(u8);

impl LagLevel {
    /// The level after another look.
    fn after(self, stands: Duration, max: Duration) -> Self {
        let reached = LAG_FACTORS.iter().zip(1..).filter(|(factor, level)| {
            let begins = max * **factor;
            // What has begun ends at half of what began it.
            let level_holds = *level <= self.0 && stands * 2 >= begins;
            stands >= begins || level_holds
        });
        Self(reached.count() as u8)
    }
}

#[cfg(test)]
mod tests;
