//! Consistent hashing by a Maglev table (Eisenbud et al., NSDI 2016, section 3.4), with weights and
//! bounded loads (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads",
//! 2016).
//!
//! Built when instances change and shared by all workers. The table depends on the names and
//! weights of the instances alone, so every gateway with the same configuration picks the same one.

/// Primes to choose the table size from: at least a hundred slots for each instance.
const SIZES: [usize; 4] = [1021, 8191, 65_537, 655_373];
/// Slots per instance the size is chosen for; the spread is then even to about one percent.
const SLOTS_PER_INSTANCE: usize = 100;
/// Slots looked at for an owner that may be used. Beyond them nearly all are out, and those that
/// are left are looked for among the instances themselves.
const STEPS_MAX: usize = 256;

/// The look-up table: a key's slot names the instance that owns it.
#[derive(Debug)]
pub(crate) struct Maglev {
    owners: Box<[u32]>,
    instances: usize,
}

impl Maglev {
    /// The table for instances with these names and weights. One without weight owns nothing.
    pub(crate) fn new(instances: &[(&str, u32)]) -> Self {
        let owning = instances.iter().filter(|(_, weight)| *weight > 0).count();
        let wanted = owning * SLOTS_PER_INSTANCE;
        let largest = SIZES[SIZES.len() - 1];
        let size = SIZES
            .into_iter()
            .find(|size| *size >= wanted)
            .unwrap_or(largest);
        Self {
            owners: fill(instances, size).into_boxed_slice(),
            instances: instances.len(),
        }
    }

    /// The owner of `key`: the first usable one from the key's slot onwards, so that only the keys
    /// of an unusable instance move, and to many others.
    pub(crate) fn owner(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        // No slots, no owner: the table of a service without instances.
        let start = key.checked_rem(self.owners.len() as u64)? as usize;
        let owners = self.owners[start..].iter().chain(&self.owners[..start]);
        let near = owners
            .take(STEPS_MAX)
            .map(|owner| *owner as usize)
            .find(|owner| usable(*owner));
        near.or_else(|| self.any(key, usable))
    }

    /// Any usable one, the same for the same key.
    fn any(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let start = (key % self.instances as u64) as usize;
        (0..self.instances)
            .map(|step| (start + step) % self.instances)
            .find(|instance| usable(*instance))
    }
}

/// The requests an instance may have at most: `percent` (at least 100) of its share by weight of
/// all that are under way and the one to come, rounded up. The sum over all instances is more than
/// there are, so one is always below.
pub(crate) fn capacity(percent: u32, in_flight: u32, weight: u32, weights: u64) -> u64 {
    let wanted = u64::from(percent) * (u64::from(in_flight) + 1) * u64::from(weight);
    wanted.div_ceil(100 * weights)
}

/// Lets the instances take slots in turn, each by its own permutation, until none is left. One of
/// less than the largest weight sits out turns in proportion.
fn fill(instances: &[(&str, u32)], size: usize) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    // Turns follow the order of names, not of the list, so that the list's order does not matter.
    let mut order: Vec<usize> = (0..instances.len())
        .filter(|index| instances[*index].1 > 0)
        .collect();
    order.sort_by_key(|index| instances[*index].0);
    let Some(largest) = order.iter().map(|index| instances[*index].1).max() else {
        return Vec::new();
    };
    let mut owners = vec![FREE; size];
    let mut walks: Vec<Walk> = order
        .iter()
        .map(|index| Walk::new(instances[*index].0, size))
        .collect();
    // By instance: what it has saved up for a slot, which costs the largest weight.
    let mut saved = vec![0_u64; order.len()];
    let (mut filled, mut turn) = (0, 0);
    while filled < size {
        saved[turn] += u64::from(instances[order[turn]].1);
        if saved[turn] >= u64::from(largest) {
            saved[turn] -= u64::from(largest);
            let slot = loop {
                let slot = walks[turn].next_slot(size);
                if owners[slot] == FREE {
                    break slot;
                }
            };
            owners[slot] = order[turn] as u32;
            filled += 1;
        }
        turn = (turn + 1) % order.len();
    }
    owners
}

/// One instance's permutation of the slots.
struct Walk {
    slot: usize,
    skip: usize,
}

impl Walk {
    fn new(name: &str, size: usize) -> Self {
        let slot = (fnv1a(name, 0) % size as u64) as usize;
        // The size is prime, so any skip below it visits every slot.
        let skip = (fnv1a(name, 1) % (size as u64 - 1)) as usize + 1;
        Self { slot, skip }
    }

    fn next_slot(&mut self, size: usize) -> usize {
        let slot = self.slot;
        self.slot = (slot + self.skip) % size;
        slot
    }
}

