//! The ring map as memory: a bounds-checked view of an mmap-able BPF array of 8-byte cells.
//!
//! Writing a 65 537-slot ring by system calls takes 32 769 of them; through the mapping it is a copy
//! of 256 KiB. aya 0.14 has no wrapper for `BPF_F_MMAPABLE`, so this one is written by hand.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use lb_ebpf::flow_table::FlowBucket;

/// Bytes of a cell.
const CELL_BYTES: usize = size_of::<u64>();

/// A shared mapping of 8-byte cells.
///
/// Cells are read and written one at a time with relaxed atomics: the kernel program reads them at
/// any moment, and a cell must never be seen half written. Order between cells is the business of
/// whoever publishes them ([`Cells::publish_fence`]).
#[derive(Debug)]
pub(super) struct Cells {
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, stays where it is until drop, and is only
// accessed through atomics.
unsafe impl Send for Cells {}

impl Cells {
    /// Maps the first `len` cells of the BPF array behind `fd`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: the map is smaller, or was made without `BPF_F_MMAPABLE`.
    pub(super) fn of_map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::new(len, libc::MAP_SHARED, fd.as_raw_fd())
    }

    /// Cells in ordinary memory, for tests.
    #[cfg(test)]
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        Self::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn new(len: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        let bytes = len
            .checked_mul(CELL_BYTES)
            .filter(|&bytes| bytes > 0)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: asks for a new mapping at an address of the kernel's choice; no existing memory is
        // touched, and every argument is checked by the kernel.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(address.cast())
            .ok_or_else(|| io::Error::other("the kernel mapped the ring at address 0"))?;
        Ok(Self { start, len })
    }

    /// Number of cells.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of cell `index`, if there is one.
    pub(super) fn load(&self, index: usize) -> Option<u64> {
        Some(self.cells().get(index)?.load(Ordering::Relaxed))
    }

    /// The cells `from..from + count`, if all of them exist.
    pub(super) fn slice(&self, from: usize, count: usize) -> Option<&[AtomicU64]> {
        self.cells().get(from..from.checked_add(count)?)
    }

    /// The cells as buckets of a flow table, eight to one.
    pub(super) fn buckets(&self) -> &[FlowBucket] {
        let count = self.len * CELL_BYTES / size_of::<FlowBucket>();
        // SAFETY: a bucket is eight atomic words and nothing else, `count` of them lie within the
        // cells, and the page where the mapping starts is aligned to more than a bucket.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), count) }
    }

    /// Makes every store before it visible before any store after it, system calls included.
    pub(super) fn publish_fence() {
        std::sync::atomic::fence(Ordering::Release);
    }

    fn cells(&self) -> &[AtomicU64] {
        // SAFETY: `start` is page aligned and valid for `len` cells until drop; every bit pattern is
        // a valid AtomicU64, and whoever else writes (the kernel program) does it a word at a time.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped; no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len * CELL_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use lb_ebpf::flow_table;

    use super::*;

    #[test]
    fn cells_are_bounds_checked() {
        let cells = Cells::anonymous(4).unwrap();
        cells.slice(3, 1).unwrap()[0].store(7, Ordering::Relaxed);
        assert_eq!(cells.load(3), Some(7));
        assert_eq!(cells.load(4), None);
        assert!(cells.slice(3, 2).is_none());
        assert!(cells.slice(1, usize::MAX).is_none());
    }

    #[test]
    fn buckets_are_the_cells_eight_at_a_time() {
        let cells = Cells::anonymous(17).unwrap();
        assert_eq!(cells.buckets().len(), 2);
        cells.slice(8, 2).unwrap()[0].store(9, Ordering::Relaxed);
        let flows: Vec<_> = flow_table::flows(&cells.buckets()).collect();
        assert_eq!(flows, [(9, flow_table::Remembered::default())]);
    }

    #[test]
    fn an_empty_or_endless_mapping_is_refused() {
        assert!(Cells::anonymous(0).is_err());
        assert!(Cells::anonymous(usize::MAX).is_err());
    }
}
