//! How late a worker's event loop is: the time a task that is ready waits for its turn.
//!
//! A timer asks to be woken every [`TICK`]; how much later it is woken is what every request on
//! this worker waits at every step. One late tick is a burst. Only what the *least* late of the
//! last ticks shows is overload, as CoDel judges a queue by its minimum (Nichols and Jacobson
//! 2012).

use std::time::Duration;

/// Between looks.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Between looks at whether there is a limit now, where there was none.
pub(crate) const OFF_LOOK: Duration = Duration::from_secs(1);
/// Ticks that must all be late.
const TICKS: usize = 4;

/// The last ticks of one worker.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    late: [Duration; TICKS],
    next: usize,
}

impl Lag {
    /// The timer was woken so much too late. Returns how late the loop stands.
    pub(crate) fn observe(&mut self, late: Duration) -> Duration {
        self.late[self.next] = late;
        self.next = (self.next + 1) % TICKS;
        self.late.iter().min().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_standing_delay_counts() {
        // Milliseconds late, tick by tick; what the loop is taken to stand at.
        let table: [(&[u64], &[u64]); 4] = [
            (&[0, 90, 0, 0, 0], &[0, 0, 0, 0, 0]),
            (&[50, 60, 70, 80, 90], &[0, 0, 0, 50, 60]),
            (&[50, 50, 50, 50, 0, 50], &[0, 0, 0, 50, 0, 0]),
            (&[20, 30, 20, 30, 20, 30], &[0, 0, 0, 20, 20, 20]),
        ];
        for (late, expected) in table {
            let mut lag = Lag::default();
            let stands = late
                .iter()
                .map(|millis| lag.observe(Duration::from_millis(*millis)).as_millis() as u64);
            assert_eq!(stands.collect::<Vec<_>>(), expected, "{late:?}");
        }
    }
}
