//! Choices over real clusters without sockets: who is picked, after what.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::config::{Config, EndpointConfig};
use crate::discovery::Answer;
use crate::upstream::availability::Bar;
use crate::upstream::spare::Spare;

/// A service with these settings and this many instances.
fn service(settings: &str, endpoints: &str) -> Arc<SharedService> {
    let text = format!(
        "[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [services.app]\nendpoints = [{endpoints}]\n{settings}\n"
    );
    let config = Config::parse(&text, Path::new("")).unwrap();
    let config = Arc::clone(&config.services[0]);
    Arc::new(SharedService::new(config, None, Instant::now(), None))
}

fn many(count: u16) -> String {
    let address = |n: u16| format!("\"10.0.{}.{}:80\"", n / 256, n % 256);
    let addresses: Vec<String> = (0..count).map(address).collect();
    addresses.join(", ")
}

fn cluster(service: &Arc<SharedService>) -> Cluster {
    Cluster::new(service, (0, &Spare::new(1)), 1, None)
}

fn picked(cluster: &Cluster, tried: &[usize]) -> Option<usize> {
    let endpoint = cluster.pick(tried, Affinity::default())?;
    Some(endpoint.index)
}

/// How often each instance is picked of `count` times.
fn spread(cluster: &Cluster, count: usize) -> BTreeMap<usize, usize> {
    let mut spread = BTreeMap::new();
    for _ in 0..count {
        *spread.entry(picked(cluster, &[]).unwrap()).or_default() += 1;
    }
    spread
}

const METHODS: [&str; 5] = [
    "balance = \"round-robin\"",
    "balance = \"least-request\"",
    "balance = \"peak-ewma\"",
    "balance = \"random\"",
    "balance = \"consistent-hash\"\nhash_by = \"client-ip\"",
];

#[test]
fn suspects_are_the_last_resort() {
    let service = service("", &many(3));
    let cluster = cluster(&service);
    service.instances[0].suspect(Instant::now());
    assert_eq!(picked(&cluster, &[]), Some(1));
    assert_eq!(picked(&cluster, &[1]), Some(2));
    assert_eq!(
        picked(&cluster, &[1, 2]),
        Some(0),
        "better a suspect than nobody"
    );
    assert_eq!(picked(&cluster, &[0, 1, 2]), None);
}

#[test]
fn every_method_leaves_out_what_is_barred_and_what_was_tried() {
    for method in METHODS {
        let service = service(method, &many(4));
        let cluster = cluster(&service);
        for bar in [Bar::Check, Bar::Ejected] {
            service.instances[2].availability.bar(bar, None);
            let spread = spread(&cluster, 200);
            assert_eq!(
                spread.into_keys().collect::<Vec<_>>(),
                [0, 1, 3],
                "{method} {bar:?}"
            );
            for _ in 0..50 {
                assert_eq!(picked(&cluster, &[0, 3]), Some(1), "{method} {bar:?}");
            }
            assert_eq!(picked(&cluster, &[0, 1, 3]), None, "{method} {bar:?}");
            service.instances[2].availability.lift(bar, Instant::now());
            assert_eq!(self::spread(&cluster, 200).len(), 4, "{method} {bar:?}");
        }
        for instance in &service.instances {
            instance.availability.bar(Bar::Check, None);
        }
        assert_eq!(picked(&cluster, &[]), None, "{method}");
    }
}

#[test]
fn shares_follow_the_weights() {
    let endpoints = "\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 3 }, \
        { address = \"10.0.0.3:80\", weight = 0 }";
    // How far a share of 4000 may be from what is due.
    for (method, slack) in [(METHODS[0], 0), (METHODS[1], 150), (METHODS[3], 150)] {
        let cluster = cluster(&service(method, endpoints));
        let spread = spread(&cluster, 4000);
        assert_eq!(
            spread.keys().collect::<Vec<_>>(),
            [&0, &1],
            "{method}: no weight, no share"
        );
        assert!(spread[&0].abs_diff(1000) <= slack, "{method}: {spread:?}");
    }
}

#[test]
fn the_next_priority_takes_what_the_first_cannot_bear() {
    let endpoints = "\"10.0.0.1:80\", \"10.0.0.2:80\", \
        { address = \"10.0.0.3:80\", priority = 1 }";
    for method in METHODS {
        let service = service(method, endpoints);
        let cluster = cluster(&service);
        assert!(!spread(&cluster, 1000).contains_key(&2), "{method}");
        service.instances[0].availability.bar(Bar::Check, None);
        let half = spread(&cluster, 4000);
        // One of two, times 1.4: 70 % stay.
        assert!(half[&2].abs_diff(1200) < 150, "{method}: {half:?}");
        assert!(!half.contains_key(&0), "{method}");
        service.instances[1].availability.bar(Bar::Ejected, None);
        assert_eq!(spread(&cluster, 10), BTreeMap::from([(2, 10)]), "{method}");
        service.instances[0]
            .availability
            .lift(Bar::Check, Instant::now());
        service.instances[1]
            .availability
            .lift(Bar::Ejected, Instant::now());
        assert!(
            !spread(&cluster, 1000).contains_key(&2),
            "{method}: back again"
        );
    }
}

#[test]
fn below_the_panic_threshold_all_are_used() {
    let service = service("failover = { panic_percent = 50 }", &many(4));
    let cluster = cluster(&service);
    for (barred, expected) in [(1, 3), (2, 2), (3, 4), (4, 4)] {
        service.instances[barred - 1]
            .availability
            .bar(Bar::Check, None);
        assert_eq!(
            spread(&cluster, 100).len(),
            expected,
            "{barred} of 4 barred"
        );
    }
}

