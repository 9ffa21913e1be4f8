//! The client connections that are open: how many in all, and of each address.
//!
//! Counted over all workers; by address only where the configuration asks for it. With IPv6 a /64
//! counts as one source: that is what one customer is given.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::ServerLimits;

/// Locks among which the sources are spread, so that workers seldom wait for each other.
const SHARDS: usize = 16;

/// The open connections, in all and of every source that has some.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    // Clients choose their addresses: with a key they do not know, they cannot choose a shard.
    hasher: RandomState,
    shards: [Mutex<HashMap<Source, u32>>; SHARDS],
}

/// An IPv4 address, or the first half of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    V6(u64),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// Which limit a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// `connections_max`.
    All,
    /// `connections_per_source_max`.
    Source,
}

impl Connections {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            hasher: RandomState::new(),
            shards: Default::default(),
        })
    }

    /// Counts one more connection, if it is within the limits. `source` is left out for those
    /// who are not counted by address.
    pub(crate) fn admit(
        self: &Arc<Self>,
        source: Option<IpAddr>,
        limits: &ServerLimits,
    ) -> Result<Counted, Full> {
        // Counted before it is compared: two workers cannot both take the last place.
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let mut counted = Counted {
            connections: Arc::clone(self),
            source: None,
        };
        if before >= limits.connections_max {
            return Err(Full::All);
        }
        if let (Some(max), Some(address)) = (limits.connections_per_source_max, source) {
            let source = Source::of(address);
            let mut shard = self.shard(source);
            let open = shard.entry(source).or_insert(0);
            if *open >= max {
                return Err(Full::Source);
            }
            *open += 1;
            counted.source = Some(source);
        }
        Ok(counted)
    }

    fn shard(&self, source: Source) -> MutexGuard<'_, HashMap<Source, u32>> {
        let index = self.hasher.hash_one(source) as usize % SHARDS;
        let shard = self.shards[index].lock();
        // A panic cannot leave a count half changed.
        shard.unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection, counted while the value lives.
pub(crate) struct Counted {
    connections: Arc<Connections>,
    source: Option<Source>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        let Some(source) = self.source else {
            return;
        };
        let mut shard = self.connections.shard(source);
        if let Some(open) = shard.get_mut(&source) {
            *open -= 1;
            if *open == 0 {
                shard.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: usize, of_a_source: Option<u32>) -> ServerLimits {
        ServerLimits {
            connections_max: all,
            connections_per_source_max: of_a_source,
            ..ServerLimits::for_tests()
        }
    }

    fn remembered(connections: &Connections) -> usize {
        let shards = connections.shards.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn each_source_has_its_own_count() {
        let connections = Connections::new();
        let limits = limits(100, Some(2));
        let admit = |address: &str| connections.admit(address.parse().ok(), &limits);
        let held = [admit("192.0.2.1"), admit("192.0.2.1"), admit("192.0.2.2")];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(admit("192.0.2.1").err(), Some(Full::Source), "one over");
        assert_eq!(
            admit("::ffff:192.0.2.1").err(),
            Some(Full::Source),
            "the same client"
        );
        let proxies: Vec<_> = (0..5).map(|_| connections.admit(None, &limits)).collect();
        assert!(proxies.iter().all(Result::is_ok), "not counted by address");
        assert_eq!(remembered(&connections), 2);
        drop((held, proxies));
        assert_eq!(
            remembered(&connections),
            0,
            "nothing is kept of who is gone"
        );
        assert_eq!(connections.open.load(Ordering::Relaxed), 0);
        assert!(admit("192.0.2.1").is_ok());
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let connections = Connections::new();
        let limits = limits(100, Some(1));
        let admit = |address: &str| connections.admit(address.parse().ok(), &limits);
        let first = admit("2001:db8:0:1::1");
        assert!(first.is_ok());
        assert_eq!(admit("2001:db8:0:1:ffff::9").err(), Some(Full::Source));
        assert!(admit("2001:db8:0:2::1").is_ok());
    }

    #[test]
    fn all_together_have_a_limit() {
        let connections = Connections::new();
        let limits = limits(2, None);
        let admit = |address: &str| connections.admit(address.parse().ok(), &limits);
        let held = [admit("192.0.2.1"), admit("192.0.2.2")];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(admit("192.0.2.3").err(), Some(Full::All));
        drop(held);
        assert!(admit("192.0.2.3").is_ok());
    }
}
