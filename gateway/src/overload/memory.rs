//! The memory ceiling: from resident bytes to what is still allowed. Pure, readings passed in.
//!
//! `memory_max` is what the process shall never need; on the way there it gives up one thing after
//! the other, each at a level of its own:
//!
//! | stage | from | what happens |
//! |---|---|---|
//! | `relief` | 70 % | idle connections are closed, to clients and instances; no keep-alive |
//! | `sheddable` | 80 % | requests of class `sheddable` are refused, waiting ones too |
//! | `default` | 85 % | those of class `default` too |
//! | `all` | 90 % | all requests are refused |
//! | `closed` | 95 % | new connections are closed at once |
//! | `cut` | 100 % | connections with requests under way are cut, some at a time, and tunnels, the most idle first |
//!
//! New tunnels (WebSockets) are requests, and refused like those. Those that stand hold on to what
//! they have, and may be all that is left: where no request was let in for some seconds, they are
//! cut before the last stage, too, but more slowly.
//!
//! A stage is left when memory is half a step below the level that began it, so that it does not
//! come and go with every reading.
//!
//! **Memory that is free but not given back.** An allocator may keep pages for the next request.
//! They count as resident, and refusing requests does not make them fewer: the gateway would
//! refuse for ever. So when hardly anything is under way any more, whatever is resident is no
//! longer due to requests: it is the *floor*, and the levels lie between it and `memory_max`. It
//! sinks with memory at once, and rises only while there is hardly any work. What tunnels hold at
//! least is not part of it, or more and more of them would pass unseen.

use std::time::{Duration, Instant};

use super::class::Class;

/// Between readings.
pub(crate) const READ_EVERY: Duration = Duration::from_millis(100);

/// The part of `memory_max` below which nothing happens, as the floor of an allocator that gives
/// everything back.
const FLOOR: f64 = 0.65;
/// Where the stages begin between the floor and the ceiling, in the order of [`Stage`].
const LEVELS: [(Stage, f64); 6] = [
    (Stage::Relief, 1.0 / 7.0),
    (Stage::Sheddable, 3.0 / 7.0),
    (Stage::Default, 4.0 / 7.0),
    (Stage::All, 5.0 / 7.0),
    (Stage::Closed, 6.0 / 7.0),
    (Stage::Cut, 1.0),
];
/// How far below its level a stage is left.
const HYSTERESIS: f64 = 0.5 / 7.0;
/// How long there must be hardly any work until what is resident is the floor.
const QUIET: Duration = Duration::from_secs(1);
/// Hardly any work: this part of the most that was under way, or this many requests.
const QUIET_PART: u64 = 16;
const QUIET_MAX: u64 = 4;
/// What a tunnel holds at least: a buffer for each direction.
const TUNNEL_BYTES: u64 = 2 * 8 * 1024;

/// What is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) requests: u64,
    /// Upgraded connections, whose requests are over.
    pub(crate) tunnels: u64,
}

/// What memory still allows. The order of the variants is the order of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Everything.
    #[default]
    Normal,
    /// No connections without a request.
    Relief,
    /// No requests that are sheddable.
    Sheddable,
    /// Critical requests only.
    Default,
    /// No requests.
    All,
    /// No connections either.
    Closed,
    /// Less than there is.
    Cut,
}

impl Stage {
    const ALL: [Self; 7] = [
        Self::Normal,
        Self::Relief,
        Self::Sheddable,
        Self::Default,
        Self::All,
        Self::Closed,
        Self::Cut,
    ];

    /// The stage of this number.
    pub(crate) fn numbered(number: u8) -> Self {
        let found = Self::ALL.get(usize::from(number));
        found.copied().unwrap_or_default()
    }

    /// Whether requests of this class are let in.
    pub(super) fn allows(self, class: Class) -> bool {
        match self {
            Self::Normal | Self::Relief => true,
            Self::Sheddable => class > Class::Sheddable,
            Self::Default => class > Class::Default,
            Self::All | Self::Closed | Self::Cut => false,
        }
    }

    /// The name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Relief => "relief",
            Self::Sheddable => "sheddable",
            Self::Default => "default",
            Self::All => "all",
            Self::Closed => "closed",
            Self::Cut => "cut",
        }
    }
}

/// Follows the readings of one process.
#[derive(Debug, Default)]
pub(crate) struct Ceiling {
    stage: Stage,
    /// Bytes resident when hardly anything was under way.
    floor: u64,
    /// Since when that is so.
    quiet_since: Option<Instant>,
    /// The most requests under way since the stage was normal.
    in_flight_max: u64,
}

impl Ceiling {
    /// Takes a reading: bytes resident, bytes allowed, what is under way. Returns the stage.
    pub(crate) fn observe(&mut self, resident: u64, max: u64, work: Work, now: Instant) -> Stage {
        let due_to_tunnels = work.tunnels.saturating_mul(TUNNEL_BYTES);
        self.find_floor(resident.saturating_sub(due_to_tunnels), work.requests, now);
        let base = (max as f64 * FLOOR).max(self.floor as f64);
        // A floor near the ceiling, or above, leaves a little room to work in all the same: an
        // allocator that keeps that much must not end the service.
        let top = (max as f64).max(base + max as f64 * 0.05);
        let used = (resident as f64 - base) / (top - base);
        let reached = LEVELS.iter().rev().find(|(stage, level)| {
            let level = if *stage <= self.stage {
                level - HYSTERESIS
            } else {
                *level
            };
            used >= level
        });
        self.stage = reached.map_or(Stage::Normal, |(stage, _)| *stage);
        self.stage
    }

