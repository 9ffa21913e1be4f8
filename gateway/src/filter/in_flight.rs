//! How many requests one sender may have under way at a time.
//!
//! Runs after authentication, so that it can count by identity, and before rate limits, so that a
//! refused request uses up nothing. Refuses with 429: unlike the limit of a service, this one is
//! the sender's own doing. One limiter serves all workers and all routes that use it. A request
//! without the key is counted by its client address, as rate limits do.
//!
//! A sender is remembered while requests of it are under way, so there are never more of them than
//! requests, which connections and streams bound.

use std::collections::hash_map::Entry;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::request::Parts;

use super::Context;
use super::hashed::{ByHash, Hashed};
use super::key::{RequestKey, SenderKey};
use super::reject::Reject;

/// Parts of the map with a lock each; enough that two cores rarely want the same one.
const SHARDS: usize = 64;

/// What a limit allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// What tells senders apart.
    pub key: RequestKey,
    /// Requests of one sender under way at most, at least 1.
    pub in_flight_max: u32,
}

/// What became of the requests a limit has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Within the limit.
    pub allowed: u64,
    /// Over the limit.
    pub limited: u64,
    /// Senders with requests under way now.
    pub keys: usize,
}

/// A limit at work.
#[derive(Debug)]
pub struct InFlightLimit {
    policy: Policy,
    shards: Box<[Mutex<ByHash<Hashed, u32>>]>,
    keyed: RandomState,
    allowed: AtomicU64,
    limited: AtomicU64,
}

impl InFlightLimit {
    /// A limit nobody has used yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            keyed: RandomState::new(),
            allowed: AtomicU64::new(0),
            limited: AtomicU64::new(0),
        }
    }

    /// What the limit allows.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What became of the requests seen so far.
    pub fn counts(&self) -> Counts {
        Counts {
            allowed: self.allowed.load(Ordering::Relaxed),
            limited: self.limited.load(Ordering::Relaxed),
            keys: self.shards.iter().map(|shard| lock(shard).len()).sum(),
        }
    }

    /// Takes a place for a request of a route; the context holds it.
    pub fn run(
        self: &Arc<Self>,
        context: &mut Context,
        head: &Parts,
        route: &str,
    ) -> Result<(), Reject> {
        let key = self.policy.key.sender(context, head, route);
        let key = key.unwrap_or_else(|| SenderKey::client(context.client));
        let key = Hashed::new(&self.keyed, key);
        if !self.take(key) {
            self.limited.fetch_add(1, Ordering::Relaxed);
            return Err(Reject::InFlightLimited);
        }
        self.allowed.fetch_add(1, Ordering::Relaxed);
        context.places.push(Place {
            limit: Arc::clone(self),
            key,
        });
        Ok(())
    }

    fn take(&self, key: Hashed) -> bool {
        let mut shard = self.shard(&key);
        let count = shard.entry(key).or_insert(0);
        let room = *count < self.policy.in_flight_max;
        *count += u32::from(room);
        room
    }

    fn give_back(&self, key: Hashed) {
        let mut shard = self.shard(&key);
        if let Entry::Occupied(mut count) = shard.entry(key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn shard(&self, key: &Hashed) -> MutexGuard<'_, ByHash<Hashed, u32>> {
        lock(&self.shards[key.part(SHARDS)])
    }
}

/// A panic under the lock leaves a map whose entries are all whole, so it may go on.
fn lock(shard: &Mutex<ByHash<Hashed, u32>>) -> MutexGuard<'_, ByHash<Hashed, u32>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place of one request, given back when dropped.
#[derive(Debug)]
pub struct Place {
    limit: Arc<InFlightLimit>,
    key: Hashed,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limit.give_back(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(in_flight_max: u32) -> Arc<InFlightLimit> {
        Arc::new(InFlightLimit::new(Policy {
            name: "per-client".into(),
            key: RequestKey::ClientIp,
            in_flight_max,
        }))
    }

    fn send(limit: &Arc<InFlightLimit>, client: &str) -> Result<Context, Reject> {
        let mut context = Context::new(client.parse().unwrap());
        let (head, ()) = http::Request::new(()).into_parts();
        limit.run(&mut context, &head, "route").map(|()| context)
    }

    #[test]
    fn at_the_limit_and_one_over_for_each_sender() {
        let limit = limit(2);
        let held = [send(&limit, "192.0.2.1"), send(&limit, "192.0.2.1")];
        assert!(held.iter().all(Result::is_ok));
        let refused = send(&limit, "192.0.2.1").unwrap_err();
        assert_eq!(refused, Reject::InFlightLimited);
        let other = send(&limit, "192.0.2.2").unwrap();
        let seen = |counts: Counts| (counts.allowed, counts.limited, counts.keys);
        assert_eq!(seen(limit.counts()), (3, 1, 2));

        drop((held, other));
        assert_eq!(seen(limit.counts()), (3, 1, 0), "nobody is remembered");
        assert!(send(&limit, "192.0.2.1").is_ok());
    }

    #[test]
    fn senders_of_one_hash_have_places_of_their_own() {
        let limit = limit(1);
        let key = |last: u8| Hashed::with_hash(42, SenderKey::client([192, 0, 2, last].into()));
        assert!(limit.take(key(1)) && limit.take(key(2)));
        assert!(!limit.take(key(1)));
        limit.give_back(key(2));
        assert_eq!(limit.counts().keys, 1);
        assert!(!limit.take(key(1)) && limit.take(key(2)));
    }

    #[test]
    fn places_are_never_lost_among_threads() {
        let limit = limit(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..2000 {
                        drop(send(&limit, ["192.0.2.1", "192.0.2.2"][round % 2]));
                    }
                });
            }
        });
        let counts = limit.counts();
        assert_eq!((counts.keys, counts.allowed + counts.limited), (0, 8000));
    }
}
