//! What all workers share of one service: its instances in force, and the tables to choose by.
//!
//! Immutable. A reload or a discovery makes the next one; instances that both have are the same
//! values, with all that is known of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::availability::Changes;
use super::balance::maglev::Maglev;
use super::faults::Faults;
use super::instance::Instance;
use super::sticky::StickyTable;
use crate::config::{DiscoverSource, ENDPOINTS_MAX, EndpointConfig, Method, ServiceConfig};
use crate::discovery::record::Record;
use crate::discovery::{Answer, Found};

/// What all workers share of a service.
#[derive(Debug)]
pub(crate) struct SharedService {
    pub(crate) config: Arc<ServiceConfig>,
    /// The instances in force, listed and discovered.
    pub(crate) endpoints: Vec<EndpointConfig>,
    /// One per endpoint.
    pub(crate) instances: Vec<Arc<Instance>>,
    /// Counted up whenever something about the instances changes.
    pub(crate) changes: Arc<Changes>,
    /// Those that were found; `None`: nothing was found yet.
    discovered: Option<Answer>,
    /// What came of looking for them.
    pub(crate) record: Arc<Record>,
    /// What their answers lead to.
    pub(crate) faults: Faults,
    /// Where requests go first, and where next.
    pub(super) tiers: Vec<SharedTier>,
    /// Where the service has a cookie.
    pub(super) sticky: Option<StickyTable>,
}

/// Instances of one priority that are in the gateway's zone, or that are not.
#[derive(Debug)]
pub(super) struct SharedTier {
    /// Positions among the endpoints. Those without weight are in no tier.
    pub(super) members: Vec<usize>,
    /// Over the members, where the service is balanced by it.
    pub(super) maglev: Option<Maglev>,
}

impl SharedService {
    /// What is shared of a service whose endpoints were listed and `discovered`, after `previous`
    /// if there was one. An instance that joins a service already in use starts slowly.
    pub(crate) fn new(
        config: Arc<ServiceConfig>,
        discovered: Option<Answer>,
        now: Instant,
        previous: Option<&Self>,
    ) -> Self {
        let found = discovered.as_ref().map(|answer| &*answer.endpoints);
        let endpoints = in_force(&config, found.unwrap_or_default());
        let changes = previous.map_or_else(Arc::default, |known| Arc::clone(&known.changes));
        let known: HashMap<SocketAddr, &Arc<Instance>> = previous
            .iter()
            .flat_map(|known| &known.instances)
            .map(|instance| (instance.address, instance))
            .collect();
        let instance = |endpoint: &EndpointConfig| match known.get(&endpoint.address) {
            Some(known) => Arc::clone(known),
            None => {
                let instance = Instance::new(endpoint.address, now, Arc::clone(&changes));
                if !known.is_empty() {
                    instance.availability.start_slowly(now);
                }
                Arc::new(instance)
            }
        };
        let instances: Vec<_> = endpoints.iter().map(instance).collect();
        let sticky = config.balance.sticky.as_ref();
        let faults = previous.map(|known| &known.faults);
        Self {
            faults: Faults::new(&config, &instances, now, faults),
            tiers: tiers(&config, &endpoints),
            sticky: sticky.map(|sticky| StickyTable::new(sticky, &config.name, &endpoints)),
            config,
            endpoints,
            discovered,
            record: previous.map_or_else(Arc::default, |known| Arc::clone(&known.record)),
            instances,
            changes,
        }
    }

    /// The instances that were found.
    pub(crate) fn discovered(&self) -> &[EndpointConfig] {
        let found = self.discovered.as_ref();
        found.map_or(&[], |answer| &answer.endpoints)
    }

    /// Whether instances were found, if only that there are none.
    pub(crate) fn was_discovered(&self) -> bool {
        self.discovered.is_some()
    }

    /// For how long what was found is valid; `None`: nothing was found.
    pub(crate) fn discovered_valid(&self, now: Instant) -> Option<Duration> {
        let answer = self.discovered.as_ref()?;
        let passed = now.saturating_duration_since(answer.asked);
        Some(answer.valid.saturating_sub(passed))
    }

    /// What was found, for a service that looks in the same place.
    pub(crate) fn known_to(&self, config: &ServiceConfig) -> Option<Answer> {
        let same = source(&self.config) == source(config);
        same.then(|| self.discovered.clone()).flatten()
    }

    /// Whether instances that were `found` are other ones, found where it looks, and by a later
    /// question than those it knows.
    pub(crate) fn is_news(&self, found: &Found) -> bool {
        let known = self.discovered.as_ref();
        source(&self.config) == Some(&found.source)
            && known.is_none_or(|known| {
                known.asked < found.answer.asked && known.endpoints != found.answer.endpoints
            })
    }
}

/// Where a service looks for instances.
fn source(config: &ServiceConfig) -> Option<&DiscoverSource> {
    Some(&config.discover.as_ref()?.source)
}

