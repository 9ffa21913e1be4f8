//! Waiting until no packet in flight can still see what was unpublished.

use std::io;

use tracing::warn;

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Stands in for a grace period where the kernel offers none to user space, in milliseconds. A packet
/// spends microseconds in the program.
const FALLBACK_MS: libc::c_int = 50;

/// Waits for one RCU grace period: when this returns, every run of the XDP program that had begun
/// before is over.
///
/// XDP programs run inside an RCU read-side section (softirq), and `membarrier(2)` with the global
/// command is `synchronize_rcu()` for anyone (kernel/sched/membarrier.c). It takes some 10 ms, so
/// callers let it pass in the background, and wait in line only when they reuse memory sooner.
/// Kernels with `nohz_full` CPUs refuse the command; there, a pause far longer than any packet's stay
/// in the program does.
pub fn wait() {
    // SAFETY: takes three integers and touches no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        let error = io::Error::last_os_error();
        warn!(%error, "membarrier is not available, pausing {FALLBACK_MS} ms instead");
        // SAFETY: polls no descriptors at all, which is a pause.
        unsafe { libc::poll(std::ptr::null_mut(), 0, FALLBACK_MS) };
    }
}
