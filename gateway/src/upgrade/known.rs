//! What the old process knows of instances, told to the new one. Without it, the new process would
//! send requests to instances that the old one knew to be down, until its own checks say so.
//!
//! By name of the service and address of the instance, and kept as a reload keeps it: the verdict
//! of checks, ejections and how long the next one is, suspicion, slow starts, and the breaker of
//! the service while it is open. Told twice: with the sockets, so that no request comes before it,
//! and again with the confirmation, since the new process may have taken long to come up.
//!
//! Not told is what the new process learns within a few requests: failures in a row, rates of an
//! interval, and times to answer, which are each worker's own. Instances that are found only after
//! the new process serves begin anew.
//!
//! Whoever cannot read it goes on without: it is worth less than the upgrade.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::ServiceConfig;
use crate::upstream::availability::{Bar, REACH, SUSPECT_FOR};
use crate::upstream::instance::Instance;
use crate::upstream::service::SharedService;

/// The form of [`Known`]. Another number is ignored.
const VERSION: u32 = 1;

/// Instances told of at most. Those that are in use are left out first.
const INSTANCES_MAX: usize = 16 * 1024;

/// Open breakers told of at most.
const BREAKERS_MAX: usize = 4096;

/// What is known of the instances of all services.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    version: u32,
    /// Open breakers, by service: milliseconds until they let requests through as probes.
    breakers: BTreeMap<String, u64>,
    instances: Vec<KnownInstance>,
}

/// What is known of one instance. Times are in milliseconds, counted from when it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownInstance {
    service: String,
    address: SocketAddr,
    /// Checks find it unhealthy.
    down: bool,
    /// Until its ejection is over; 0: it is not ejected.
    ejected_ms: u64,
    /// How often the next ejection is as long as the first, less one.
    ejection_step: u32,
    /// Until nobody suspects it any more; 0: nobody does.
    suspect_ms: u64,
    /// Since when it is usable, a day at most, where instances start slowly.
    usable_ms: Option<u64>,
}

impl Known {
    /// What is known of the instances of these services `now`.
    pub(crate) fn of(services: &[Arc<SharedService>], now: Instant) -> Self {
        let instances = services.iter().flat_map(|service| {
            let told = |instance| KnownInstance::of(&service.config, instance, now);
            service.instances.iter().filter_map(move |one| told(one))
        });
        let mut instances: Vec<_> = instances.collect();
        if instances.len() > INSTANCES_MAX {
            let (known, told) = (instances.len(), INSTANCES_MAX);
            tracing::warn!(known, told, "the new process is not told of all instances");
            instances.sort_by_key(KnownInstance::is_usable);
            instances.truncate(INSTANCES_MAX);
        }
        let breakers = services.iter().filter_map(|service| {
            let breaker = service.faults.breaker.as_ref()?;
            let left = breaker.open_for(now)?;
            Some((service.config.name.clone(), millis(left)))
        });
        Self {
            version: VERSION,
            breakers: breakers.take(BREAKERS_MAX).collect(),
            instances,
        }
    }

    /// What another process has told; `None`, if this one cannot read it.
    pub(super) fn read(told: serde_json::Value) -> Option<Self> {
        if told.is_null() {
            // By a process that does not tell.
            return None;
        }
        let known: Result<Self, _> = serde_json::from_value(told);
        let known = known.ok().filter(|known| known.version == VERSION);
        if known.is_none() {
            tracing::warn!(
                "what the old process knows of instances cannot be read: all count as healthy"
            );
        }
        known
    }

