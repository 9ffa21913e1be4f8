//! The flow table: what is remembered about flows, 16 bytes each, over an array map.
//!
//! A kernel LRU map would take some 112 bytes and a lock for a flow, and would not say what it
//! evicts. Here a flow is a keyed 64-bit fingerprint that may lie in one of two *buckets*, a cache
//! line each ("balanced allocations", Azar, Broder, Karlin and Upfal, 1999): a look-up touches one
//! line or two, whatever the number of flows, and of a table's worth of flows one in some hundred
//! thousand is evicted.
//!
//! - A new flow goes to the bucket with more room. When none of the eight entries is empty, it takes
//!   that of the flow that was quiet for longest; unless that one counts as ended by now, it is
//!   evicted, and the caller is told.
//! - Readers never wait. A writer claims an entry by exchanging its fingerprint for a mark, writes
//!   the value, then the new fingerprint; a reader looks at the fingerprint again after the value.
//!   Who loses the race for an entry gives up and says so.
//! - Two flows with the same fingerprint would share an entry. The fingerprint is made with the
//!   deployment's secret ([`hash::fingerprint`](crate::hash::fingerprint)), so nobody can bring
//!   that about; by chance it happens to one of 2^44 pairs of a million flows.

use core::sync::atomic::AtomicU64;
#[cfg(target_has_atomic = "64")]
use core::sync::atomic::Ordering;

/// Entries of a bucket: one cache line.
pub const ENTRIES_PER_BUCKET: usize = 4;

/// Of four entries, those that flows are meant to take: a table for `n` flows has at least
/// `n / FLOWS_PER_BUCKET` buckets.
pub const FLOWS_PER_BUCKET: u32 = 2;

/// No flow: the entry is free.
const EMPTY: u64 = 0;

/// No flow: somebody is writing.
const CLAIMED: u64 = 1;

/// Fingerprints begin here.
pub const FINGERPRINT_MIN: u64 = 2;

/// Buckets of a table for `flows` flows: a power of two.
pub const fn buckets(flows: u32) -> u32 {
    flows.div_ceil(FLOWS_PER_BUCKET).next_power_of_two()
}

/// What is remembered about one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Backend id.
    pub owner: u16,
    /// What the entry holds for: the move ([`Mark::since`](crate::abi::Mark::since)), or the low
    /// half of the VIP's id.
    pub tag: u16,
    /// When a packet of the flow was last seen, in seconds of the monotonic clock.
    pub seen_s: u32,
}

impl Remembered {
    #[inline(always)]
    const fn pack(self) -> u64 {
        (self.seen_s as u64) << 32 | (self.tag as u64) << 16 | self.owner as u64
    }

    #[inline(always)]
    const fn unpack(word: u64) -> Self {
        Self {
            owner: word as u16,
            tag: (word >> 16) as u16,
            seen_s: (word >> 32) as u32,
        }
    }

    /// Seconds since a packet was last seen. CPUs read the clock at slightly different moments, so
    /// "last" may lie ahead of "now".
    #[inline(always)]
    const fn quiet_s(self, now_s: u32) -> u32 {
        now_s.saturating_sub(self.seen_s)
    }
}

/// One flow, or none.
#[derive(Debug, Default)]
#[repr(C)]
pub struct FlowEntry {
    fingerprint: AtomicU64,
    remembered: AtomicU64,
}

/// A table in memory: a BPF map, or a plain array.
pub trait Buckets {
    /// Number of buckets minus one; the number is a power of two.
    fn mask(&self) -> u32;

    /// The bucket at `index`; `None` beyond the end.
    fn bucket(&self, index: u32) -> Option<&FlowBucket>;

    /// The value of `word`, in the order of the program at least.
    fn load(&self, word: &AtomicU64) -> u64;

    /// Replaces the value of `word`, in the order of the program at least.
    fn store(&self, word: &AtomicU64, value: u64);

    /// Replaces `from` by `to` in `word`, with a full barrier; false when it holds something else.
    fn exchange(&self, word: &AtomicU64, from: u64, to: u64) -> bool;
}

/// A table in the memory of a process.
///
/// The compiler has no atomic instructions for BPF, where the program brings its own.
#[cfg(target_has_atomic = "64")]
impl Buckets for &[FlowBucket] {
    fn mask(&self) -> u32 {
        self.len() as u32 - 1
    }

