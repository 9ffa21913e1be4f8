//! Who has answered lately: the witnesses against a backend that does not.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Target;

/// When each backend last answered, by VIP and name. As many entries as there are targets, at most.
#[derive(Debug, Default)]
pub(super) struct Witnesses(Mutex<HashMap<(String, String), Instant>>);

impl Witnesses {
    /// Notes that a target has answered at `now`. Returns false: an answer needs no witness.
    pub(super) fn answered(&self, target: &Target, now: Instant) -> bool {
        let name = (target.vip.clone(), target.backend.clone());
        self.entries().insert(name, now);
        false
    }

    /// Whether another backend of the same VIP has answered since `moment`.
    pub(super) fn others_since(&self, target: &Target, moment: Instant) -> bool {
        self.entries().iter().any(|((vip, backend), at)| {
            *vip == target.vip && *backend != target.backend && *at >= moment
        })
    }

    /// Forgets the names that are not `wanted`.
    pub(super) fn retain(&self, wanted: impl Fn(&(String, String)) -> bool) {
        self.entries().retain(|name, _| wanted(name));
    }

    /// A panic while the lock is held leaves the map whole: every change to it is one call.
    fn entries(&self) -> MutexGuard<'_, HashMap<(String, String), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{HealthCheck, Probe};

    fn target(vip: &str, backend: &str) -> Target {
        let second = Duration::from_secs(1);
        Target {
            vip: vip.to_owned(),
            backend: backend.to_owned(),
            address: ([10, 0, 0, 1], 80).into(),
            check: HealthCheck {
                probe: Probe::Tcp,
                port: 80,
                every: second,
                timeout: second,
                fall: 1,
                rise: 1,
            },
        }
    }

    #[test]
    fn witnesses_are_others_of_the_same_vip_and_lately() {
        let witnesses = Witnesses::default();
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let (a, b) = (target("web", "a"), target("web", "b"));
        witnesses.answered(&a, at(5));
        witnesses.answered(&target("dns", "c"), at(9));
        assert!(witnesses.others_since(&b, at(5)));
        assert!(!witnesses.others_since(&b, at(6)), "too long ago");
        assert!(!witnesses.others_since(&a, at(5)), "nobody else");
        witnesses.retain(|(_, backend)| backend != "a");
        assert!(!witnesses.others_since(&b, at(5)), "forgotten");
    }
}