/// All endpoints; one that is both listed and found is as listed.
fn in_force(config: &ServiceConfig, found: &[EndpointConfig]) -> Vec<EndpointConfig> {
    let mut endpoints = config.endpoints.clone();
    let listed: HashSet<SocketAddr> = endpoints.iter().map(|one| one.address).collect();
    let found = found.iter().filter(|one| !listed.contains(&one.address));
    endpoints.extend(found.cloned());
    endpoints.truncate(ENDPOINTS_MAX);
    endpoints
}

fn tiers(config: &ServiceConfig, endpoints: &[EndpointConfig]) -> Vec<SharedTier> {
    let own = config.balance.failover.zone.as_ref();
    let mut members: BTreeMap<(u16, bool), Vec<usize>> = BTreeMap::new();
    for (position, endpoint) in endpoints.iter().enumerate() {
        if endpoint.weight > 0 {
            let elsewhere = own.is_some() && endpoint.zone.as_ref() != own;
            let tier = (endpoint.priority, elsewhere);
            members.entry(tier).or_default().push(position);
        }
    }
    let hashes = matches!(config.balance.method, Method::ConsistentHash { .. });
    let tier = |members: Vec<usize>| SharedTier {
        maglev: hashes.then(|| maglev(endpoints, &members)),
        members,
    };
    members.into_values().map(tier).collect()
}

fn maglev(endpoints: &[EndpointConfig], members: &[usize]) -> Maglev {
    let name = |position: &usize| endpoints[*position].address.to_string();
    let names: Vec<String> = members.iter().map(name).collect();
    let weight = |position: &usize| u32::from(endpoints[*position].weight);
    let weights = members.iter().map(weight);
    let named: Vec<(&str, u32)> = names.iter().map(String::as_str).zip(weights).collect();
    Maglev::new(&named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::upstream::availability::Bar;

    fn shared(zone: &str, endpoints: &str) -> SharedService {
        let text = format!(
            "[server]\n{zone}\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
             [services.app]\nendpoints = [{endpoints}]\n"
        );
        let config = Config::parse(&text, std::path::Path::new("")).unwrap();
        SharedService::new(Arc::clone(&config.services[0]), None, Instant::now(), None)
    }

    #[test]
    fn tiers_go_by_priority_and_then_by_zone() {
        let endpoints = "{ address = \"10.0.0.1:80\", zone = \"b\" }, \
            { address = \"10.0.0.2:80\", zone = \"a\", priority = 1 }, \
            { address = \"10.0.0.3:80\", zone = \"a\" }, \
            \"10.0.0.4:80\", \
            { address = \"10.0.0.5:80\", weight = 0 }";
        let table: [(&str, &[&[usize]]); 3] = [
            ("", &[&[0, 2, 3], &[1]]),
            ("zone = \"a\"", &[&[2], &[0, 3], &[1]]),
            ("zone = \"c\"", &[&[0, 2, 3], &[1]]),
        ];
        for (zone, expected) in table {
            let shared = shared(zone, endpoints);
            let members: Vec<&[usize]> = shared.tiers.iter().map(|tier| &*tier.members).collect();
            assert_eq!(members, expected, "{zone}");
        }
    }

    #[test]
    fn instances_that_stay_are_the_same_and_new_ones_start_slowly() {
        let discover = "\"10.0.0.1:80\"]\ndiscover = { file = \"more.toml\" }\nunused = [";
        let discover = discover.replace("\nunused = [", "\n#");
        let listed = shared("", &discover);
        let found = |addresses: [&str; 2]| {
            let endpoint = |address: &str| EndpointConfig::new(address.parse().unwrap());
            Some(Answer {
                asked: Instant::now(),
                valid: Duration::MAX,
                endpoints: addresses.map(endpoint).to_vec(),
            })
        };
        let config = Arc::clone(&listed.config);
        let found_before = found(["10.0.0.1:80", "10.0.0.2:80"]);
        let before = SharedService::new(Arc::clone(&config), found_before, Instant::now(), None);
        before.instances[1].availability.bar(Bar::Check, None);
        let now = Instant::now();
        let found_after = found(["10.0.0.3:80", "10.0.0.2:80"]);
        let after = SharedService::new(config, found_after, now, Some(&before));

        let names: Vec<&str> = after.instances.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["10.0.0.1:80", "10.0.0.3:80", "10.0.0.2:80"]);
        assert!(Arc::ptr_eq(&before.instances[1], &after.instances[2]));
        assert!(!after.instances[2].availability.is_usable(now));
        assert_eq!(after.instances[0].availability.usable_since(), None);
        assert!(after.instances[1].availability.usable_since().is_some());
    }

    #[test]
    fn what_is_known_stays_however_the_service_changes() {
        let before = shared("", "\"10.0.0.1:80\"");
        before.instances[0].availability.bar(Bar::Check, None);
        let mut config = (*before.config).clone();
        config.connect_timeout *= 2;
        config.protocol = crate::config::UpstreamProtocol::Http2;
        let now = Instant::now();
        let same = SharedService::new(Arc::new(config), None, now, Some(&before));
        assert!(!same.instances[0].availability.is_usable(now));
    }
}