    /// As it travels. `Null`, were it ever impossible.
    pub(super) fn told(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Makes the instances of these services what they were at the moment it was told.
    pub(super) fn recall(&self, services: &[Arc<SharedService>], told: Instant) {
        let by_place: HashMap<(&str, SocketAddr), &KnownInstance> = self
            .instances
            .iter()
            .map(|known| ((&*known.service, known.address), known))
            .collect();
        for service in services {
            let config = &*service.config;
            for instance in &service.instances {
                let known = by_place.get(&(&config.name, instance.address));
                match known {
                    Some(known) => known.recall(config, instance, told),
                    // Nothing spoke against it.
                    None => instance.availability.lift(Bar::Check, told),
                }
            }
            if let (Some(left), Some(breaker)) =
                (self.breakers.get(&config.name), &service.faults.breaker)
            {
                breaker.stay_open(Duration::from_millis(*left), told);
            }
        }
    }
}

impl KnownInstance {
    /// `None`: nothing but what anyone would think of a new instance.
    fn of(service: &ServiceConfig, instance: &Instance, now: Instant) -> Option<Self> {
        let availability = &instance.availability;
        let left = |bar| availability.barred_for(bar, now).map_or(0, millis);
        let usable = || {
            let since = availability.usable_since();
            let known = since.map_or(REACH, |since| now.saturating_duration_since(since));
            millis(known.min(REACH))
        };
        let known = Self {
            service: service.name.clone(),
            address: instance.address,
            down: availability.is_barred(Bar::Check, now),
            ejected_ms: left(Bar::Ejected),
            ejection_step: instance.tally.step(),
            suspect_ms: left(Bar::Suspect),
            usable_ms: service.balance.slow_start.map(|_| usable()),
        };
        let new = known.is_usable() && known.ejection_step == 0 && known.suspect_ms == 0;
        (!new || known.usable_ms.is_some()).then_some(known)
    }

    fn is_usable(&self) -> bool {
        !self.down && self.ejected_ms == 0
    }

