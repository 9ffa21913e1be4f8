//! Hashes that are computed once and used several times: to choose a part of a table, to find the
//! place in it, to find it again.
//!
//! The hash is keyed (SipHash with a key of the process's own, Aumasson and Bernstein 2012), so
//! that no sender can find texts that collide. What has the same hash is told apart by comparing
//! it whole: a collision costs time, and nothing else.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use super::key::SenderKey;

/// A table whose keys bring their hash with them.
pub(super) type ByHash<K, V> = HashMap<K, V, Known>;

/// A sender and the hash of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashed {
    // Compared first, because it is the shorter one.
    hash: u64,
    key: SenderKey,
}

impl Hashed {
    /// With the hash that `keyed` gives.
    pub(super) fn new(keyed: &RandomState, key: SenderKey) -> Self {
        Self {
            hash: keyed.hash_one(key),
            key,
        }
    }

    /// With a hash of the test's choice.
    #[cfg(test)]
    pub(super) fn with_hash(hash: u64, key: SenderKey) -> Self {
        Self { hash, key }
    }

    /// Which of so many parts it belongs to.
    pub(super) fn part(&self, parts: usize) -> usize {
        part(self.hash, parts)
    }
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Which of so many parts a hash belongs to: by bits that tables do not choose places by.
pub(super) fn part(hash: u64, parts: usize) -> usize {
    (hash >> 32) as usize % parts
}

/// Takes a hash that is known for the hash.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known(u64);

impl BuildHasher for Known {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for Known {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Only for completeness: all keys are hashes.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
