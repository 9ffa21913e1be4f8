//! Gives free memory back to the system.
//!
//! The allocator keeps what is freed for a second, in case it is wanted again, and then looks at
//! its clock only when further pages become free. A process that has read a large configuration,
//! or whose peak of connections is over, would keep for ever what nobody wants if it then had
//! nothing to do. So now and then a piece that needs pages of its own is taken and freed; that
//! takes a microsecond and touches no memory. A process that works frees pages enough by itself,
//! and is left alone: it would want back at once what is taken from it.

use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::MissedTickBehavior;

/// A little over two of the allocator's delays pass until free memory is given back at the latest.
const EVERY: Duration = Duration::from_secs(1);
/// Larger than what the allocator keeps for the next one who asks, and small against any limit of
/// address space.
const PIECE_BYTES: usize = 8 << 20;

/// A process that has used less of a processor than this since the last look is at rest.
const REST_CPU_MAX: Duration = Duration::from_millis(50);

/// Does so for as long as the process runs.
pub(super) async fn run() {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut used = cpu_time();
    loop {
        ticks.tick().await;
        let before = std::mem::replace(&mut used, cpu_time());
        if used.saturating_sub(before) < REST_CPU_MAX {
            drop(black_box(Vec::<u8>::with_capacity(PIECE_BYTES)));
        }
    }
}

/// What all threads of the process have used of processors.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
