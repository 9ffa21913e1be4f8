//! The flow tables in mapped memory, as the agent sees them.

use std::io;
use std::os::fd::BorrowedFd;

use lb_ebpf::flow_table::{self, FlowBucket, Remembered};

use super::mmap::Cells;

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
    pub(super) fn seen_since(&self, since_s: u32) -> u32 {
        let buckets = self.cells.buckets();
        let flows = flow_table::flows(&buckets);
        flows.filter(|(_, flow)| flow.seen_s >= since_s).count() as u32
    }
}
