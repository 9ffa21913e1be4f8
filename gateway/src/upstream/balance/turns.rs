//! Round robin, smooth and exact by weight.
//!
//! Each instance earns turns at a rate of its share. Of those that have earned one, the one whose
//! next turn would be due first goes ahead: earliest eligible deadline first. After any number of
//! turns, counted from the beginning, every instance has had its exact share rounded up or down
//! (less than one turn away from it), which no schedule can better (Baruah, Cohen, Plaxton and
//! Varvel, "Proportionate progress", 1996; one resource is the case where this simple rule does).

use std::cell::{Cell, RefCell};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Turns of a schedule before its clock is set back, so that times stay exact as floating point.
const TURNS_MAX: u64 = 1 << 20;

/// Times closer than this are the same: what lies between them is rounding. Weights below 2^16
/// keep times that differ further apart.
const SAME_TIME: f64 = 1e-6;

/// Whose turn it is.
#[derive(Debug)]
pub(crate) enum Turns {
    /// All weigh the same: each in turn.
    Equal { count: usize, next: Cell<usize> },
    /// By weight.
    Weighted(RefCell<Schedule>),
}

impl Turns {
    /// Turns among as many as there are `weights`, each more than 0. They begin at position
    /// `first`; workers begin differently, or all would start with the same instance. `ahead` says
    /// how much of a turn each has had too little (more than 0) or too much in an earlier
    /// schedule, from -1 to 1; empty: nobody.
    pub(crate) fn new(weights: &[f64], first: usize, ahead: &[f64]) -> Self {
        let count = weights.len();
        let first = first % count.max(1);
        if weights.iter().all(|weight| *weight == weights[0]) {
            return Self::Equal {
                count,
                next: Cell::new(first),
            };
        }
        Self::Weighted(RefCell::new(Schedule::new(weights, first, ahead)))
    }

    /// The position whose turn it is, or `None` if there is none.
    pub(crate) fn take(&self) -> Option<usize> {
        match self {
            Self::Equal { count, next } => {
                let taken = next.get();
                next.set(if taken + 1 >= *count { 0 } else { taken + 1 });
                (*count > 0).then_some(taken)
            }
            Self::Weighted(schedule) => Some(schedule.borrow_mut().take()),
        }
    }

    /// How much of a turn the one at `position` has earned but not had.
    pub(crate) fn owed(&self, position: usize) -> f64 {
        match self {
            Self::Equal { .. } => 0.0,
            Self::Weighted(schedule) => schedule.borrow().owed(position),
        }
    }
}

/// Turns by weight.
#[derive(Debug)]
pub(crate) struct Schedule {
    shares: Vec<Share>,
    /// Turns taken since the clock was set back.
    turn: u64,
    /// Turns after which the clock is set back.
    turns_max: u64,
    /// Those that have earned a turn, by when it is due.
    ready: BinaryHeap<Reverse<Due>>,
    /// The others, by when they will have earned one.
    waiting: BinaryHeap<Reverse<Due>>,
}

/// One that takes turns.
#[derive(Debug)]
struct Share {
    /// Turns of all for one of its own: at least 1.
    every: f64,
    /// Owed by an earlier schedule when the clock started.
    owed: f64,
    taken: u64,
}

/// Who is due when; those due at the same time go by `order`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Due {
    at: f64,
    order: u32,
    position: u32,
}

