//! The flow tables in mapped memory, as the agent sees them.

use std::io;
use std::os::fd::BorrowedFd;

use lb_ebpf::flow_table::{self, FlowBucket, Remembered};

use super::mmap::Cells;

/// Buckets that are looked at to say how many flows live: 32 MiB, some ten milliseconds.
const BUCKETS_SEEN_MAX: usize = 1 << 19;

/// One of the two flow tables; the kernel program uses it at the same time.
#[derive(Debug)]
pub(super) struct Flows {
    cells: Cells,
}

impl Flows {
    /// Maps the array behind `fd`, which has `buckets` elements: a power of two.
    pub(super) fn of_map(fd: BorrowedFd<'_>, buckets: u32) -> io::Result<Self> {
        let words = buckets as usize * size_of::<FlowBucket>() / size_of::<u64>();
        let cells = Cells::of_map(fd, words)?;
        Ok(Self { cells })
    }

    /// What is remembered about a flow. Asking leaves no trace.
    pub(super) fn find(&self, fingerprint: u64) -> Option<Remembered> {
        flow_table::find(fingerprint, None, &self.cells.buckets())
    }

    /// Forgets what `keep` does not want. Returns how many flows that were.
    pub(super) fn retain(&self, keep: impl Fn(Remembered) -> bool) -> u32 {
        flow_table::retain(&self.cells.buckets(), keep)
    }

    /// Flows whose last packet was seen at `since_s` or later, in seconds of the monotonic clock.
    ///
    /// A hash spreads flows over the table, so of a large one the first [`BUCKETS_SEEN_MAX`] speak for
    /// all.
    pub(super) fn seen_since(&self, since_s: u32) -> u64 {
        let buckets = self.cells.buckets();
        // Both are powers of two.
        let seen = &buckets[..buckets.len().min(BUCKETS_SEEN_MAX)];
        let flows = flow_table::flows(&seen);
        let live = flows.filter(|(_, flow)| flow.seen_s >= since_s).count();
        (live * (buckets.len() / seen.len())) as u64
    }
}

#[cfg(test)]
mod tests {
    use lb_ebpf::flow_table::put;

    use super::*;

    /// Twice the buckets that are looked at, with `count` flows seen at 10 s and as many at 20 s.
    #[test]
    fn a_large_table_is_estimated() {
        let buckets = 2 * BUCKETS_SEEN_MAX;
        let cells = Cells::anonymous(buckets * size_of::<FlowBucket>() / size_of::<u64>()).unwrap();
        let table = Flows { cells };
        // One flow to each of the first 2000 buckets of either half, by their first home.
        for half in [0, BUCKETS_SEEN_MAX as u64] {
            for index in 2..2002 {
                let seen_s = if index % 2 == 0 { 10 } else { 20 };
                let flow = Remembered {
                    owner: 1,
                    tag: 0,
                    seen_s,
                };
                put(half + index, flow, 60, &table.cells.buckets());
            }
        }
        let counts = [0, 10, 11, 20, 21].map(|since_s| table.seen_since(since_s));
        assert_eq!(counts, [4000, 4000, 2000, 2000, 0]);
        assert_eq!(table.retain(|flow| flow.seen_s == 20), 2000);
        assert_eq!(table.seen_since(0), 2000);
    }
}