/// FNV-1a with a final mix: stable across versions and machines, which the standard hasher is not.
fn fnv1a(name: &str, seed: u8) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in [seed].iter().chain(name.as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOUR: [(&str, u32); 4] = [
        ("10.0.0.1:80", 1),
        ("10.0.0.2:80", 1),
        ("10.0.0.3:80", 1),
        ("10.0.0.4:80", 1),
    ];

    fn owners(table: &Maglev, usable: impl Fn(usize) -> bool + Copy) -> Vec<Option<usize>> {
        (0..1021).map(|key| table.owner(key, usable)).collect()
    }

    fn share(table: &Maglev, instance: usize) -> usize {
        let owners = table.owners.iter();
        owners.filter(|owner| **owner as usize == instance).count()
    }

    #[test]
    fn shares_follow_the_weights() {
        // Slots of 1021 for the weights of four instances.
        let table = [
            ([1, 1, 1, 1], [255, 255, 255, 256]),
            ([7, 7, 7, 7], [255, 255, 255, 256]),
            ([1, 2, 3, 4], [102, 204, 306, 409]),
            ([1, 0, 1, 0], [510, 0, 511, 0]),
            ([0, 0, 9, 0], [0, 0, 1021, 0]),
        ];
        for (weights, expected) in table {
            let mut instances = FOUR;
            for (instance, weight) in instances.iter_mut().zip(weights) {
                instance.1 = weight;
            }
            let table = Maglev::new(&instances);
            for (instance, expected) in expected.into_iter().enumerate() {
                let share = share(&table, instance);
                assert!(
                    share.abs_diff(expected) <= 1,
                    "{weights:?}: {instance} has {share}"
                );
            }
        }
    }

    #[test]
    fn only_the_keys_of_an_unusable_instance_move() {
        let table = Maglev::new(&FOUR);
        let before = owners(&table, |_| true);
        let after = owners(&table, |index| index != 2);
        for (key, (before, after)) in before.iter().zip(&after).enumerate() {
            if *before == Some(2) {
                assert_ne!(*after, Some(2), "key {key}");
            } else {
                assert_eq!(before, after, "key {key}");
            }
        }
        assert_eq!(table.owner(5, |_| false), None);
    }

    #[test]
    fn few_keys_move_when_an_instance_is_gone() {
        let before = Maglev::new(&FOUR);
        let after = Maglev::new(&FOUR[..3]);
        let moved = (0..1021)
            .map(|key| (before.owner(key, |_| true), after.owner(key, |_| true)))
            .filter(|(before, after)| *before != Some(3) && before != after)
            .count();
        assert!(moved < 1021 / 10, "{moved} of 1021 moved without need");
    }

    #[test]
    fn the_last_usable_of_many_is_found() {
        let names: Vec<String> = (0..2000)
            .map(|index| format!("10.0.0.{index}:80"))
            .collect();
        let instances: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let table = Maglev::new(&instances);
        for key in [0, 77, u64::MAX] {
            assert_eq!(table.owner(key, |index| index == 1234), Some(1234));
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let mut weighted = FOUR;
        weighted[1].1 = 3;
        let forward = Maglev::new(&weighted);
        let mut reversed = weighted;
        reversed.reverse();
        let backward = Maglev::new(&reversed);
        for key in 0..1021 {
            let one = forward.owner(key, |_| true).map(|index| weighted[index]);
            let other = backward.owner(key, |_| true).map(|index| reversed[index]);
            assert_eq!(one, other, "key {key}");
        }
    }

    #[test]
    fn the_size_grows_with_the_instances() {
        let names: Vec<String> = (0..11).map(|index| format!("10.0.0.{index}:80")).collect();
        let instances: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        assert_eq!(Maglev::new(&instances[..10]).owners.len(), 1021);
        assert_eq!(Maglev::new(&instances).owners.len(), 8191);
        assert_eq!(Maglev::new(&[]).owner(1, |_| true), None);
        assert_eq!(Maglev::new(&[("a", 0)]).owner(1, |_| true), None);
    }

    proptest! {
        /// Whatever the keys, however unevenly they come: nobody gets more than the bound.
        #[test]
        fn no_load_is_above_the_bound(
            keys in prop::collection::vec(0_u64..5, 1..300),
            weights in prop::collection::vec(1_u32..10, 1..12),
            percent in 100_u32..200,
        ) {
            let names: Vec<String> = (0..weights.len()).map(|index| format!("i{index}")).collect();
            let instances: Vec<_> = names.iter().map(String::as_str).zip(weights.clone()).collect();
            let table = Maglev::new(&instances);
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            let mut loads = vec![0; weights.len()];
            for (in_flight, key) in (0_u32..).zip(keys) {
                let room = |at: usize| capacity(percent, in_flight, weights[at], total) > loads[at];
                let owner = table.owner(key, room).expect("one is always below");
                loads[owner] += 1;
                for (load, weight) in loads.iter().zip(&weights) {
                    let mean = f64::from(in_flight + 1) * f64::from(*weight) / total as f64;
                    let most = mean * f64::from(percent) / 100.0 + 1.0;
                    prop_assert!((*load as f64) < most + 1e-9);
                }
            }
        }
    }
}
