//! Which instance takes a request: pure choice over numbers, no sockets and no clock.

pub(crate) mod maglev;

use std::cell::Cell;
use std::sync::Arc;

use self::maglev::Maglev;

/// Chooses among the instances of one service for one worker.
#[derive(Debug)]
pub(crate) enum Balancer {
    /// Each in turn.
    RoundRobin(Turn),
    /// The one of two random instances with fewer requests in flight: nearly as good as looking
    /// at all of them, without the herd that rushes to a single emptiest one (Mitzenmacher 2001).
    LeastRequest(Random),
    /// The same instance for the same key; requests without a key take turns.
    Hash(Arc<Maglev>, Turn),
}

impl Balancer {
    /// The instance among `count` that takes the next request, or `None` if none is `usable`.
    pub(crate) fn pick(
        &self,
        count: usize,
        usable: impl Fn(usize) -> bool,
        in_flight: impl Fn(usize) -> u32,
        key: Option<u64>,
    ) -> Option<usize> {
        match (self, key) {
            (Self::Hash(table, _), Some(key)) => table.owner(key, usable),
            (Self::RoundRobin(turn) | Self::Hash(_, turn), _) => turn.take(count, usable),
            (Self::LeastRequest(random), _) => less_loaded(count, usable, in_flight, random),
        }
    }
}

fn less_loaded(
    count: usize,
    usable: impl Fn(usize) -> bool,
    in_flight: impl Fn(usize) -> u32,
    random: &Random,
) -> Option<usize> {
    let candidates = || (0..count).filter(|index| usable(*index));
    let total = candidates().count();
    let one = candidates().nth(random.below(total)?)?;
    // The second is drawn from the others, so two are always compared where two exist.
    let Some(skip) = random.below(total - 1) else {
        return Some(one);
    };
    let other = candidates().filter(|index| *index != one).nth(skip)?;
    Some(if in_flight(other) < in_flight(one) {
        other
    } else {
        one
    })
}

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct Turn(Cell<usize>);

impl Turn {
    /// Turns that begin with instance `first`; workers begin differently, or all would start
    /// with the same instance after a restart.
    pub(crate) fn starting_at(first: usize) -> Self {
        Self(Cell::new(first))
    }

    fn take(&self, count: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.0.get();
        let taken = (0..count)
            .map(|step| (start + step) % count)
            .find(|index| usable(*index))?;
        self.0.set(taken + 1);
        Some(taken)
    }
}

/// A small generator of random numbers (xorshift64*), good enough to spread load.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// A generator with this seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Cell::new(seed | 1))
    }

    /// The next 64 bits.
    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, or `None` if there is none.
    fn below(&self, end: usize) -> Option<usize> {
        (end > 0).then(|| ((u128::from(self.next()) * end as u128) >> 64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(balancer: &Balancer, usable: &[bool], loads: &[u32], count: usize) -> Vec<usize> {
        (0..count)
            .filter_map(|_| balancer.pick(usable.len(), |i| usable[i], |i| loads[i], None))
            .collect()
    }

    #[test]
    fn round_robin_takes_turns_and_leaves_out_the_unusable() {
        let table: [(&str, usize, &[bool], &[usize]); 5] = [
            ("all", 0, &[true, true, true], &[0, 1, 2, 0, 1]),
            ("starts elsewhere", 2, &[true, true, true], &[2, 0, 1, 2, 0]),
            ("one out", 0, &[true, false, true], &[0, 2, 0, 2, 0]),
            ("one left", 0, &[false, false, true], &[2, 2, 2, 2, 2]),
            ("none", 0, &[false, false], &[]),
        ];
        for (what, first, usable, expected) in table {
            let balancer = Balancer::RoundRobin(Turn::starting_at(first));
            assert_eq!(picks(&balancer, usable, &[0; 3], 5), expected, "{what}");
        }
    }

    #[test]
    fn least_request_avoids_the_busiest() {
        let balancer = Balancer::LeastRequest(Random::seeded(7));
        let taken = picks(&balancer, &[true; 3], &[9, 0, 1], 300);
        assert_eq!(taken.len(), 300);
        assert!(
            !taken.contains(&0),
            "the busiest of three loses every comparison"
        );
        assert!(taken.contains(&1) && taken.contains(&2));
    }

    #[test]
    fn least_request_compares_only_the_usable() {
        let table: [(&[bool], &[usize]); 3] = [
            (&[false, true, false], &[1]),
            (&[true, true, false], &[1]),
            (&[false; 3], &[]),
        ];
        for (usable, expected) in table {
            let balancer = Balancer::LeastRequest(Random::seeded(7));
            assert_eq!(
                picks(&balancer, usable, &[5, 0, 0], 1),
                expected,
                "{usable:?}"
            );
        }
    }

    #[test]
    fn least_request_spreads_evenly_when_all_are_idle() {
        let balancer = Balancer::LeastRequest(Random::seeded(7));
        let taken = picks(&balancer, &[true; 4], &[0; 4], 4000);
        for index in 0..4 {
            let share = taken.iter().filter(|one| **one == index).count();
            assert!(
                (800..1200).contains(&share),
                "instance {index} took {share} of 4000"
            );
        }
    }

    #[test]
    fn hash_without_a_key_takes_turns() {
        let table = Arc::new(Maglev::new(&["a", "b"]));
        let balancer = Balancer::Hash(table, Turn::starting_at(0));
        assert_eq!(picks(&balancer, &[true, true], &[0, 0], 4), [0, 1, 0, 1]);
    }
}
