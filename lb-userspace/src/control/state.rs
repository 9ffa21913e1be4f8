//! What each VIP should be: configuration, runtime changes and health put together. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_ebpf::abi::{Mark, VipKey, forward, hash_kind};

use super::plan::WantedVip;
use super::published::Published;
use super::runtime::Effective;
use crate::api::types;
use crate::config::{self, Config, Forward, HashBy, Protocol, Vip};
use crate::table::Member;

/// VIP and backend name.
pub type BackendName = (String, String);

/// What is known about the health of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What probes said.
    pub verdict: types::Health,
    /// Whether it takes new flows as far as health goes. Differs from the verdict while that is unknown,
    /// or down and not confirmed.
    pub serves: bool,
    /// Why, in the words of the last probe that changed it.
    pub reason: String,
}

/// Health by VIP and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healths(BTreeMap<String, BTreeMap<String, Health>>);

impl Healths {
    /// Follows a configuration: forgets backends that are gone and takes in new ones.
    ///
    /// Until its first probe is through, a backend counts as it did when the VIP's ring was last
    /// published, by this agent or the one before. So a restart empties no ring, and a new backend
    /// gets no flows before it has answered once. In a VIP that has no ring yet it counts as up:
    /// there is nothing to lose.
    pub fn follow(&mut self, config: &Config, published: &Published) {
        let mut next = BTreeMap::new();
        for vip in config.vips.values() {
            let owners = published.owners(&key(vip));
            let mut known = self.0.remove(&vip.name).unwrap_or_default();
            let of_vip: &mut BTreeMap<_, _> = next.entry(vip.name.clone()).or_default();
            for backend in vip.backends.values() {
                let serves = owners.is_empty() || owners.contains_key(&backend.address);
                let health = match (&vip.health, known.remove(&backend.name)) {
                    (None, _) => Health::unchecked(),
                    (Some(_), Some(known)) if !known.reason.is_empty() => known,
                    (Some(_), _) => Health::unknown(serves),
                };
                of_vip.insert(backend.name.clone(), health);
            }
        }
        self.0 = next;
    }

    /// Takes in what probes said. False when nobody knows the backend.
    ///
    /// A backend that looks down when nobody else answers either serves as it did before: as long as
    /// it may be us who are cut off, its slots stay its own, for its connections may be alive.
    pub fn observe(
        &mut self,
        name: &BackendName,
        healthy: bool,
        confirmed: bool,
        reason: String,
    ) -> bool {
        let (vip, backend) = name;
        let known = self.0.get_mut(vip);
        match known.and_then(|backends| backends.get_mut(backend)) {
            Some(health) => {
                let verdict = match (healthy, confirmed || health.serves) {
                    (true, _) => types::Health::Up,
                    (false, true) => types::Health::Down,
                    // As much is known as before: it may be draining, and its connections alive.
                    (false, false) => health.verdict,
                };
                *health = Health {
                    verdict,
                    serves: healthy || (health.serves && !confirmed),
                    reason,
                };
                true
            }
            None => false,
        }
    }

    /// What is known about one backend.
    pub fn of(&self, vip: &str, backend: &str) -> Option<&Health> {
        self.0.get(vip)?.get(backend)
    }

    fn looks_down(&self, vip: &str, backend: &str) -> bool {
        self.of(vip, backend)
            .is_some_and(|health| health.verdict == types::Health::Down)
    }

    fn is_down(&self, vip: &str, backend: &str) -> bool {
        self.looks_down(vip, backend) && !self.serves(vip, backend)
    }

    fn serves(&self, vip: &str, backend: &str) -> bool {
        self.of(vip, backend).is_some_and(|health| health.serves)
    }
}

impl Health {
    fn unchecked() -> Self {
        Self {
            verdict: types::Health::Up,
            serves: true,
            reason: String::new(),
        }
    }

    fn unknown(serves: bool) -> Self {
        Self {
            verdict: types::Health::Unknown,
            serves,
            reason: String::new(),
        }
    }
}

/// The key of a VIP in the data plane.
pub fn key(vip: &Vip) -> VipKey {
    VipKey::new(vip.address.into(), vip.port, protocol_number(vip.protocol))
}

/// The IP protocol number.
pub fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// What the VIP should be. The second value is true when every backend that could take flows is
/// down, so that all of them are used. `reachable` says whether a way to an address was ever known:
/// packets for the others would be dropped.
///
/// That is the *panic rule*: a balancer that sees all backends down is more likely to be wrong (its
/// probes, its network, a bad health endpoint) than right, and if it is right, nothing is lost. Those
/// that look down and are not confirmed count as down here.
pub fn wanted(
    vip: &Vip,
    draining: &BTreeSet<BackendName>,
    healths: &Healths,
    reachable: impl Fn(IpAddr) -> bool,
    marks: Vec<Mark>,
) -> (WantedVip, bool) {
    let drains = |name: &str| {
        !draining.is_empty() && draining.contains(&(vip.name.clone(), name.to_owned()))
    };
    let willing: Vec<_> = vip
        .backends
        .values()
        .filter(|backend| backend.weight > 0 && !drains(&backend.name))
        .collect();
    let serves = |b: &config::Backend| healths.serves(&vip.name, &b.name) && reachable(b.address);
    let answers = |b: &config::Backend| serves(b) && !healths.looks_down(&vip.name, &b.name);
    let panic = !willing.is_empty() && !willing.iter().any(|backend| answers(backend));
    let members = willing
        .iter()
        .filter(|backend| panic || serves(backend))
        .map(|backend| Member {
            address: backend.address,
            weight: backend.weight,
        })
        .collect();
    // Down by what probes said: a backend that is merely unknown may hold live flows.
    let dead = vip
        .backends
        .values()
        .filter(|backend| !panic && healths.is_down(&vip.name, &backend.name))
        .map(|backend| backend.address)
        .collect();
    let wanted = WantedVip {
        name: vip.name.clone(),
        key: key(vip),
        forward: match vip.forward {
            Forward::L2 => forward::L2,
            Forward::Ipip => forward::IPIP,
        },
        hash: match vip.hash {
            HashBy::FiveTuple => hash_kind::FIVE_TUPLE,
            HashBy::Source => hash_kind::SOURCE,
        },
        ring_size: vip.ring_size,
        table: vip.table,
        tracking: vip.tracking,
        members,
        backends: vip
            .backends
            .values()
            .map(|backend| backend.address)
            .collect(),
        dead,
        marks,
    };
    (wanted, panic)
}

/// Every backend address of a configuration.
pub fn addresses(effective: &Effective) -> BTreeSet<IpAddr> {
    let vips = effective.config.vips.values();
    vips.flat_map(|vip| vip.backends.values().map(|backend| backend.address))
        .collect()
}

#[cfg(test)]
mod tests;
