//! Plans are checked by applying them to a store that behaves like the maps and looks, after every
//! visible write, at what a packet would see.

use std::collections::BTreeMap;

use lb_ebpf::abi::hash_kind;

use super::*;
use crate::control::apply::{Forget, Store, apply};
use crate::dataplane::Sizes;

mod moving;
mod tracking;

const SIZES: Sizes = Sizes {
    vips: 4,
    backends: 8,
    ring_slots: 4 * 252,
    exceptions: 16,
    flows: 16,
    inserts_per_second: 100,
};

/// Maps in memory. Fails at write number `fail_at`.
#[derive(Default)]
struct Maps {
    slots: BTreeMap<u32, Slot>,
    marks: BTreeMap<u32, Mark>,
    vips: BTreeMap<VipKey, Vip>,
    backends: BTreeMap<u16, Backend>,
    /// What full tracking remembers: one flow stands for all of its VIP and backend.
    flows: Tracked,
    writes: usize,
    fail_at: Option<usize>,
    grace_periods: usize,
}

#[derive(Debug, PartialEq, Eq, Error)]
#[error("write refused")]
struct WriteRefused;

impl Maps {
    fn count(&mut self) -> Result<(), WriteRefused> {
        self.writes += 1;
        if self.fail_at == Some(self.writes) {
            Err(WriteRefused)
        } else {
            Ok(())
        }
    }

    /// What packets see: for each VIP its mode and the addresses that own its slots.
    fn visible(&self) -> BTreeMap<VipKey, (u8, Vec<IpAddr>)> {
        let owners = |vip: &Vip| {
            (vip.ring_start..vip.ring_start + vip.ring_size)
                .filter_map(|index| self.backends.get(&self.slots[&index].current))
                .map(|backend| std::net::IpAddr::from(backend.address))
                .collect()
        };
        self.vips
            .iter()
            .map(|(key, vip)| (*key, (vip.forward, owners(vip))))
            .collect()
    }
}

impl Store for Maps {
    type Error = WriteRefused;

    fn wait_grace_period(&mut self) {
        self.grace_periods += 1;
    }

    fn write_ring(
        &mut self,
        start: u32,
        slots: &[Slot],
        marks: &[Mark],
    ) -> Result<(), WriteRefused> {
        self.count()?;
        assert!(marks.is_empty() || marks.len() == slots.len());
        self.marks.extend((start..).zip(marks.iter().copied()));
        let end = start + slots.len() as u32;
        for vip in self.vips.values() {
            let live = vip.ring_start..vip.ring_start + vip.ring_size;
            assert!(
                end <= live.start || start >= live.end,
                "a live ring was overwritten"
            );
        }
        self.slots.extend((start..).zip(slots.iter().copied()));
        Ok(())
    }

    fn write_vip(&mut self, key: VipKey, vip: Option<Vip>) -> Result<(), WriteRefused> {
        self.count()?;
        match vip {
            Some(vip) => self.vips.insert(key, vip),
            None => self.vips.remove(&key),
        };
        self.visible();
        Ok(())
    }

    fn write_backend(&mut self, id: u16, backend: &Backend) -> Result<(), WriteRefused> {
        self.count()?;
        let before = self.backends.insert(id, *backend);
        let same = before.is_some_and(|before| before.address == backend.address);
        let remembered = self.flows.iter().any(|(_, owner)| *owner == id);
        assert!(
            same || !remembered,
            "flows of another are given to backend {id}"
        );
        Ok(())
    }

    fn clear_vip_counts(&mut self, id: u32) -> Result<(), WriteRefused> {
        let remembered = self.flows.iter().any(|(vip, _)| u32::from(*vip) == id);
        assert!(!remembered, "flows of another are given to VIP {id}");
        self.count()
    }

    fn clear_backend_counts(&mut self, _: u16) -> Result<(), WriteRefused> {
        self.count()
    }