impl Eq for Due {}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = self.at.total_cmp(&other.at);
        by_time.then(self.order.cmp(&other.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Schedule {
    fn new(weights: &[f64], first: usize, owed: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let share = |(position, weight): (usize, &f64)| Share {
            every: total / weight,
            owed: owed.get(position).map_or(0.0, |owed| owed.clamp(-1.0, 1.0)),
            taken: 0,
        };
        // After a whole number of rounds every count is exact, and forgetting it loses nothing.
        let round = total.round().max(1.0) as u64;
        let mut schedule = Self {
            shares: weights.iter().enumerate().map(share).collect(),
            turn: 0,
            turns_max: TURNS_MAX.div_ceil(round) * round,
            ready: BinaryHeap::with_capacity(weights.len()),
            waiting: BinaryHeap::with_capacity(weights.len()),
        };
        schedule.line_up(first);
        schedule
    }

    /// Everybody waits for their first turn.
    fn line_up(&mut self, first: usize) {
        let count = self.shares.len();
        self.ready.clear();
        self.waiting.clear();
        for position in 0..count {
            let order = (position + count - first) % count;
            self.waiting.push(Reverse(Due {
                at: self.shares[position].earned_at(),
                order: order as u32,
                position: position as u32,
            }));
        }
    }

    fn take(&mut self) -> usize {
        if self.turn == self.turns_max {
            self.set_back();
        }
        let now = self.turn as f64;
        while let Some(Reverse(due)) = self.waiting.peek() {
            // If nobody has earned a turn, which a debt from an earlier schedule may bring about,
            // the first who will have earned one goes ahead.
            if due.at > now && !self.ready.is_empty() {
                break;
            }
            let at = self.shares[due.position as usize].due_at();
            self.ready.push(Reverse(Due { at, ..*due }));
            self.waiting.pop();
        }
        let Reverse(taken) = self
            .ready
            .pop()
            .expect("somebody waits or is ready, always");
        let share = &mut self.shares[taken.position as usize];
        share.taken += 1;
        self.turn += 1;
        let at = share.earned_at();
        self.waiting.push(Reverse(Due { at, ..taken }));
        taken.position as usize
    }

    fn owed(&self, position: usize) -> f64 {
        let share = &self.shares[position];
        self.turn as f64 / share.every - share.taken as f64 + share.owed
    }

    /// Starts the clock anew.
    fn set_back(&mut self) {
        for position in 0..self.shares.len() {
            let owed = self.owed(position);
            let share = &mut self.shares[position];
            // What is so small is rounding: counts are whole, and weights have few digits.
            share.owed = if owed.abs() < SAME_TIME { 0.0 } else { owed };
            share.taken = 0;
        }
        self.turn = 0;
        let first = self.ready.iter().chain(&self.waiting);
        let first = first.min_by_key(|Reverse(due)| due.order);
        let first = first.map_or(0, |Reverse(due)| due.position as usize);
        self.line_up(first);
    }
}

impl Share {
    /// When it will have earned its next turn.
    fn earned_at(&self) -> f64 {
        (self.taken as f64 - self.owed) * self.every - SAME_TIME
    }

    /// When that turn is due: a turn later is late. Turns are whole, so is the time.
    fn due_at(&self) -> f64 {
        ((self.taken as f64 + 1.0 - self.owed) * self.every - SAME_TIME).ceil()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(weights: &[u32], first: usize, count: usize) -> Vec<usize> {
        let weights: Vec<f64> = weights.iter().copied().map(f64::from).collect();
        let turns = Turns::new(&weights, first, &[]);
        (0..count).filter_map(|_| turns.take()).collect()
    }

    #[test]
    fn turns_are_taken_smoothly() {
        let table: [(&str, &[u32], usize, &[usize]); 6] = [
            ("equal", &[1, 1, 1], 0, &[0, 1, 2, 0, 1]),
            ("equal, another first", &[2, 2, 2], 2, &[2, 0, 1, 2, 0]),
            ("one only", &[7], 3, &[0, 0, 0]),
            ("none", &[], 0, &[]),
            (
                "never two of the heavy where one will do",
                &[1, 2],
                0,
                &[1, 0, 1, 1, 0, 1],
            ),
            (
                "five, one, one",
                &[5, 1, 1],
                0,
                &[0, 1, 0, 0, 2, 0, 0, 0, 1, 0],
            ),
        ];
        for (what, weights, first, expected) in table {
            assert_eq!(turns(weights, first, expected.len()), expected, "{what}");
        }
    }

    proptest! {
        #[test]
        fn every_share_is_exact_to_less_than_a_turn_at_all_times(
            weights in prop::collection::vec(1_u32..60, 1..12),
            first in 0_usize..12,
        ) {
            let total: u32 = weights.iter().sum();
            let mut counts = vec![0_u32; weights.len()];
            let taken = turns(&weights, first, 2 * total as usize);
            for (turn, position) in taken.into_iter().enumerate() {
                counts[position] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    let share = (turn as f64 + 1.0) * f64::from(*weight) / f64::from(total);
                    prop_assert!((f64::from(*count) - share).abs() < 1.0 + 1e-9);
                }
            }
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(*count, 2 * weight);
            }
        }

        #[test]
        fn what_is_owed_is_carried_over(
            weights in prop::collection::vec(1_u32..20, 2..8),
            steps in prop::collection::vec(0_usize..5, 1..60),
        ) {
            // The schedule is made anew every few turns, as slow start does: shares still hold.
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            prop_assume!(weights.iter().any(|weight| *weight != weights[0]));
            let total: f64 = weights.iter().sum();
            let (mut counts, mut turn) = (vec![0.0; weights.len()], 0.0);
            let mut turns = Turns::new(&weights, 0, &[]);
            for step in steps {
                let owed: Vec<f64> = (0..weights.len()).map(|at| turns.owed(at)).collect();
                turns = Turns::new(&weights, 0, &owed);
                for _ in 0..step {
                    counts[turns.take().unwrap()] += 1.0;
                    turn += 1.0;
                }
                for (count, weight) in counts.iter().zip(&weights) {
                    prop_assert!((count - turn * weight / total).abs() < 1.0 + 1e-6);
                }
            }
        }
    }

    #[test]
    fn shares_stay_exact_when_the_clock_is_set_back() {
        let weights = [3.0, 2.0, 2.0];
        let mut schedule = Schedule::new(&weights, 0, &[]);
        schedule.turns_max = 14;
        let mut counts = [0; 3];
        for _ in 0..7 * 1000 {
            counts[schedule.take()] += 1;
        }
        assert_eq!(counts, [3000, 2000, 2000]);
    }
}
