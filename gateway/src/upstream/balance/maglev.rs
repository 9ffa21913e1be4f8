//! Consistent hashing by a Maglev table (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Built once when the configuration is loaded and shared by all workers. The table depends on the
//! names of the instances alone, so every gateway with the same configuration picks the same one.

/// Primes to choose the table size from: at least a hundred slots for each instance.
const SIZES: [usize; 4] = [1021, 8191, 65_537, 655_373];
/// Slots per instance the size is chosen for; the spread is then even to about one percent.
const SLOTS_PER_INSTANCE: usize = 100;

/// The look-up table: a key's slot names the instance that owns it.
#[derive(Debug)]
pub(crate) struct Maglev {
    owners: Box<[u32]>,
}

impl Maglev {
    /// The table for instances with these names.
    pub(crate) fn new(names: &[&str]) -> Self {
        let wanted = names.len() * SLOTS_PER_INSTANCE;
        let largest = SIZES[SIZES.len() - 1];
        let size = SIZES
            .into_iter()
            .find(|size| *size >= wanted)
            .unwrap_or(largest);
        Self {
            owners: fill(names, size).into_boxed_slice(),
        }
    }

    /// The owner of `key`: the first usable one from the key's slot onwards, so that only the keys
    /// of an unusable instance move.
    pub(crate) fn owner(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        // No slots, no owner: the table of a service without instances.
        let start = key.checked_rem(self.owners.len() as u64)? as usize;
        let owners = self.owners[start..].iter().chain(&self.owners[..start]);
        owners
            .map(|owner| *owner as usize)
            .find(|owner| usable(*owner))
    }
}

/// Lets the instances take slots in turn, each by its own permutation, until none is left.
fn fill(names: &[&str], size: usize) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let mut owners = vec![FREE; size];
    if names.is_empty() {
        return Vec::new();
    }
    // Turns follow the order of names, not of the list, so that the list's order does not matter.
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|index| names[*index]);
    let mut walks: Vec<Walk> = order
        .iter()
        .map(|index| Walk::new(names[*index], size))
        .collect();
    for filled in 0..size {
        let turn = filled % order.len();
        let slot = loop {
            let slot = walks[turn].next_slot(size);
            if owners[slot] == FREE {
                break slot;
            }
        };
        owners[slot] = order[turn] as u32;
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
    use super::*;

    const NAMES: [&str; 4] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];

    fn owners(table: &Maglev, usable: impl Fn(usize) -> bool + Copy) -> Vec<Option<usize>> {
        (0..1021).map(|key| table.owner(key, usable)).collect()
    }

    #[test]
    fn shares_are_even() {
        let table = Maglev::new(&NAMES);
        for index in 0..NAMES.len() {
            let share = table
                .owners
                .iter()
                .filter(|owner| **owner == index as u32)
                .count();
            assert!(
                (255..=256).contains(&share),
                "instance {index} owns {share} of 1021"
            );
        }
    }

    #[test]
    fn only_the_keys_of_an_unusable_instance_move() {
        let table = Maglev::new(&NAMES);
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
    fn the_order_of_the_list_does_not_matter() {
        let forward = Maglev::new(&NAMES);
        let mut names = NAMES;
        names.reverse();
        let backward = Maglev::new(&names);
        for key in 0..1021 {
            let one = forward.owner(key, |_| true).map(|index| NAMES[index]);
            let other = backward.owner(key, |_| true).map(|index| names[index]);
            assert_eq!(one, other, "key {key}");
        }
    }

    #[test]
    fn the_size_grows_with_the_instances() {
        let names: Vec<String> = (0..11).map(|index| format!("10.0.0.{index}:80")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(Maglev::new(&names[..10]).owners.len(), 1021);
        assert_eq!(Maglev::new(&names).owners.len(), 8191);
        assert_eq!(Maglev::new(&[]).owner(1, |_| true), None);
    }
}
