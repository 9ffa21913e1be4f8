//! The clock by which the data path dates moves: `bpf_ktime_get_coarse_ns`, a tick behind.

use nix::time::{ClockId, clock_gettime};

/// Seconds of the monotonic clock.
pub fn now_s() -> u32 {
    // Fails only for a clock that does not exist, and every kernel has this one.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() as u32)
}
