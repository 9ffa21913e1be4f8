//! The maps, as plain arrays of one process, and readers of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use lb_ebpf::abi::{self, Backend, Budget, Egress, Mark, Settings, Slot, Vip, VipKey};
use lb_ebpf::flow_table::{self, FlowBucket, Put, Remembered};
use lb_ebpf::steer::Tables;
use lb_ebpf::track::{Event, FlowTable, FlowTables};
use lb_userspace::control::apply::Forget;
use lb_userspace::dataplane::Sizes;

/// All maps of the balancer.
pub(crate) struct Memory {
    pub(crate) settings: Settings,
    pub(crate) vips: BTreeMap<VipKey, Vip>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) marks: Vec<Cell<Mark>>,
    pub(crate) backends: Vec<Backend>,
    exceptions: Vec<FlowBucket>,
    flows: Vec<FlowBucket>,
    budget: Cell<Budget>,
    inserts_per_second: u32,
    pub(crate) now_s: u32,
    counts: RefCell<BTreeMap<u32, u64>>,
    /// Of so many writes to the flow tables, one is lost to another CPU; 0 loses none.
    lost_of: u32,
    remembers: Cell<u32>,
    /// Flows that were forgotten for others since somebody asked last.
    victims: RefCell<Vec<Victim>>,
}

/// A flow that a table has forgotten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    pub(crate) fingerprint: u64,
    /// It was live; else it had been quiet for so long that it counted as ended.
    pub(crate) evicted: bool,
}

impl Memory {
    pub(crate) fn new(sizes: Sizes, quiet_s: u32, lost_of: u32) -> Self {
        let buckets = |flows| {
            let buckets = (0..flow_table::buckets(flows)).map(|_| FlowBucket::default());
            buckets.collect()
        };
        Self {
            settings: Settings {
                hash_key: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
                source_v6: IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xff]).into(),
                source_v4: IpAddr::from([10, 255, 0, 1]).into(),
                version: abi::VERSION,
                quiet_s,
            },
            vips: BTreeMap::new(),
            slots: vec![Slot::default(); sizes.ring_slots as usize],
            marks: vec![Cell::default(); sizes.ring_slots as usize],
            backends: vec![Backend::default(); sizes.backends as usize],
            exceptions: buckets(sizes.exceptions),
            flows: buckets(sizes.flows),
            budget: Cell::default(),
            inserts_per_second: sizes.inserts_per_second,
            // Moves are dated modulo 2^16: soon that begins anew.
            now_s: (1 << 16) - 30,
            counts: RefCell::default(),
            lost_of,
            remembers: Cell::new(0),
            victims: RefCell::default(),
        }
    }

    pub(crate) fn count_of(&self, event: Event) -> u64 {
        self.counts
            .borrow()
            .get(&(event as u32))
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn take_victims(&self) -> Vec<Victim> {
        self.victims.take()
    }

    pub(crate) fn vip_and_address_entries(&self) -> Vec<(VipKey, Vip)> {
        self.vips.iter().map(|(key, vip)| (*key, *vip)).collect()
    }

    pub(crate) fn known_backends(&self) -> Vec<(u16, Backend)> {
        let backends = (0_u16..).zip(self.backends.iter().copied());
        backends
            .filter(|(_, backend)| backend.family != 0)
            .collect()
    }

    pub(crate) fn read_ring(&self, start: u32, len: u32) -> Option<Vec<Slot>> {
        let range = start as usize..(start + len) as usize;
        self.slots.get(range).map(<[Slot]>::to_vec)
    }

    pub(crate) fn read_marks(&self, start: u32, len: u32) -> Vec<Mark> {
        let range = start as usize..(start + len) as usize;
        self.marks[range].iter().map(Cell::get).collect()
    }

    /// Buckets of full tracking.
    pub(crate) fn flow_buckets(&self) -> u32 {
        self.flows.len() as u32
    }

    /// Makes the first so many buckets of full tracking forget flows, as the agent does.
    pub(crate) fn forget_flows(&self, buckets: u32, which: Forget<'_>) {
        for bucket in &self.flows[..buckets as usize] {
            let bucket = std::slice::from_ref(bucket);
            flow_table::retain(&bucket, |flow| !which.covers(flow.tag, flow.owner));
        }
    }

    /// The backend that full tracking knows for a flow.
    pub(crate) fn tracked(&self, fingerprint: u64) -> Option<IpAddr> {
        let known = flow_table::find(fingerprint, None, &&self.flows[..])?;
        Some(self.backends[usize::from(known.owner)].address.into())
    }

    /// What is remembered of a flow on a slot that moves.
    pub(crate) fn exception(&self, fingerprint: u64) -> Option<Remembered> {
        flow_table::find(fingerprint, None, &&self.exceptions[..])
    }

    /// A slot, and when it began to move.
    pub(crate) fn moving(&self, index: u32) -> (Slot, u16) {
        let index = index as usize;
        (self.slots[index], self.marks[index].get().since)
    }

    fn table(&self, table: FlowTable) -> &[FlowBucket] {
        match table {
            FlowTable::Exceptions => &self.exceptions,
            FlowTable::Flows => &self.flows,
        }
    }

    /// Fingerprints that lie where that of a flow may lie.
    fn neighbours(&self, table: FlowTable, fingerprint: u64) -> Vec<u64> {
        let buckets = self.table(table);
        let homes = flow_table::homes(fingerprint, buckets.len() as u32 - 1);
        let words = homes.map(|home| buckets[home as usize].to_words());
        let fingerprints = words.iter().flatten().step_by(2);
        fingerprints.copied().collect()
    }

    fn remember(&self, table: FlowTable, fingerprint: u64, new: Remembered, live_s: u32) -> Put {
        let nth = self.remembers.get();
        self.remembers.set(nth.wrapping_add(1));
        if self.lost_of > 0 && nth % self.lost_of == self.lost_of - 1 {
            return Put::Lost;
        }
        let before = self.neighbours(table, fingerprint);
        let put = flow_table::put(fingerprint, new, live_s, &self.table(table));
        let after = self.neighbours(table, fingerprint);
        let gone = before.into_iter().filter(|before| !after.contains(before));
        let evicted = put == Put::Evicted;
        let victims = gone
            .filter(|&fingerprint| fingerprint >= flow_table::FINGERPRINT_MIN)
            .map(|fingerprint| Victim {
                fingerprint,
                evicted,
            });
        self.victims.borrow_mut().extend(victims);
        put
    }

    /// As the kernel program does it, on its only CPU.
    fn spend(&self, now_s: u32, divisor: u32) -> bool {
        let mut budget = self.budget.get();
        if budget.second != now_s {
            budget = Budget {
                second: now_s,
                spent: 0,
            };
        }
        let left = budget.spent < self.inserts_per_second / divisor;
        budget.spent += u32::from(left);
        self.budget.set(budget);
        left
    }
}

