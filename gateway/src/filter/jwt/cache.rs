//! Tokens already verified, so that a signature is checked once and not at every request.
//!
//! A signature check costs more than the rest of a proxied request. Entries are found by a keyed
//! hash of the token's end, which is its signature and differs between any two of them; then the
//! whole token is compared, so that no other one is ever taken for it. Entries end with their
//! token. Their number and bytes are bounded: each shard keeps two generations, and when the young
//! one has grown to its half, the old one goes. What is asked for again moves to the young one; so
//! the tokens in use stay, without a list to keep in order.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::hashed::{ByHash, part};
use super::Identity;

/// Parts with a lock each; enough that two cores rarely want the same one.
const SHARDS: usize = 16;
/// Bytes of tokens remembered, for each token that may be, at most: where tokens are longer,
/// fewer are remembered.
const BYTES_PER_TOKEN_MAX: usize = 2 << 10;
/// Bytes of a token's end that are hashed. The shortest signature, of HMAC-SHA256, has 43.
const HASHED_BYTES: usize = 32;

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
    keyed: RandomState,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Entries by the hash of their token, one for each hash.
#[derive(Debug)]
struct Shard {
    young: ByHash<u64, Entry>,
    old: ByHash<u64, Entry>,
    /// Of the tokens of the young generation.
    young_bytes: usize,
    /// Entries of one generation at most.
    generation_max: usize,
}

#[derive(Debug)]
struct Entry {
    token: Box<[u8]>,
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
            young: ByHash::default(),
            old: ByHash::default(),
            young_bytes: 0,
            generation_max,
        };
        Self {
            shards: (0..shards).map(|_| Mutex::new(shard())).collect(),
            keyed: RandomState::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The identity a token was found to prove, unless it has expired since.
    pub(super) fn find(&self, token: &[u8], now: u64) -> Option<Arc<Identity>> {
        self.find_hashed(self.hash(token), token, now)
    }

    fn find_hashed(&self, hash: u64, token: &[u8], now: u64) -> Option<Arc<Identity>> {
        let mut shard = self
            .shard(hash)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let found = shard.find(hash, token);
        let found = found.filter(|entry| now < entry.valid_until);
        let found = found.map(|entry| Arc::clone(&entry.identity));
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Remembers a token until `valid_until`, in seconds since 1970.
    pub(super) fn insert(&self, token: &[u8], identity: Arc<Identity>, valid_until: u64) {
        self.insert_hashed(self.hash(token), token, identity, valid_until);
    }

    fn insert_hashed(&self, hash: u64, token: &[u8], identity: Arc<Identity>, valid_until: u64) {
        let entry = Entry {
            token: token.into(),
            identity,
            valid_until,
        };
        let mut shard = self
            .shard(hash)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shard.insert(hash, entry);
    }

    fn hash(&self, token: &[u8]) -> u64 {
        let end = token.len().saturating_sub(HASHED_BYTES);
        self.keyed.hash_one(&token[end..])
    }

    pub(super) fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[part(hash, self.shards.len())]
    }
}

impl Shard {
    fn find(&mut self, hash: u64, token: &[u8]) -> Option<&Entry> {
        // Who could make two hashes equal would learn from the time how far the tokens are; the
        // key of the hash, which nobody knows, is why nobody can.
        let is = |entry: &Entry| *entry.token == *token;
        if self.old.get(&hash).is_some_and(is)
            && let Some(entry) = self.old.remove(&hash)
        {
            self.insert(hash, entry);
        }
        self.young.get(&hash).filter(|entry| is(entry))
    }