    fn forget_flows(&mut self, which: Forget<'_>) {
        self.flows
            .retain(|(vip, backend)| !which.covers(*vip, *backend));
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn vip(number: u8, members: &[u8]) -> WantedVip {
    let member = |&last: &u8| Member {
        address: address(last),
        weight: 100,
    };
    WantedVip {
        name: format!("vip{number}"),
        key: VipKey::new(IpAddr::from([192, 0, 2, number]).into(), 80, 6),
        forward: forward::IPIP,
        hash: hash_kind::FIVE_TUPLE,
        ring_size: 251,
        table: Table::default(),
        tracking: Tracking::default(),
        members: members.iter().map(member).collect(),
        backends: members.iter().map(|&last| address(last)).collect(),
        dead: BTreeSet::new(),
        marks: Vec::new(),
    }
}

fn way(last: u8) -> Way {
    let hop = Hop::new([2, 0, 0, 0, 0, last].into(), [2; 6].into(), 3);
    Way { hop, mtu: 1500 }
}

fn wanted(vips: Vec<WantedVip>) -> Wanted {
    let addresses = vips.iter().flat_map(|vip| vip.backends.iter());
    let ways = addresses.map(|&a| (a, way(1))).collect();
    Wanted {
        vips,
        ways,
        clock: Clock::default(),
    }
}

/// With the marks of the published rings, as the agent reads them before it plans.
fn marked(maps: &Maps, now: &Published, wanted: &Wanted) -> Wanted {
    let mut wanted = wanted.clone();
    for want in &mut wanted.vips {
        let read = |start, len| {
            let indexes = start..start + len;
            let mark = |index| maps.marks.get(&index).copied().unwrap_or_default();
            Some(indexes.map(mark).collect())
        };
        want.marks = now.marks(&want.key, read).unwrap_or_default();
    }
    wanted
}

/// What another agent finds at second `now_s`.
fn adopt(maps: &Maps, now_s: u16) -> Published {
    let ring = |start: u32, len: u32| {
        let indexes = start..start + len;
        indexes
            .map(|index| maps.slots.get(&index).copied())
            .collect()
    };
    let vips = maps.vips.clone().into_iter().collect();
    let backends = maps.backends.clone().into_iter();
    let backends = backends.filter(|(_, backend)| backend.family != 0);
    Published::adopt(SIZES, vips, backends.collect(), ring, now_s)
}

/// Plans and applies; returns the plan too.
fn step(maps: &mut Maps, now: &Published, wanted: &Wanted) -> (Published, Plan) {
    let plan = Plan::new(now, &marked(maps, now, wanted)).unwrap();
    let next = apply(maps, now, plan.clone()).unwrap();
    assert!(
        Plan::new(&next, &marked(maps, &next, wanted))
            .unwrap()
            .vips
            .is_empty(),
        "a second plan finds work"
    );
    (next, plan)
}

fn shares(maps: &Maps, key: VipKey) -> BTreeMap<IpAddr, usize> {
    let mut shares = BTreeMap::new();
    for owner in &maps.visible()[&key].1 {
        *shares.entry(*owner).or_default() += 1;
    }
    shares
}

#[test]
fn a_first_publish_writes_backends_ring_address_and_flip() {
    let mut maps = Maps::default();
    let first = wanted(vec![vip(1, &[1, 2])]);
    let (now, plan) = step(&mut maps, &Published::new(SIZES), &first);
    let key = first.vips[0].key;
    assert_eq!(
        shares(&maps, key),
        BTreeMap::from([(address(1), 125), (address(2), 126)])
    );
    assert!(maps.vips.contains_key(&VipKey::address_entry(key.address)));
    assert!(!plan.grace_period, "fresh memory needs no waiting");
    assert_eq!(now.vips[&key].generation, 1);
    assert!(
        maps.slots
            .values()
            .all(|slot| slot.current == slot.previous)
    );
}

#[test]
fn generations_alternate_and_only_reuse_waits() {
    let mut maps = Maps::default();
    let members: [&[u8]; 5] = [&[1, 2], &[1, 2, 3], &[1, 2], &[1, 3], &[2, 3]];
    let mut now = Published::new(SIZES);
    let mut seen = Vec::new();
    for members in members {
        // Whoever is no member is dead: slots change at once.
        let mut want = wanted(vec![vip(1, members)]);
        want.vips[0].backends = (1..=3).map(address).collect();
        let members = members.iter().map(|&last| address(last)).collect();
        let all: BTreeSet<IpAddr> = (1..=3).map(address).collect();
        want.vips[0].dead = all.difference(&members).copied().collect();
        // Each change is long after the one before.
        want.clock.now = 1000 * seen.len() as u16;
        let plan;
        (now, plan) = step(&mut maps, &now, &want);
        seen.push((plan.vips[0].1.ring_start, plan.grace_period));
    }
    // The second publish takes a fresh stretch; from the third on, each one reuses what the publish
    // before took out of use.
    assert_eq!(
        seen,
        [(0, false), (252, false), (0, true), (252, true), (0, true)]
    );
    assert_eq!(maps.grace_periods, 3);
}

#[test]
fn a_removed_backend_is_forgotten_at_once_and_its_id_when_no_packet_can_name_it() {
    let mut maps = Maps::default();
    let (now, _) = step(
        &mut maps,
        &Published::new(SIZES),
        &wanted(vec![vip(1, &[1, 2])]),
    );
    let one = now.backend_id(address(1)).unwrap();

    let want = wanted(vec![vip(1, &[2])]);
    let (now, plan) = step(&mut maps, &now, &want);
    assert!(now.is_settled(&want.vips[0].key), "no slot remembers it");
    assert!(
        plan.backends_removed.is_empty(),
        "packets in flight may still read the old ring"
    );
    let (now, plan) = step(&mut maps, &now, &want);
    assert_eq!(
        (plan.backends_removed.as_slice(), plan.grace_period),
        (&[one][..], true)
    );
    assert_eq!(maps.backends[&one].family, 0);

    let (now, _) = step(&mut maps, &now, &wanted(vec![vip(1, &[2, 3])]));
    assert_eq!(
        now.backend_id(address(3)),
        Some(one),
        "the id is used again"
    );
}

#[test]
fn a_new_hop_is_staged_before_it_is_switched_to() {
    let mut maps = Maps::default();
    let mut want = wanted(vec![vip(1, &[1])]);
    let (mut now, _) = step(&mut maps, &Published::new(SIZES), &want);
    // The idle generation of a new backend was never in use; the next one is what was left.
    for (before, after, waits) in [(1, 2, false), (2, 3, true)] {
        want.ways.insert(address(1), way(after));
        let plan;
        (now, plan) = step(&mut maps, &now, &want);
        let (staged, switched) = (plan.hops_staged[0].1, plan.hops[0].1);
        assert_eq!(
            (staged.hop(), switched.hop()),
            (way(before).hop, way(after).hop)
        );
        assert!(plan.rings.is_empty() && plan.vips.is_empty());
        assert_eq!(plan.grace_period, waits);
    }
}

#[test]
fn no_members_is_an_empty_ring_and_members_come_back() {
    let mut maps = Maps::default();
    let (now, _) = step(
        &mut maps,
        &Published::new(SIZES),
        &wanted(vec![vip(1, &[1])]),
    );
    let key = vip(1, &[]).key;
    let (now, _) = step(&mut maps, &now, &wanted(vec![vip(1, &[])]));
    assert_eq!(maps.vips[&key].ring_size, 0);
    let (_, plan) = step(&mut maps, &now, &wanted(vec![vip(1, &[1])]));
    assert_eq!(maps.vips[&key].ring_size, 251);
    assert!(plan.grace_period);
}

#[test]
fn a_vip_that_goes_takes_its_address_with_it_unless_another_has_it() {
    let mut maps = Maps::default();
    let mut other_port = vip(1, &[1]);
    other_port.key = VipKey {
        port: 0,
        ..other_port.key
    };
    let both = wanted(vec![vip(1, &[1]), other_port.clone()]);
    let (now, _) = step(&mut maps, &Published::new(SIZES), &both);
    assert_eq!(maps.vips.len(), 3);
    let (now, _) = step(&mut maps, &now, &wanted(vec![other_port]));
    assert_eq!(maps.vips.len(), 2);
    step(&mut maps, &now, &Wanted::default());
    assert!(maps.vips.is_empty());
}

#[test]
fn a_failure_anywhere_leaves_packets_with_what_they_had() {
    let first = wanted(vec![vip(1, &[1, 2]), vip(2, &[2])]);
    let mut second = wanted(vec![vip(1, &[2, 3]), vip(3, &[1])]);
    second.ways.insert(address(2), way(9));
    for fail_at in 1.. {
        let mut maps = Maps::default();
        let (now, _) = step(&mut maps, &Published::new(SIZES), &first);
        let (vips, visible) = (maps.vips.clone(), maps.visible());
        let hop = maps.backends[&now.backend_id(address(2)).unwrap()].hop();
        maps.writes = 0;
        maps.fail_at = Some(fail_at);
        let plan = Plan::new(&now, &second).unwrap();
        if apply(&mut maps, &now, plan).is_ok() {
            assert!(fail_at > 10, "the plan has more writes than that");
            return;
        }
        assert_eq!(
            (&maps.vips, maps.visible()),
            (&vips, visible),
            "failure at {fail_at}"
        );
        assert_eq!(
            maps.backends[&now.backend_id(address(2)).unwrap()].hop(),
            hop
        );
        // And the change goes through afterwards, when the packets are through that saw a part of it.
        let mut now = now;
        now.taken_back(0);
        let plan = Plan::new(&now, &marked(&maps, &now, &second)).unwrap();
        assert!(plan.grace_period, "failure at {fail_at}");
        step(&mut maps, &now, &second);
    }
}

#[test]
fn a_table_is_shared_by_those_alone_for_whom_it_is_built() {
    let same = vip(1, &[1, 2, 3]);
    let mut others = [2, 3, 4, 5].map(|number| WantedVip {
        key: vip(number, &[]).key,
        ..same.clone()
    });
    others[1].members[0].weight = 50;
    others[2].members[0].weight = 50;
    others[2].table = Table::Rendezvous;
    others[3].ring_size = 509;
    let sizes = Sizes {
        vips: 8,
        ring_slots: 4096,
        ..SIZES
    };
    let all = [&[same][..], &others].concat();
    let plan = Plan::new(&Published::new(sizes), &wanted(all.clone())).unwrap();
    for vip in all {
        let alone = Plan::new(&Published::new(sizes), &wanted(vec![vip.clone()])).unwrap();
        let owners = |plan: &Plan| plan.next.owners(&vip.key);
        assert_eq!(owners(&plan), owners(&alone));
        let addresses = |plan: &Plan| -> Vec<IpAddr> {
            let slots = plan.next.vips[&vip.key].slots.iter();
            slots
                .map(|slot| plan.next.backends[&slot.current].address)
                .collect()
        };
        assert_eq!(addresses(&plan), addresses(&alone));
    }
}

#[test]
fn full_tables_are_refused_by_name() {
    let now = Published::new(SIZES);
    let names = |vips| {
        Plan::new(&now, &wanted(vips))
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        names(vec![vip(1, &[1, 2, 3, 4]), vip(2, &[5, 6, 7, 8])]),
        "vip vip2: all 7 backends are in use"
    );
    assert_eq!(
        names((1..=5).map(|n| vip(n, &[1])).collect()),
        "vip vip5: all 4 VIPs are in use"
    );
    let mut large = vip(1, &[1]);
    large.ring_size = 1021;
    assert_eq!(
        names(vec![large]),
        "vip vip1: all 1008 ring slots are in use"
    );
}

#[test]
fn an_adopting_agent_finds_nothing_to_do_and_then_waits_before_it_reuses() {
    let mut maps = Maps::default();
    let want = wanted(vec![vip(1, &[1, 2]), vip(2, &[2])]);
    step(&mut maps, &Published::new(SIZES), &want);
    let adopted = adopt(&maps, 0);
    assert_eq!(adopted.owners(&want.vips[0].key).len(), 2);
    assert!(Plan::new(&adopted, &want).unwrap().is_empty());
    let plan = Plan::new(&adopted, &wanted(vec![vip(1, &[1]), vip(2, &[2])])).unwrap();
    assert!(
        plan.grace_period,
        "the stretch it takes may be the other agent's last ring"
    );
}

#[test]
fn pinned_vips_that_overlap_are_replaced() {
    let entry = |start, id| Vip {
        ring_start: start,
        ring_size: 251,
        id,
        ..ADDRESS_ENTRY
    };
    let ipip = |start, id| Vip {
        forward: forward::IPIP,
        ..entry(start, id)
    };
    let (first, second, third) = (vip(1, &[1]).key, vip(2, &[1]).key, vip(3, &[1]).key);
    let vips = vec![
        (first, ipip(0, 0)),
        (second, ipip(100, 1)),
        (third, ipip(252, 0)),
    ];
    let ring = |_, len| Some(vec![Slot::settled(1); len as usize]);
    let adopted = Published::adopt(SIZES, vips, Vec::new(), ring, 0);
    assert_eq!(adopted.vips.keys().collect::<Vec<_>>(), [&first]);
    let plan = Plan::new(&adopted, &wanted(vec![vip(2, &[1])])).unwrap();
    assert_eq!(
        plan.vips.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        [second]
    );
    assert_eq!(plan.vips_removed, [first, third]);
}