    fn find_floor(&mut self, resident: u64, in_flight: u64, now: Instant) {
        self.floor = self.floor.min(resident);
        self.in_flight_max = match self.stage {
            Stage::Normal => in_flight,
            _ => self.in_flight_max.max(in_flight),
        };
        if in_flight > QUIET_MAX.max(self.in_flight_max / QUIET_PART) {
            self.quiet_since = None;
            return;
        }
        let since = *self.quiet_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= QUIET {
            self.floor = resident;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1000;
    const BUSY: u64 = 100;

    fn requests(requests: u64) -> Work {
        Work {
            requests,
            ..Work::default()
        }
    }

    /// Readings 100 ms apart: the stage after each.
    fn stages(ceiling: &mut Ceiling, start: Instant, readings: &[(u64, u64)]) -> Vec<Stage> {
        let step = |(index, (resident, in_flight)): (usize, &(u64, u64))| {
            let now = start + READ_EVERY * index as u32;
            ceiling.observe(*resident, MAX, requests(*in_flight), now)
        };
        readings.iter().enumerate().map(step).collect()
    }

    #[test]
    fn stages_begin_at_their_levels() {
        let table = [
            (0, Stage::Normal),
            (699, Stage::Normal),
            (701, Stage::Relief),
            (799, Stage::Relief),
            (801, Stage::Sheddable),
            (851, Stage::Default),
            (901, Stage::All),
            (951, Stage::Closed),
            (999, Stage::Closed),
            (1000, Stage::Cut),
            (5000, Stage::Cut),
        ];
        for (resident, expected) in table {
            let found = Ceiling::default().observe(resident, MAX, requests(BUSY), Instant::now());
            assert_eq!(found, expected, "{resident}");
        }
    }

    #[test]
    fn stages_are_left_half_a_step_below() {
        let readings = [
            (860, BUSY),
            (830, BUSY),
            (820, BUSY),
            (770, BUSY),
            (680, BUSY),
            (670, BUSY),
        ];
        let expected = [
            Stage::Default,
            Stage::Default,
            Stage::Sheddable,
            Stage::Relief,
            Stage::Relief,
            Stage::Normal,
        ];
        let mut ceiling = Ceiling::default();
        assert_eq!(stages(&mut ceiling, Instant::now(), &readings), expected);
    }

    #[test]
    fn memory_an_allocator_keeps_does_not_end_the_service() {
        for kept in [800, 960, 1200] {
            let start = Instant::now();
            let mut ceiling = Ceiling::default();
            let mut readings = vec![(kept, BUSY)];
            // Refusals are under way for a moment each: a few are seen by a reading.
            readings.extend([(kept, 3); 12]);
            let seen = stages(&mut ceiling, start, &readings);
            assert!(seen[0] > Stage::Normal, "{kept}");
            assert!(
                seen[9] > Stage::Normal,
                "{kept}: not before a second is over"
            );
            assert_eq!(seen[12], Stage::Normal, "{kept}");
            // Work may go on in what is kept. More than that is as dangerous as ever.
            let later = start + Duration::from_secs(10);
            let work = [(kept, BUSY), (kept.max(1000) + 50, BUSY)];
            let seen = stages(&mut ceiling, later, &work);
            assert_eq!(seen, [Stage::Normal, Stage::Cut], "{kept}");
        }
    }

    #[test]
    fn the_floor_sinks_when_memory_is_given_back() {
        let start = Instant::now();
        let mut ceiling = Ceiling::default();
        let mut readings = vec![(900, BUSY)];
        readings.extend([(900, 0); 12]);
        readings.extend([(300, BUSY), (880, BUSY)]);
        let seen = stages(&mut ceiling, start, &readings);
        assert_eq!(seen[12..], [Stage::Normal, Stage::Normal, Stage::Default]);
    }

    #[test]
    fn work_under_way_is_no_floor() {
        let start = Instant::now();
        let mut ceiling = Ceiling::default();
        let readings: Vec<_> = (0..100).map(|_| (960, BUSY)).collect();
        let seen = stages(&mut ceiling, start, &readings);
        assert!(seen.iter().all(|stage| *stage == Stage::Closed), "{seen:?}");
    }

    #[test]
    fn what_tunnels_hold_is_no_floor() {
        const MIB: u64 = 1 << 20;
        let start = Instant::now();
        // 100 MiB allowed; so many tunnels, for some seconds without a request, on top of 20 MiB.
        let table = [
            (0, Stage::Normal),
            (3000, Stage::Normal),
            (3968, Stage::Sheddable),
            (4480, Stage::All),
            (5120, Stage::Cut),
        ];
        for (tunnels, expected) in table {
            let mut ceiling = Ceiling::default();
            let work = Work {
                tunnels,
                requests: 0,
            };
            let resident = 20 * MIB + tunnels * TUNNEL_BYTES;
            let seen: Vec<Stage> = (0..30)
                .map(|tick| ceiling.observe(resident, 100 * MIB, work, start + READ_EVERY * tick))
                .collect();
            assert!(
                seen.iter().all(|stage| *stage == expected),
                "{tunnels}: {seen:?}"
            );
        }
    }

    #[test]
    fn numbers_and_stages_belong_together() {
        for (number, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(Stage::numbered(number as u8), stage);
            assert_eq!(stage as usize, number);
        }
        assert_eq!(Stage::numbered(200), Stage::Normal);
    }
}
