//! The senders a limit remembers: a map with an upper bound, shared by all workers.
//!
//! The maps that come with governor grow with every new key, and keys come from clients. This one
//! holds `keys_max` and no more; a key has 16 bytes, so the memory it takes can be computed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;

/// Parts of the map with a lock each; enough that two cores rarely want the same one.
const SHARDS: usize = 64;

type Key = [u8; 16];

/// For each sender the time at which its bucket is full again. Clones share one map.
#[derive(Clone, Debug)]
pub(super) struct BoundedStore {
    shards: Arc<[Mutex<HashMap<Key, Nanos>>]>,
    hasher: RandomState,
    keys: Arc<AtomicUsize>,
    keys_max: usize,
}

impl BoundedStore {
    pub(super) fn new(keys_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            keys: Arc::default(),
            keys_max,
        }
    }

    /// Whether there is, or now has been made, a place for this key.
    pub(super) fn admit(&self, key: &Key) -> bool {
        let mut shard = self.shard(key);
        if shard.contains_key(key) {
            return true;
        }
        let reserved = self
            .keys
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |keys| {
                (keys < self.keys_max).then_some(keys + 1)
            });
        if reserved.is_err() {
            return false;
        }
        // Zero lies before every time there is: the same as a sender never seen.
        shard.insert(*key, Nanos::from(0));
        true
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Nanos>> {
        let place = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64)
            .expect("a remainder is smaller than its divisor");
        lock(&self.shards[place])
    }
}

/// A panic under the lock leaves a map whose entries are all whole, so it may go on.
fn lock(shard: &Mutex<HashMap<Key, Nanos>>) -> MutexGuard<'_, HashMap<Key, Nanos>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStore for BoundedStore {
    type Key = Key;

    /// Called after [`admit`](BoundedStore::admit). Should a sweep on another thread have taken
    /// the place away in between, the request is decided as a first one and not remembered.
    fn measure_and_replace<T, F, E>(&self, key: &Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shard(key);
        let place = shard.get_mut(key);
        let (outcome, next) = decide(place.as_deref().copied())?;
        if let Some(place) = place {
            *place = next;
        }
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<Key> for BoundedStore {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in self.shards.iter() {
            let mut shard = lock(shard);
            let before = shard.len();
            shard.retain(|_, full_at| *full_at > drop_below);
            self.keys.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_with_many_threads() {
        const KEYS_MAX: usize = 100;
        let store = BoundedStore::new(KEYS_MAX);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4u8)
                .map(|thread| {
                    let store = &store;
                    scope.spawn(move || {
                        let key = |n: u8| [thread, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                        (0..50).filter(|n| store.admit(&key(*n))).count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!((admitted, store.len()), (KEYS_MAX, KEYS_MAX));
        store.retain_recent(Nanos::from(0));
        assert!(store.is_empty());
    }
}
