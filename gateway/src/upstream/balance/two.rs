//! The power of two choices: of two random instances the less loaded one. Nearly as good as looking
//! at all of them, without the herd that rushes to a single emptiest one (Mitzenmacher 2001).

use super::{Random, Sampler};

/// The position of two drawn ones with the smaller `cost`; the first drawn one if they are equal.
///
/// The sampler draws by weight, so `cost` must be relative to the weight too: then instances that
/// are equally busy for their weight get their share by weight, and a busier one gets less.
pub(crate) fn lighter(
    sampler: &Sampler,
    random: &Random,
    cost: impl Fn(usize) -> f64,
) -> Option<usize> {
    let (one, other) = sampler.draw_two(random)?;
    Some(if one != other && cost(other) < cost(one) {
        other
    } else {
        one
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(weights: &[f64], cost: impl Fn(usize) -> f64, count: usize) -> Vec<usize> {
        let (sampler, random) = (Sampler::new(weights), Random::seeded(7));
        let mut taken = vec![0; weights.len()];
        for _ in 0..count {
            taken[lighter(&sampler, &random, &cost).unwrap()] += 1;
        }
        taken
    }

    #[test]
    fn the_busiest_loses_every_comparison() {
        let taken = taken(&[1.0; 3], |at| [9.0, 0.0, 1.0][at], 300);
        assert_eq!(taken[0], 0);
        assert!(taken[1] > taken[2] && taken[2] > 0, "{taken:?}");
    }

    #[test]
    fn idle_instances_share_by_weight() {
        for (weights, expected) in [
            (vec![1.0; 4], vec![1000, 1000, 1000, 1000]),
            (vec![1.0, 3.0], vec![1000, 3000]),
        ] {
            let taken = taken(&weights, |_| 0.0, 4000);
            for (count, expected) in taken.iter().zip(expected) {
                assert!((*count as i32 - expected).abs() < 150, "{taken:?}");
            }
        }
    }

    /// A model of requests that stay for as long as 64 others come in: with two choices the most
    /// loaded instance stays near its share.
    #[test]
    fn loads_under_way_stay_close_to_the_weights() {
        let weights = [1.0, 1.0, 2.0, 4.0];
        let (sampler, random) = (Sampler::new(&weights), Random::seeded(11));
        let (mut loads, mut under_way) = ([0.0; 4], std::collections::VecDeque::new());
        let mut worst: f64 = 0.0;
        for step in 0..5000 {
            let cost = |at: usize| loads[at] / weights[at];
            let at = lighter(&sampler, &random, cost).unwrap();
            loads[at] += 1.0;
            under_way.push_back(at);
            if under_way.len() > 64 {
                loads[under_way.pop_front().unwrap()] -= 1.0;
            }
            if step > 100 {
                let relative = (0..4).map(|at| loads[at] / weights[at]).fold(0.0, f64::max);
                worst = worst.max(relative);
            }
        }
        assert!(
            worst <= 2.0 * 64.0 / 8.0,
            "the mean is 8 for each weight, worst {worst}"
        );
    }
}
