//! Tokens already verified, so that a signature is checked once and not at every request.
//!
//! A signature check costs more than the rest of a proxied request. Entries are found by the
//! SHA-256 of the token and end with it. The number is bounded: each shard keeps two generations,
//! and when the young one has grown to its half, the old one goes. What is asked for again moves
//! to the young one; so the tokens in use stay, without a list to keep in order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Identity;

/// Parts with a lock each; enough that two cores rarely want the same one.
const SHARDS: usize = 16;

/// The SHA-256 of a token.
type TokenHash = [u8; 32];

/// How often a verified token was found again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Signature checks spared.
    pub hits: u64,
    /// Tokens that had to be verified, valid or not.
    pub misses: u64,
}

/// Verified tokens, shared by all workers.
#[derive(Debug)]
pub(super) struct TokenCache {
    shards: Vec<Mutex<Shard>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    young: HashMap<TokenHash, Entry>,
    old: HashMap<TokenHash, Entry>,
    /// Entries of one generation at most.
    generation_max: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    identity: Arc<Identity>,
    /// The first second at which the token is refused as expired.
    valid_until: u64,
}

impl TokenCache {
    /// Remembers `tokens_max` tokens, rounded down to a multiple of twice the shards used.
    pub(super) fn new(tokens_max: usize) -> Self {
        let shards = (tokens_max / 2).clamp(1, SHARDS);
        let generation_max = tokens_max / 2 / shards;
        let shard = || Shard {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_max,
        };
        Self {
            shards: (0..shards).map(|_| Mutex::new(shard())).collect(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The identity a token was found to prove, unless it has expired since.
    pub(super) fn find(&self, token: &TokenHash, now: u64) -> Option<Arc<Identity>> {
        let mut shard = self
            .shard(token)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let found = shard.find(token).filter(|entry| now < entry.valid_until);
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found.map(|entry| entry.identity)
    }

    /// Remembers a token until `valid_until`, in seconds since 1970.
    pub(super) fn insert(&self, token: TokenHash, identity: Arc<Identity>, valid_until: u64) {
        let mut shard = self
            .shard(&token)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shard.insert(
            token,
            Entry {
                identity,
                valid_until,
            },
        );
    }

    pub(super) fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    /// A cryptographic hash is spread evenly, so any byte of it chooses well.
    fn shard(&self, token: &TokenHash) -> &Mutex<Shard> {
        &self.shards[usize::from(token[0]) % self.shards.len()]
    }
}

impl Shard {
    fn find(&mut self, token: &TokenHash) -> Option<Entry> {
        if let Some(entry) = self.young.get(token) {
            return Some(entry.clone());
        }
        let entry = self.old.remove(token)?;
        self.insert(*token, entry.clone());
        Some(entry)
    }

    fn insert(&mut self, token: TokenHash, entry: Entry) {
        if self.generation_max == 0 {
            return;
        }
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(subject: &str) -> Arc<Identity> {
        let claims = serde_json::Map::new();
        Arc::new(Identity {
            auth: "test".into(),
            subject: subject.to_owned(),
            claims,
        })
    }

    fn hash(n: usize) -> TokenHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_le_bytes());
        hash
    }

    #[test]
    fn an_entry_ends_with_its_token() {
        let cache = TokenCache::new(100);
        cache.insert(hash(1), identity("alice"), 1000);
        assert_eq!(cache.find(&hash(1), 999).unwrap().subject, "alice");
        assert_eq!(cache.find(&hash(1), 1000), None);
        assert_eq!(cache.find(&hash(2), 0), None);
        assert_eq!(cache.counts(), CacheCounts { hits: 1, misses: 2 });
    }

    #[test]
    fn the_number_of_entries_is_bounded_and_those_in_use_stay() {
        for tokens_max in [0, 1, 2, 3, 31, 32, 100] {
            let cache = TokenCache::new(tokens_max);
            for n in 0..1000 {
                cache.insert(hash(n), identity("someone"), u64::MAX);
                cache.find(&hash(0), 0);
            }
            let sizes = cache.shards.iter().map(|shard| {
                let shard = shard.lock().unwrap();
                shard.young.len() + shard.old.len()
            });
            assert!(sizes.sum::<usize>() <= tokens_max, "{tokens_max}");
            let kept = cache.find(&hash(0), 0).is_some();
            assert_eq!(kept, tokens_max >= 2, "{tokens_max}");
        }
    }
}