    fn bucket(&self, index: u32) -> Option<&FlowBucket> {
        self.get(index as usize)
    }

    fn load(&self, word: &AtomicU64) -> u64 {
        word.load(Ordering::Acquire)
    }

    fn store(&self, word: &AtomicU64, value: u64) {
        word.store(value, Ordering::Release);
    }

    fn exchange(&self, word: &AtomicU64, from: u64, to: u64) -> bool {
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

impl FlowEntry {
    /// The value, if it is that of `fingerprint`.
    #[inline(always)]
    fn read(&self, fingerprint: u64, table: &impl Buckets) -> Option<u64> {
        if table.load(&self.fingerprint) != fingerprint {
            return None;
        }
        let word = table.load(&self.remembered);
        // Still its flow: else the value may be another's.
        (table.load(&self.fingerprint) == fingerprint).then_some(word)
    }

    /// Takes the entry from `fingerprint`; false when it is no longer that one's.
    #[inline(always)]
    fn claim(&self, fingerprint: u64, table: &impl Buckets) -> bool {
        fingerprint != CLAIMED && table.exchange(&self.fingerprint, fingerprint, CLAIMED)
    }
}

/// The flows of one cache line: the element of the maps.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct FlowBucket {
    entries: [FlowEntry; ENTRIES_PER_BUCKET],
}

const _: () = assert!(size_of::<FlowBucket>() == 64);

/// A bucket as words: a fingerprint and what is remembered, four times. For whoever reads and writes
/// the maps by system calls.
#[cfg(target_has_atomic = "64")]
impl FlowBucket {
    /// The bucket of these words.
    pub fn from_words(words: [u64; 2 * ENTRIES_PER_BUCKET]) -> Self {
        let mut entries = words.chunks_exact(2).map(|pair| FlowEntry {
            fingerprint: AtomicU64::new(pair[0]),
            remembered: AtomicU64::new(pair[1]),
        });
        let entry = |_| entries.next().unwrap_or_default();
        Self {
            entries: core::array::from_fn(entry),
        }
    }

    /// Its words.
    pub fn to_words(&self) -> [u64; 2 * ENTRIES_PER_BUCKET] {
        core::array::from_fn(|index| {
            let entry = &self.entries[index / 2];
            let word = if index % 2 == 0 {
                &entry.fingerprint
            } else {
                &entry.remembered
            };
            word.load(Ordering::Acquire)
        })
    }
}

/// What became of [`put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The flow was known; what was known is replaced.
    Updated,
    /// The flow is new, and an entry was free.
    Inserted,
    /// The flow is new, and a live one was evicted for it.
    Evicted,
    /// The flow is new, and somebody else took the entry at this moment.
    Lost,
}

/// The two buckets that a flow may lie in; `mask` is the number of buckets minus one.
#[inline(always)]
pub fn homes(fingerprint: u64, mask: u32) -> [u32; 2] {
    // The second index is multiplied out of all 64 bits, so that flows which share the first one
    // scatter; the multiplier is the golden ratio's.
    let second = fingerprint.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    [fingerprint as u32 & mask, second as u32 & mask]
}

/// What is remembered about the flow of `fingerprint`, as seen at `now_s`: that is noted, unless
/// `now_s` is `None`.
#[inline(always)]
pub fn find(fingerprint: u64, now_s: Option<u32>, table: &impl Buckets) -> Option<Remembered> {
    for index in homes(fingerprint, table.mask()) {
        for entry in &table.bucket(index)?.entries {
            let Some(word) = entry.read(fingerprint, table) else {
                continue;
            };
            let remembered = Remembered::unpack(word);
            if let Some(seen_s) = now_s
                && seen_s != remembered.seen_s
            {
                let seen = Remembered {
                    seen_s,
                    ..remembered
                };
                // Once a second for a flow. Whoever changed the value meanwhile knows better.
                table.exchange(&entry.remembered, word, seen.pack());
            }
            return Some(remembered);
        }
    }
    None
}

