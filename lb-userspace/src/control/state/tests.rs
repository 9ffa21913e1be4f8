//! What follows from health, drains and weights, on one VIP with backends `a`, `b`, `c`.

use std::path::Path;

use lb_ebpf::abi::Slot;

use super::*;
use crate::dataplane::{Sizes, backend};

fn config(health: bool) -> Config {
    let health = if health {
        r#"health = { tcp = true, port = 80 }"#
    } else {
        ""
    };
    let text = format!(
        r#"
        [agent]
        interfaces = ["eth0"]

        [vips.web]
        address = "203.0.113.10:443/tcp"
        forward = "ipip"
        ring_size = 251
        {health}

        [vips.web.backends]
        a = {{ address = "10.0.0.1" }}
        b = {{ address = "10.0.0.2" }}
        c = {{ address = "10.0.0.3", weight = 0 }}
        "#
    );
    Config::parse(&text, Path::new("weir.toml")).unwrap()
}

/// Maps whose ring for the VIP is owned by the backend at `10.0.0.<owner>`.
fn published(owner: Option<u8>) -> Published {
    let sizes = Sizes {
        vips: 2,
        backends: 8,
        ring_slots: 1000,
        exceptions: 16,
        flows: 16,
        inserts_per_second: 100,
    };
    let Some(owner) = owner else {
        return Published::new(sizes);
    };
    let vip = &config(false).vips["web"];
    let value = lb_ebpf::abi::Vip {
        ring_start: 0,
        ring_size: 251,
        id: 0,
        forward: forward::IPIP,
        hash: 0,
        tracking: 0,
        reserved: 0,
    };
    let entry = backend::entry([10, 0, 0, owner].into(), Default::default(), 0);
    let ring = |_, len| Some(vec![Slot::settled(1); len as usize]);
    Published::adopt(sizes, vec![(key(vip), value)], vec![(1, entry)], ring, 0)
}

/// Last bytes of the members' addresses, of the dead, and whether the panic rule holds.
fn ring(config: &Config, draining: &[&str], healths: &Healths) -> (Vec<u8>, Vec<u8>, bool) {
    let last = |address: &IpAddr| lb_ebpf::address::Address::from(*address).to_bytes()[15];
    let draining = draining
        .iter()
        .map(|name| ("web".to_owned(), name.to_string()))
        .collect();
    let (wanted, panic) = wanted(
        &config.vips["web"],
        &draining,
        healths,
        |_| true,
        Vec::new(),
    );
    let members = wanted
        .members
        .iter()
        .map(|member| last(&member.address))
        .collect();
    (members, wanted.dead.iter().map(last).collect(), panic)
}

fn observed(config: &Config, outcomes: &[(&str, bool)]) -> Healths {
    let mut healths = Healths::default();
    healths.follow(config, &published(None));
    for (backend, healthy) in outcomes {
        let name = ("web".to_owned(), backend.to_string());
        assert!(healths.observe(&name, *healthy, true, "said so".into()));
    }
    healths
}

#[test]
fn health_drains_and_weights_decide_who_takes_flows() {
    let config = config(true);
    type Case = (
        &'static str,
        &'static [&'static str],
        Vec<(&'static str, bool)>,
        (Vec<u8>, Vec<u8>, bool),
    );
    let cases: [Case; 6] = [
        (
            "nothing known yet, no ring before",
            &[],
            vec![],
            (vec![1, 2], vec![], false),
        ),
        (
            "one down",
            &[],
            vec![("a", true), ("b", false)],
            (vec![1], vec![2], false),
        ),
        (
            "one drained",
            &["a"],
            vec![("a", true), ("b", true)],
            (vec![2], vec![], false),
        ),
        (
            "panic: all down, all used; weight 0 stays out",
            &[],
            vec![("a", false), ("b", false), ("c", true)],
            (vec![1, 2], vec![], true),
        ),
        (
            "panic among those that do not drain",
            &["a"],
            vec![("a", true), ("b", false)],
            (vec![2], vec![], true),
        ),
        (
            "all drained is no panic",
            &["a", "b"],
            vec![("a", false)],
            (vec![], vec![1], false),
        ),
    ];
    for (name, draining, outcomes, expected) in cases {
        assert_eq!(
            ring(&config, draining, &observed(&config, &outcomes)),
            expected,
            "{name}"
        );
    }
}

#[test]
fn until_the_first_probe_a_backend_counts_as_it_did_in_the_last_ring() {
    let config = config(true);
    let mut healths = Healths::default();
    healths.follow(&config, &published(Some(2)));
    assert_eq!(ring(&config, &[], &healths), (vec![2], vec![], false));
    assert_eq!(
        healths.of("web", "a").unwrap().verdict,
        types::Health::Unknown
    );
    healths.observe(&("web".into(), "a".into()), true, true, "connected".into());
    healths.follow(&config, &published(Some(2)));
    assert_eq!(
        ring(&config, &[], &healths).0,
        [1, 2],
        "what probes said is kept"
    );
}

#[test]
fn without_checks_everybody_is_up_and_strangers_are_ignored() {
    let mut healths = Healths::default();
    let config = config(false);
    healths.follow(&config, &published(Some(2)));
    assert_eq!(ring(&config, &[], &healths), (vec![1, 2], vec![], false));
    assert!(!healths.observe(&("web".into(), "gone".into()), true, true, "late".into()));
}

#[test]
fn a_backend_that_no_way_leads_to_takes_no_flows() {
    let config = config(false);
    let healths = observed(&config, &[]);
    let first = IpAddr::from([10, 0, 0, 1]);
    let none = BTreeSet::new();
    let (wanted, panic) = super::wanted(
        &config.vips["web"],
        &none,
        &healths,
        |address| address == first,
        Vec::new(),
    );
    assert_eq!(
        wanted.members.iter().map(|m| m.address).collect::<Vec<_>>(),
        [first]
    );
    assert!(
        wanted.dead.is_empty() && !panic,
        "its flows, if it ever had some, may be alive"
    );
}

/// An interface goes down: probes of `a` and then of `b` fail, nobody answers, and then both do.
#[test]
fn who_looks_down_when_nobody_answers_keeps_its_slots() {
    let config = config(true);
    let mut healths = observed(&config, &[("a", true), ("b", true)]);
    let name = |backend: &str| ("web".to_owned(), backend.to_owned());
    let steps = [
        ("a", false, false, (vec![1, 2], vec![], false)),
        ("b", false, false, (vec![1, 2], vec![], true)),
        ("b", true, true, (vec![1, 2], vec![], false)),
        ("a", false, true, (vec![2], vec![1], false)),
        ("a", true, true, (vec![1, 2], vec![], false)),
    ];
    for (backend, healthy, confirmed, expected) in steps {
        healths.observe(&name(backend), healthy, confirmed, "said so".into());
        assert_eq!(
            ring(&config, &[], &healths),
            expected,
            "{backend} {healthy} {confirmed}"
        );
    }
}

/// One that never served does not begin to because it cannot be told whether it is down. Nor are its
/// connections given up: it may have been draining when this agent started.
#[test]
fn a_backend_without_slots_that_looks_down_serves_nobody_until_it_is_certain() {
    let config = config(true);
    let mut healths = Healths::default();
    healths.follow(&config, &published(Some(2)));
    for (confirmed, dead) in [(false, vec![]), (true, vec![1])] {
        let name = ("web".into(), "a".into());
        healths.observe(&name, false, confirmed, "refused".into());
        assert_eq!(ring(&config, &[], &healths), (vec![2], dead, false));
    }
}