    /// Another token of the same hash makes room: it needs to be verified again, no more.
    fn insert(&mut self, hash: u64, entry: Entry) {
        let bytes_max = self.generation_max * BYTES_PER_TOKEN_MAX;
        let bytes = entry.token.len();
        if bytes > bytes_max {
            return;
        }
        if self.young.len() >= self.generation_max || self.young_bytes + bytes > bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        if let Some(before) = self.young.insert(hash, entry) {
            self.young_bytes -= before.token.len();
        }
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

    fn token(n: usize) -> Vec<u8> {
        format!("header.claims.signature-{n:040}").into()
    }

    fn subject(found: Option<Arc<Identity>>) -> Option<String> {
        found.map(|identity| identity.subject.clone())
    }

    /// How many entries there are, and how many bytes their tokens have.
    fn size(cache: &TokenCache) -> (usize, usize) {
        let shards = cache.shards.iter().map(|shard| shard.lock().unwrap());
        shards.fold((0, 0), |(entries, bytes), shard| {
            let young: usize = shard.young.values().map(|entry| entry.token.len()).sum();
            let old: usize = shard.old.values().map(|entry| entry.token.len()).sum();
            assert_eq!(shard.young_bytes, young);
            let more = shard.young.len() + shard.old.len();
            (entries + more, bytes + young + old)
        })
    }

    #[test]
    fn an_entry_ends_with_its_token() {
        let cache = TokenCache::new(100);
        cache.insert(&token(1), identity("alice"), 1000);
        assert_eq!(cache.find(&token(1), 999).unwrap().subject, "alice");
        assert_eq!(cache.find(&token(1), 1000), None);
        assert_eq!(cache.find(&token(2), 0), None);
        assert_eq!(cache.counts(), CacheCounts { hits: 1, misses: 2 });
    }

    #[test]
    fn only_the_very_same_token_is_found_whatever_the_hash() {
        let cache = TokenCache::new(100);
        let (alice, mallory) = (token(1), token(2));
        cache.insert_hashed(42, &alice, identity("alice"), u64::MAX);
        assert_eq!(cache.find_hashed(42, &mallory, 0), None);
        assert_eq!(cache.find_hashed(42, &alice[..alice.len() - 1], 0), None);
        assert_eq!(subject(cache.find_hashed(42, &alice, 0)).unwrap(), "alice");
        cache.insert_hashed(42, &mallory, identity("mallory"), u64::MAX);
        assert_eq!(
            subject(cache.find_hashed(42, &mallory, 0)).unwrap(),
            "mallory"
        );
        assert_eq!(cache.find_hashed(42, &alice, 0), None, "verified again");
        // The same in the old generation.
        let mut shard = cache.shard(42).lock().unwrap();
        shard.old = std::mem::take(&mut shard.young);
        shard.young_bytes = 0;
        drop(shard);
        assert_eq!(cache.find_hashed(42, &alice, 0), None);
        assert_eq!(
            subject(cache.find_hashed(42, &mallory, 0)).unwrap(),
            "mallory"
        );
        size(&cache);
    }

    #[test]
    fn tokens_of_one_end_differ() {
        let cache = TokenCache::new(100);
        let tokens = [
            "alice.the same signature, of more bytes",
            "bob.the same signature, of more bytes",
        ];
        cache.insert(tokens[0].as_bytes(), identity("alice"), u64::MAX);
        assert_eq!(cache.find(tokens[1].as_bytes(), 0), None);
        assert_eq!(
            subject(cache.find(tokens[0].as_bytes(), 0)).unwrap(),
            "alice"
        );
    }

    #[test]
    fn the_number_of_entries_is_bounded_and_those_in_use_stay() {
        for tokens_max in [0, 1, 2, 3, 31, 32, 100] {
            let cache = TokenCache::new(tokens_max);
            for n in 0..1000 {
                cache.insert(&token(n), identity("someone"), u64::MAX);
                cache.find(&token(0), 0);
            }
            assert!(size(&cache).0 <= tokens_max, "{tokens_max}");
            let kept = cache.find(&token(0), 0).is_some();
            assert_eq!(kept, tokens_max >= 2, "{tokens_max}");
        }
    }

    #[test]
    fn the_bytes_of_tokens_are_bounded() {
        let cache = TokenCache::new(2);
        let most = vec![b'a'; BYTES_PER_TOKEN_MAX];
        cache.insert(&most, identity("most"), u64::MAX);
        assert!(cache.find(&most, 0).is_some());
        let more = vec![b'a'; BYTES_PER_TOKEN_MAX + 1];
        cache.insert(&more, identity("more"), u64::MAX);
        assert_eq!(cache.find(&more, 0), None);
        let cache = TokenCache::new(100);
        for n in 0..1000 {
            let long = [&most[..], &token(n)].concat();
            cache.insert(&long[48..], identity("someone"), u64::MAX);
            assert!(size(&cache).1 <= 100 * BYTES_PER_TOKEN_MAX);
        }
    }
}