    /// As far as this process's configuration has a use for it, and no longer than it allows: what
    /// nobody would ever lift must not be set.
    fn recall(&self, service: &ServiceConfig, instance: &Instance, told: Instant) {
        let availability = &instance.availability;
        let until = |millis: u64, most| Some(told + Duration::from_millis(millis).min(most));
        match self.down && service.health.is_some() {
            true => availability.bar(Bar::Check, None),
            false => availability.lift(Bar::Check, told),
        }
        if let Some(outlier) = &service.outlier {
            instance.tally.set_step(self.ejection_step);
            if self.ejected_ms > 0 {
                let until = until(self.ejected_ms, outlier.ejection_max);
                availability.bar(Bar::Ejected, until);
            }
        }
        if self.suspect_ms > 0 {
            availability.bar(Bar::Suspect, until(self.suspect_ms, SUSPECT_FOR));
        }
        if let Some(since) = self.usable_ms {
            let since = told.checked_sub(Duration::from_millis(since).min(REACH));
            availability.start_slowly(since.unwrap_or(told));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, SOCKETS_MAX, wire};
    use super::*;
    use crate::config::Config;

    const MS: Duration = Duration::from_millis(1);

    fn services(more: &str) -> Vec<Arc<SharedService>> {
        let text = format!(
            "[listeners.public]\nbind = \"127.0.0.1:0\"\n[services.app]\n\
             endpoints = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n{more}\n"
        );
        let config = Config::parse(&text, std::path::Path::new("")).unwrap();
        let shared = |config: &Arc<ServiceConfig>| {
            SharedService::new(Arc::clone(config), None, Instant::now(), None)
        };
        config.services.iter().map(shared).map(Arc::new).collect()
    }

    const ALL: &str = "slow_start = \"10s\"\nhealth = { path = \"/\" }\n\
        outlier = { ejection = \"10s\", ejection_max = \"60s\" }\nbreaker = { open = \"9s\" }";

    /// Through the wire and back.
    fn travelled(known: &Known) -> Known {
        let bytes = serde_json::to_vec(&known.told()).unwrap();
        Known::read(serde_json::from_slice(&bytes).unwrap()).unwrap()
    }

    #[test]
    fn what_is_known_is_what_is_recalled() {
        let now = Instant::now();
        let old = services(ALL);
        let [first, second] = &*old[0].instances else {
            panic!("two instances");
        };
        first.availability.bar(Bar::Check, None);
        first.availability.bar(Bar::Ejected, Some(now + 700 * MS));
        first.tally.set_step(3);
        second.suspect(now);
        second.availability.start_slowly(now - 4000 * MS);
        let known = travelled(&Known::of(&old, now));

        let new = services(ALL);
        let later = now + 100 * MS;
        known.recall(&new, later);
        let [first, second] = &*new[0].instances else {
            panic!("two instances");
        };
        let barred = |bar| first.availability.barred_for(bar, later);
        assert_eq!(barred(Bar::Check), Some(Duration::MAX));
        // Rounded up, once in each process.
        let ejected = barred(Bar::Ejected).unwrap();
        assert!((700 * MS..703 * MS).contains(&ejected), "{ejected:?}");
        assert_eq!(first.tally.step(), 3);
        assert!(second.availability.is_usable(later) && second.availability.is_suspect(later));
        let age = later - second.availability.usable_since().unwrap();
        assert!((3998 * MS..4003 * MS).contains(&age), "{age:?}");
        assert_eq!(Known::of(&new, later).instances.len(), 2);

        // Told again, it is well.
        let healthy = Known::of(&services(ALL), later);
        healthy.recall(&new, later);
        assert_eq!(barred(Bar::Check), None);
    }

    #[test]
    fn nobody_is_barred_by_what_nobody_would_lift() {
        let now = Instant::now();
        let table = [
            ("", Some(()), None, None),
            ("health = { path = \"/\" }", None, None, None),
            (
                "outlier = { ejection = \"1s\", ejection_max = \"60s\" }",
                Some(()),
                Some(60),
                None,
            ),
            ("breaker = { open = \"9s\" }", Some(()), None, Some(9)),
        ];
        let told = KnownInstance {
            service: "app".to_owned(),
            address: "10.0.0.1:80".parse().unwrap(),
            down: true,
            ejected_ms: u64::MAX,
            ejection_step: u32::MAX,
            suspect_ms: u64::MAX,
            usable_ms: Some(u64::MAX),
        };
        let known = Known {
            version: VERSION,
            breakers: [("app".to_owned(), u64::MAX)].into(),
            instances: vec![told],
        };
        let known = travelled(&known);
        for (config, healthy, ejected, open) in table {
            let services = services(config);
            known.recall(&services, now);
            let one = &services[0].instances[0].availability;
            let seconds = |left: Duration| (left + MS).as_secs();
            let ejected_for = one.barred_for(Bar::Ejected, now).map(seconds);
            let well = (!one.is_barred(Bar::Check, now)).then_some(());
            let breaker = services[0].faults.breaker.as_ref();
            let open_for = breaker.and_then(|one| one.open_for(now)).map(seconds);
            assert_eq!(
                (well, ejected_for, open_for),
                (healthy, ejected, open),
                "{config}"
            );
            assert!(!one.is_suspect(now + SUSPECT_FOR + 2 * MS), "{config}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_ignored() {
        let good = Known::of(&services(ALL), Instant::now()).told();
        assert!(Known::read(good.clone()).is_some());
        let mut other = good.clone();
        other["version"] = 2.into();
        let mut broken = good;
        broken["instances"][0]["address"] = "nowhere".into();
        for told in [serde_json::Value::Null, "text".into(), other, broken] {
            assert!(Known::read(told.clone()).is_none(), "{told}");
        }
    }

    #[test]
    fn as_much_as_may_be_told_fits_into_one_message() {
        let name = "s".repeat(64);
        let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535";
        let address: SocketAddr = address.parse().unwrap();
        let instance = KnownInstance {
            service: name.clone(),
            address,
            down: false,
            ejected_ms: u64::MAX,
            ejection_step: u32::MAX,
            suspect_ms: u64::MAX,
            usable_ms: Some(u64::MAX),
        };
        let breakers = (0..BREAKERS_MAX).map(|number| (format!("{number:064}"), u64::MAX));
        let known = Known {
            version: VERSION,
            breakers: breakers.collect(),
            instances: vec![instance; INSTANCES_MAX],
        };
        let listener = Kind::Listener {
            name,
            bind: address,
            ipv6_only: false,
        };
        let sockets = vec![listener; SOCKETS_MAX];
        assert!(wire::encode(&(known.told(), sockets)).is_ok());
    }

    #[test]
    fn instances_out_of_use_are_told_first() {
        let addresses: Vec<String> = (0..4096)
            .map(|number| format!("\"10.0.{}.{}:80\"", number / 256, number % 256))
            .collect();
        let service = |name: &str| {
            let endpoints = addresses.join(", ");
            format!("[services.{name}]\nendpoints = [{endpoints}]\nslow_start = \"1s\"\n")
        };
        let more: String = ["b", "c", "d", "e", "f"].map(service).concat();
        let services = services(&more);
        let now = Instant::now();
        let last = services.last().unwrap().instances.last().unwrap();
        last.availability.bar(Bar::Check, None);
        let known = Known::of(&services, now);
        assert_eq!(known.instances.len(), INSTANCES_MAX);
        assert!(known.instances[0].down);
    }
}
