//! The senders a limit remembers: a map with an upper bound, shared by all workers.
//!
//! The maps that come with governor grow with every new key, and keys come from clients. This one
//! holds `keys_max` and no more; all keys have the same size, so the memory it takes can be
//! computed.

use std::hash::RandomState;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;

use super::super::hashed::{ByHash, Hashed};
use super::super::key::SenderKey;

/// Parts of the map with a lock each; enough that two cores rarely want the same one.
const SHARDS: usize = 64;

/// For each sender the time at which its bucket is full again. Clones share one map.
#[derive(Clone, Debug)]
pub(super) struct BoundedStore {
    shards: Arc<[Mutex<ByHash<Hashed, Nanos>>]>,
    keyed: Arc<RandomState>,
    keys: Arc<AtomicUsize>,
    keys_max: usize,
}

impl BoundedStore {
    pub(super) fn new(keys_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            keyed: Arc::default(),
            keys: Arc::default(),
            keys_max,
        }
    }

    /// A sender as the store knows it.
    pub(super) fn hashed(&self, key: SenderKey) -> Hashed {
        Hashed::new(&self.keyed, key)
    }

    /// Whether there is, or now has been made, a place for this key.
    pub(super) fn admit(&self, key: &Hashed) -> bool {
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

    fn shard(&self, key: &Hashed) -> MutexGuard<'_, ByHash<Hashed, Nanos>> {
        lock(&self.shards[key.part(SHARDS)])
    }
}

/// A panic under the lock leaves a map whose entries are all whole, so it may go on.
fn lock(shard: &Mutex<ByHash<Hashed, Nanos>>) -> MutexGuard<'_, ByHash<Hashed, Nanos>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStore for BoundedStore {
    type Key = Hashed;

    /// Called after [`admit`](BoundedStore::admit). Should a sweep on another thread have taken
    /// the place away in between, the request is decided as a first one and not remembered.
    fn measure_and_replace<T, F, E>(&self, key: &Hashed, decide: F) -> Result<T, E>
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

impl ShrinkableKeyedStateStore<Hashed> for BoundedStore {
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

    fn sender(address: [u8; 4]) -> SenderKey {
        SenderKey::client(address.into())
    }

    #[test]
    fn the_bound_holds_with_many_threads() {
        const KEYS_MAX: usize = 100;
        let store = BoundedStore::new(KEYS_MAX);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4u8)
                .map(|thread| {
                    let store = &store;
                    scope.spawn(move || {
                        let key = |n: u8| store.hashed(sender([10, 0, thread, n]));
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

    #[test]
    fn senders_of_one_hash_are_counted_each_for_itself() {
        let store = BoundedStore::new(2);
        let key = |last| Hashed::with_hash(42, sender([192, 0, 2, last]));
        assert!(store.admit(&key(1)) && store.admit(&key(2)));
        assert!(!store.admit(&key(3)), "the bound counts both");
        let replace = |last, next: u64| {
            let swap = |before: Option<Nanos>| Ok::<_, ()>((before, Nanos::from(next)));
            store.measure_and_replace(&key(last), swap).unwrap()
        };
        let cases = [
            (1, 100, Some(0)),
            (2, 200, Some(0)),
            (1, 101, Some(100)),
            (2, 201, Some(200)),
            (3, 300, None),
        ];
        for (last, next, before) in cases {
            assert_eq!(
                replace(last, next),
                before.map(Nanos::from),
                "{last} {next}"
            );
        }
        store.retain_recent(Nanos::from(150));
        assert_eq!(store.len(), 1, "the first is forgotten");
        assert_eq!(replace(2, 0), Some(Nanos::from(201)));
    }
}