/// What a reader has read: the answers to its questions, in order.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Vip(Option<Vip>),
    Slot(Option<Slot>),
    Backend(Option<Backend>),
    Now(u32),
    Mark(Option<Mark>),
    Known(Option<Remembered>),
}

/// The first answers that a packet in flight has had; the rest it asks for when it goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(VecDeque<Answer>);

impl Answers {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

/// One packet's view of the maps.
pub(crate) struct Reader<'a> {
    memory: &'a Memory,
    /// Whether the packet is really there: else it leaves no trace.
    real: bool,
    /// What it has read already.
    known: RefCell<VecDeque<Answer>>,
    /// What it reads before it writes for the first time.
    read: RefCell<VecDeque<Answer>>,
    wrote: Cell<bool>,
}

impl<'a> Reader<'a> {
    /// A packet that has read `known` some time ago, and now goes on.
    pub(crate) fn going_on(memory: &'a Memory, known: Answers) -> Self {
        Self {
            memory,
            real: true,
            known: RefCell::new(known.0),
            read: RefCell::default(),
            wrote: Cell::new(false),
        }
    }

    /// A packet that is only thought of.
    pub(crate) fn imagined(memory: &'a Memory) -> Self {
        Self {
            real: false,
            ..Self::going_on(memory, Answers::default())
        }
    }

    /// What has been read before the first write.
    pub(crate) fn into_answers(self) -> Answers {
        Answers(self.read.into_inner())
    }

    fn ask(&self, ask: impl FnOnce() -> Answer) -> Answer {
        let known = self.known.borrow_mut().pop_front();
        let answer = known.unwrap_or_else(ask);
        if !self.wrote.get() {
            self.read.borrow_mut().push_back(answer);
        }
        answer
    }

    /// Whether a write is to be done.
    fn writes(&self) -> bool {
        self.wrote.set(true);
        self.real
    }
}

/// Takes the one answer that a question can have.
macro_rules! answer {
    ($reader:expr, $kind:ident, $ask:expr) => {
        match $reader.ask(|| Answer::$kind($ask)) {
            Answer::$kind(answer) => answer,
            other => panic!("another question was answered before: {other:?}"),
        }
    };
}

impl Tables for Reader<'_> {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.memory.settings)
    }

    fn vip(&self, key: &VipKey) -> Option<Vip> {
        answer!(self, Vip, self.memory.vips.get(key).copied())
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        answer!(self, Slot, self.memory.slots.get(index as usize).copied())
    }

    fn backend(&self, id: u16) -> Option<Egress> {
        let backends = &self.memory.backends;
        let backend = answer!(self, Backend, backends.get(usize::from(id)).copied());
        backend?.egress()
    }
}

impl FlowTables for Reader<'_> {
    fn now_s(&self) -> u32 {
        answer!(self, Now, self.memory.now_s)
    }

    fn mark(&self, index: u32) -> Option<Mark> {
        let marks = &self.memory.marks;
        answer!(self, Mark, marks.get(index as usize).map(Cell::get))
    }

    fn note_hit(&self, index: u32, now: u16) {
        if self.writes() {
            let mark = &self.memory.marks[index as usize];
            let hit = Mark {
                hit: now,
                ..mark.get()
            };
            mark.set(hit);
        }
    }

    fn recall(&self, table: FlowTable, fingerprint: u64, now_s: u32) -> Option<Remembered> {
        let seen_s = self.real.then_some(now_s);
        let buckets = self.memory.table(table);
        let found = flow_table::find(fingerprint, seen_s, &buckets);
        answer!(self, Known, found)
    }

    fn remember(&self, table: FlowTable, fingerprint: u64, new: Remembered, live_s: u32) -> Put {
        if self.writes() {
            self.memory.remember(table, fingerprint, new, live_s)
        } else {
            Put::Inserted
        }
    }

    fn spend(&self, now_s: u32, divisor: u32) -> bool {
        !self.writes() || self.memory.spend(now_s, divisor)
    }

    fn count(&self, event: Event) {
        // Counting is no write that anybody reads: the packet may still be held up after it.
        if self.real {
            *self
                .memory
                .counts
                .borrow_mut()
                .entry(event as u32)
                .or_default() += 1;
        }
    }
}
