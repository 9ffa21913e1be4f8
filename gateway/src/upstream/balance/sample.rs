//! A random position with chances by weight, in constant time (Walker's alias method, as Vose
//! builds it, 1991).

use super::Random;

/// Draws positions.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// Positions there are.
    count: usize,
    /// For each position: the chance to stay with it, and where to go otherwise. Empty: all
    /// weigh the same.
    slots: Vec<(f64, u32)>,
}

impl Sampler {
    /// Draws with chances in proportion to `weights`, each more than 0.
    pub(crate) fn new(weights: &[f64]) -> Self {
        let first = weights.first().copied().unwrap_or_default();
        let equal = weights.iter().all(|weight| *weight == first);
        Self {
            count: weights.len(),
            slots: if equal { Vec::new() } else { slots(weights) },
        }
    }

    /// A position, or `None` if there is none.
    pub(crate) fn draw(&self, random: &Random) -> Option<usize> {
        if self.count == 0 {
            return None;
        }
        let drawn = random.below(self.count);
        match self.slots.get(drawn) {
            Some((stay, other)) if random.unit() >= *stay => Some(*other as usize),
            _ => Some(drawn),
        }
    }

    /// Two different positions, or one twice if there is one only. Where the weights differ so
    /// much that a few draws do not find a second, its neighbour stands in.
    pub(crate) fn draw_two(&self, random: &Random) -> Option<(usize, usize)> {
        const DRAWS_MAX: usize = 4;
        let first = self.draw(random)?;
        if self.slots.is_empty() {
            // The second is drawn from the others, so two are always compared where two exist.
            let others = self.count - 1;
            let step = if others == 0 {
                0
            } else {
                1 + random.below(others)
            };
            return Some((first, (first + step) % self.count));
        }
        let different = (0..DRAWS_MAX)
            .filter_map(|_| self.draw(random))
            .find(|second| *second != first);
        Some((first, different.unwrap_or((first + 1) % self.count)))
    }
}

fn slots(weights: &[f64]) -> Vec<(f64, u32)> {
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    let mut slots: Vec<(f64, u32)> = weights.iter().map(|weight| (weight / mean, 0)).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|at| slots[*at].0 < 1.0);
    // Each that has too little is filled up by one that has too much.
    while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
        slots[less].1 = more as u32;
        slots[more].0 -= 1.0 - slots[less].0;
        if slots[more].0 < 1.0 {
            large.pop();
            small.push(more);
        }
    }
    // What is left differs from 1 by rounding alone.
    for left in small.into_iter().chain(large) {
        slots[left].0 = 1.0;
    }
    slots
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The chance of each position as the slots have it.
    fn chances(sampler: &Sampler) -> Vec<f64> {
        let each = 1.0 / sampler.count as f64;
        let mut chances = vec![0.0; sampler.count];
        for at in 0..sampler.count {
            let (stay, other) = sampler.slots.get(at).copied().unwrap_or((1.0, 0));
            chances[at] += each * stay;
            chances[other as usize] += each * (1.0 - stay);
        }
        chances
    }

    proptest! {
        #[test]
        fn chances_are_in_proportion(weights in prop::collection::vec(1_u32..1000, 1..50)) {
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            let total: f64 = weights.iter().sum();
            let sampler = Sampler::new(&weights);
            for (chance, weight) in chances(&sampler).iter().zip(&weights) {
                prop_assert!((chance - weight / total).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn draws_follow_the_chances() {
        let (sampler, random) = (Sampler::new(&[1.0, 2.0, 5.0]), Random::seeded(3));
        let mut seen = [0_i32; 3];
        for _ in 0..8000 {
            seen[sampler.draw(&random).unwrap()] += 1;
        }
        for (count, expected) in seen.iter().zip([1000, 2000, 5000]) {
            assert!((count - expected).abs() < 200, "{seen:?}");
        }
        assert_eq!(Sampler::new(&[]).draw(&random), None);
    }

    #[test]
    fn two_differ_where_there_are_two() {
        let random = Random::seeded(5);
        let tables: [(&[f64], bool); 4] = [
            (&[1.0], false),
            (&[1.0, 1.0], true),
            (&[1.0, 1.0, 1.0], true),
            (&[1000.0, 1.0], true),
        ];
        for (weights, differ) in tables {
            let sampler = Sampler::new(weights);
            for _ in 0..100 {
                let (one, other) = sampler.draw_two(&random).unwrap();
                assert_eq!(one != other, differ, "{weights:?}");
            }
        }
    }
}