/// Remembers `new` about the flow of `fingerprint`; `new.seen_s` is now. Flows that were quiet for
/// longer than `live_s` seconds count as ended.
#[inline(always)]
pub fn put(fingerprint: u64, new: Remembered, live_s: u32, table: &impl Buckets) -> Put {
    let [first, second] = homes(fingerprint, table.mask());
    let (Some(first), Some(second)) = (table.bucket(first), table.bucket(second)) else {
        return Put::Lost;
    };
    for bucket in [first, second] {
        for entry in &bucket.entries {
            if let Some(word) = entry.read(fingerprint, table) {
                let replaced = table.exchange(&entry.remembered, word, new.pack());
                return if replaced { Put::Updated } else { Put::Lost };
            }
        }
    }
    let one = worst(first, new.seen_s, table);
    let other = worst(second, new.seen_s, table);
    let (bucket, worth) = if other > one {
        (second, other)
    } else {
        (first, one)
    };
    let entry = &bucket.entries[(worth & INDEX) as usize];
    let fingerprint_before = table.load(&entry.fingerprint);
    if !entry.claim(fingerprint_before, table) {
        return Put::Lost;
    }
    table.store(&entry.remembered, new.pack());
    // An exchange and not a store, because it is a full barrier on every machine.
    table.exchange(&entry.fingerprint, CLAIMED, fingerprint);
    if worth >> INDEX_BITS > u64::from(live_s) {
        Put::Inserted
    } else {
        Put::Evicted
    }
}

/// Bits of a rank that number the entry.
const INDEX: u64 = ENTRIES_PER_BUCKET as u64 - 1;
const INDEX_BITS: u32 = INDEX.count_ones();

/// The rank of empty entries, which is above that of all others.
const FREE: u64 = 1 << 40;

/// The entry of `bucket` that is needed least, as a rank that can be compared with another bucket's:
/// first by being empty, then by how many stand before it (entries are taken from the front, so the
/// first empty one tells how full a bucket is), and among flows by how many seconds they were quiet.
/// A flow that counts as ended may still live: nobody takes its entry while there is an empty one.
///
/// One number instead of a structure: for the verifier of the kernel it is one unknown, where
/// counters and indexes would be a hundred states to follow.
#[inline(always)]
fn worst(bucket: &FlowBucket, now_s: u32, table: &impl Buckets) -> u64 {
    let mut worst = 0;
    for (index, entry) in (0..).zip(&bucket.entries) {
        let seen = Remembered::unpack(table.load(&entry.remembered));
        let rank = if table.load(&entry.fingerprint) == EMPTY {
            FREE | (INDEX - index) << INDEX_BITS
        } else {
            u64::from(seen.quiet_s(now_s)) << INDEX_BITS
        };
        if rank | index >= worst {
            worst = rank | index;
        }
    }
    worst
}

/// Forgets the flows of `table` that `keep` does not want. Returns how many.
///
/// For the agent; the data path may use the table at the same time.
pub fn retain(table: &impl Buckets, keep: impl Fn(Remembered) -> bool) -> u32 {
    let mut forgotten = 0;
    let buckets = (0..=table.mask()).filter_map(|index| table.bucket(index));
    for entry in buckets.flat_map(|bucket| &bucket.entries) {
        let found = table.load(&entry.fingerprint);
        let value = || Remembered::unpack(table.load(&entry.remembered));
        if found < FINGERPRINT_MIN || keep(value()) || !entry.claim(found, table) {
            continue;
        }
        // Nobody else writes now; the value may have changed just before.
        let kept = keep(value());
        table.exchange(
            &entry.fingerprint,
            CLAIMED,
            if kept { found } else { EMPTY },
        );
        forgotten += u32::from(!kept);
    }
    forgotten
}

/// The flows of `table`: fingerprint and what is remembered. For statistics and tests.
pub fn flows(table: &impl Buckets) -> impl Iterator<Item = (u64, Remembered)> {
    let flow = |entry: &FlowEntry| {
        (
            table.load(&entry.fingerprint),
            Remembered::unpack(table.load(&entry.remembered)),
        )
    };
    let buckets = (0..=table.mask()).filter_map(|index| table.bucket(index));
    let flows = buckets.flat_map(|bucket| &bucket.entries).map(flow);
    flows.filter(|(fingerprint, _)| *fingerprint >= FINGERPRINT_MIN)
}

#[cfg(test)]
mod tests;
