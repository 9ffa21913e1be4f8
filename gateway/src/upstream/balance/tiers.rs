//! Priority and zone: which group of instances a request goes to.
//!
//! The instances of a service stand in tiers: by priority, and within each priority those of the
//! gateway's own zone before the others. A tier takes as much of the load as it can bear: the
//! share of its weight that is usable, times `overprovisioning` (1.4 by default: a tier with 72 %
//! of its weight still bears everything). What is left goes to the next tier, and so on. If all
//! tiers together cannot bear everything, each takes its part in proportion, and if less than
//! `panic_threshold` of all the weight is usable, the checks are not believed any more and every
//! instance is used: better some failures than the rest of the instances failing under the load of
//! all. The rule of Envoy's priority levels, with zones as levels of their own.

/// What a tier has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tier {
    /// The weight of all its instances.
    pub(crate) weight: f64,
    /// The weight of its usable ones.
    pub(crate) usable: f64,
}

/// The share of the load of each of `tiers`, first to last: adding up to 1, or all 0 if nothing is
/// usable.
pub(crate) fn shares(tiers: &[Tier], overprovisioning: f64) -> Vec<f64> {
    let bearable = |tier: &Tier| match tier.weight > 0.0 {
        true => (tier.usable / tier.weight * overprovisioning).min(1.0),
        false => 0.0,
    };
    let total: f64 = tiers.iter().map(bearable).sum();
    let scale = if total > 0.0 && total < 1.0 {
        1.0 / total
    } else {
        1.0
    };
    let mut left: f64 = 1.0;
    tiers
        .iter()
        .map(|tier| {
            let share = (bearable(tier) * scale).min(left);
            left -= share;
            // Rounding must not leave a share nobody bears, nor a tier with next to none.
            if left < 1e-9 {
                left = 0.0;
            }
            share
        })
        .collect()
}

/// Whether so little is usable that all is used.
pub(crate) fn is_panic(tiers: &[Tier], threshold: f64) -> bool {
    let weight: f64 = tiers.iter().map(|tier| tier.weight).sum();
    let usable: f64 = tiers.iter().map(|tier| tier.usable).sum();
    weight > 0.0 && usable < weight * threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tiers of ten instances, so many usable.
    fn of_ten(usable: &[u32]) -> Vec<Tier> {
        let tier = |usable: &u32| Tier {
            weight: 10.0,
            usable: f64::from(*usable),
        };
        usable.iter().map(tier).collect()
    }

    #[test]
    fn load_moves_on_when_a_tier_cannot_bear_it() {
        // Usable of ten in each tier, and percent of the load of each.
        let table: [(&[u32], &[u32]); 11] = [
            (&[10], &[100]),
            (&[1], &[100]),
            (&[0], &[0]),
            (&[10, 10], &[100, 0]),
            (&[8, 10], &[100, 0]),
            (&[7, 10], &[98, 2]),
            (&[5, 10], &[70, 30]),
            (&[0, 10], &[0, 100]),
            (&[5, 1], &[83, 17]),
            (&[2, 2, 10], &[28, 28, 44]),
            (&[0, 0, 0], &[0, 0, 0]),
        ];
        for (usable, expected) in table {
            let shares = shares(&of_ten(usable), 1.4);
            let percents: Vec<u32> = shares
                .iter()
                .map(|one| (one * 100.0).round() as u32)
                .collect();
            assert_eq!(percents, expected, "{usable:?}");
        }
    }

    #[test]
    fn a_tier_without_weight_bears_nothing() {
        let tiers = [Tier::default(), of_ten(&[10])[0]];
        assert_eq!(shares(&tiers, 1.4), [0.0, 1.0]);
        assert_eq!(shares(&[], 1.4), [] as [f64; 0]);
    }

    #[test]
    fn panic_begins_below_the_threshold() {
        let table = [
            (vec![5], 0.5, false),
            (vec![4], 0.5, true),
            (vec![0, 10], 0.5, false),
            (vec![0, 9], 0.5, true),
            (vec![0], 0.0, false),
            (vec![0], 0.01, true),
            (vec![9], 1.0, true),
        ];
        for (usable, threshold, expected) in table {
            assert_eq!(
                is_panic(&of_ten(&usable), threshold),
                expected,
                "{usable:?} {threshold}"
            );
        }
        assert!(!is_panic(&[], 0.5));
    }
}