#[test]
fn an_instance_that_joins_starts_slowly() {
    let before = service("slow_start = \"1h\"", &many(2));
    assert_eq!(
        spread(&cluster(&before), 100),
        BTreeMap::from([(0, 50), (1, 50)]),
        "at first none"
    );
    let joins = Some(Answer {
        asked: Instant::now(),
        valid: std::time::Duration::MAX,
        endpoints: vec![EndpointConfig::new("10.9.9.9:80".parse().unwrap())],
    });
    let config = Arc::clone(&before.config);
    let after = SharedService::new(config, joins, Instant::now(), Some(&before));
    let after = Arc::new(after);
    let spread = spread(
        &Cluster::new(&after, (0, &Spare::new(1)), 1, Some(&cluster(&before))),
        2100,
    );
    // A tenth of a full share, so 1 of 21.
    assert!(spread[&2].abs_diff(100) <= 2, "{spread:?}");
}

#[test]
fn links_are_taken_over_when_an_instance_stays() {
    let before = service("", &many(3));
    let first = cluster(&before);
    let make = |mut config: ServiceConfig, endpoints: &[usize]| {
        let endpoints = endpoints.iter().map(|at| before.endpoints[*at].clone());
        config.endpoints = endpoints.collect();
        let shared = SharedService::new(Arc::new(config), None, Instant::now(), Some(&before));
        Cluster::new(&Arc::new(shared), (0, &Spare::new(1)), 1, Some(&first))
    };
    let same = |next: &Cluster, at: usize, was: usize| {
        Rc::ptr_eq(&next.endpoints[at].link, &first.endpoints[was].link)
    };
    let config = (*before.config).clone();
    let fewer = make(config.clone(), &[2, 1]);
    assert!(same(&fewer, 0, 2) && same(&fewer, 1, 1));

    // Another connection has other settings, and is as good.
    let mut other = config.clone();
    other.idle_timeout *= 2;
    other.connections_max = 7;
    other.balance.method = Method::PeakEwma {
        decay: std::time::Duration::from_secs(1),
    };
    let adjusted = make(other, &[0, 1, 2]);
    assert!(same(&adjusted, 0, 0) && same(&adjusted, 2, 2));

    let mut other = config;
    other.protocol = UpstreamProtocol::Http2;
    let other = make(other, &[0, 1, 2]);
    assert!(!same(&other, 0, 0), "connected to in another way");
}

#[test]
fn a_bounded_hash_goes_on_to_the_next() {
    let settings = "balance = \"consistent-hash\"\nhash_by = \"client-ip\"\n\
        hash_load_percent_max = 100";
    let cluster = cluster(&service(settings, &many(4)));
    let affinity = Affinity {
        hash: Some(77),
        stuck: None,
    };
    let mut loads = BTreeMap::new();
    for _ in 0..40 {
        let endpoint = cluster.pick(&[], affinity).unwrap();
        endpoint.link.begins();
        *loads.entry(endpoint.index).or_insert(0) += 1;
    }
    assert_eq!(
        loads.into_values().collect::<Vec<_>>(),
        [10; 4],
        "one key, four instances"
    );
}

#[test]
fn one_that_has_not_answered_yet_is_avoided_for_one_that_has() {
    let cluster = cluster(&service(METHODS[2], &many(2)));
    cluster.endpoints[0].link.begins();
    cluster.endpoints[1].link.time().answered();
    assert_eq!(spread(&cluster, 50), BTreeMap::from([(1, 50)]));
    // Given up without an answer, it is known for how long that took.
    drop(cluster.endpoints[0].link.time());
    cluster.endpoints[0].link.ends();
    assert!(cluster.endpoints[0].link.cost(Instant::now()) < 100.0);
}

#[test]
fn a_cookie_is_followed_while_its_instance_can_be_used() {
    let service = service("sticky = {}", &many(3));
    let cluster = cluster(&service);
    let affinity = Affinity {
        hash: None,
        stuck: Some(1),
    };
    let picked = |tried: &[usize]| cluster.pick(tried, affinity).map(|one| one.index);
    for _ in 0..10 {
        assert_eq!(picked(&[]), Some(1));
    }
    assert_ne!(picked(&[1]), Some(1), "it failed");
    assert_eq!(cluster.cookie(affinity, 1, false), None, "the client knows");
    assert!(
        cluster.cookie(affinity, 2, false).is_some(),
        "another answered"
    );
    service.instances[1].availability.bar(Bar::Check, None);
    assert_ne!(picked(&[]), Some(1));
}

#[test]
fn a_thousand_instances_are_looked_at_only_when_something_changes() {
    for method in METHODS {
        let service = service(method, &many(1000));
        let cluster = cluster(&service);
        let made = |cluster: &Cluster| std::ptr::from_ref(&*cluster.lineup()).addr();
        let before = (made(&cluster), service.changes.count());
        spread(&cluster, 5000);
        assert!(cluster.lineup().is_current(before.1), "{method}");
        service.instances[500].availability.bar(Bar::Check, None);
        assert!(
            !cluster.lineup.borrow().is_current(service.changes.count()),
            "{method}"
        );
        assert!(!spread(&cluster, 5000).contains_key(&500), "{method}");
        assert!(
            cluster.lineup.borrow().is_current(service.changes.count()),
            "{method}"
        );
    }
}
