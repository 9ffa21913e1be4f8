//! Plans for each kind of tracking, and for a VIP whose last backend is drained.

use lb_ebpf::abi::tracking;

use super::*;

/// With every backend in the configuration, whoever is a member.
fn tracked(number: u8, members: &[u8], kind: Tracking) -> WantedVip {
    WantedVip {
        backends: (1..=2).map(address).collect(),
        tracking: kind,
        ..vip(number, members)
    }
}

/// A grace period passes, and whatever waits for it is done.
fn clean_up(maps: &mut Maps, now: Published, wanted: &Wanted) -> Published {
    let mut now = now;
    while let Some(flip) = now.pending_flip() {
        now.grace_passed(flip);
        (now, _) = step(maps, &now, wanted);
    }
    now
}

/// Ids of the backends `1` and `2`.
fn ids(now: &Published) -> [u16; 2] {
    [1, 2].map(|last| now.backend_id(address(last)).unwrap())
}

/// Ids of the VIPs.
fn vip_id(now: &Published, vip: &WantedVip) -> u16 {
    now.vips[&vip.key].vip.id as u16
}

#[test]
fn the_vip_says_whether_every_flow_is_tracked() {
    let mut maps = Maps::default();
    let mut now = Published::new(SIZES);
    for (kind, value) in [
        (Tracking::Moving, tracking::MOVING),
        (Tracking::Full, tracking::FULL),
        (Tracking::None, tracking::MOVING),
    ] {
        let want = wanted(vec![tracked(1, &[1, 2], kind)]);
        (now, _) = step(&mut maps, &now, &want);
        assert_eq!(maps.vips[&want.vips[0].key].tracking, value, "{kind}");
        assert_eq!(now.vips[&want.vips[0].key].generation, 1, "the ring stays");
    }
}

#[test]
fn without_tracking_every_change_takes_effect_at_once() {
    let mut maps = Maps::default();
    let none = |members| wanted(vec![tracked(1, members, Tracking::None)]);
    let moving = |members| wanted(vec![tracked(1, members, Tracking::Moving)]);
    let key = vip(1, &[]).key;
    let (now, _) = step(&mut maps, &Published::new(SIZES), &none(&[1, 2]));
    let (now, _) = step(&mut maps, &now, &none(&[2]));
    assert!(now.is_settled(&key));
    assert_eq!(shares(&maps, key), BTreeMap::from([(address(2), 251)]));

    // A reload that ends tracking settles what moves, and what waited for that goes ahead too.
    let (now, _) = step(&mut maps, &now, &moving(&[1, 2]));
    let (now, _) = step(&mut maps, &now, &moving(&[2]));
    assert!(now.vips[&key].moving > 0 && now.vips[&key].deferred > 0);
    let (now, _) = step(&mut maps, &now, &none(&[2]));
    assert!(now.is_settled(&key));
    assert_eq!(now.vips[&key].deferred, 0);
    assert_eq!(shares(&maps, key), BTreeMap::from([(address(2), 251)]));
}

#[test]
fn another_table_is_a_planned_change() {
    let mut maps = Maps::default();
    let mut want = wanted(vec![vip(1, &[1, 2, 3])]);
    let key = want.vips[0].key;
    let (now, _) = step(&mut maps, &Published::new(SIZES), &want);
    want.vips[0].table = Table::Rendezvous;
    let (now, _) = step(&mut maps, &now, &want);
    assert!(now.vips[&key].moving > 0);
    let (_, plan) = step(&mut maps, &now, &want);
    assert!(plan.is_empty(), "the ring is built of that table now");
}

#[test]
fn a_drained_last_backend_keeps_its_flows_until_they_are_quiet() {
    let mut maps = Maps::default();
    let mut want = wanted(vec![tracked(1, &[1], Tracking::Moving)]);
    let key = want.vips[0].key;
    let (now, _) = step(&mut maps, &Published::new(SIZES), &want);
    let [one, two] = ids(&now);
    let members = std::mem::take(&mut want.vips[0].members);
    let (now, _) = step(&mut maps, &now, &want);
    let left = Slot {
        current: 0,
        previous: one,
    };
    assert!(now.vips[&key].slots.iter().all(|slot| *slot == left));
    assert_eq!((now.vips[&key].moving, now.owners(&key).len()), (251, 0));

    // It may come back, or another may take its place: at once, since nobody stands in between.
    for (last, owner) in [(1, one), (2, two)] {
        let mut back = want.clone();
        back.vips[0].members = members.clone();
        back.vips[0].members[0].address = address(last);
        let plan = Plan::new(&now, &marked(&maps, &now, &back)).unwrap();
        let slot = Slot {
            current: owner,
            previous: one,
        };
        assert!(plan.next.vips[&key].slots.iter().all(|next| *next == slot));
        assert_eq!(plan.next.vips[&key].deferred, 0);
    }

    // If it fails meanwhile, or when it is quiet, nobody is left.
    let mut failed = want.clone();
    failed.vips[0].dead.insert(address(1));
    let plan = Plan::new(&now, &marked(&maps, &now, &failed)).unwrap();
    assert_eq!(plan.next.vips[&key].vip.ring_size, 0);
    for (at, size) in [(59, 251), (60, 0), (1000, 0)] {
        want.clock.now = at;
        let (now, _) = step(&mut maps, &now, &want);
        assert_eq!(now.vips[&key].vip.ring_size, size, "at {at} s");
    }
}

#[test]
fn a_failed_last_backend_is_nobody_at_once() {
    let mut maps = Maps::default();
    let mut want = wanted(vec![tracked(1, &[1], Tracking::Moving)]);
    let (now, _) = step(&mut maps, &Published::new(SIZES), &want);
    want.vips[0].members.clear();
    want.vips[0].dead.insert(address(1));
    let (now, _) = step(&mut maps, &now, &want);
    assert_eq!(now.vips[&want.vips[0].key].vip.ring_size, 0);
}

#[test]
fn full_tracking_keeps_a_ring_of_nobodys_slots() {
    let mut maps = Maps::default();
    let mut want = wanted(vec![tracked(1, &[1], Tracking::Full)]);
    let key = want.vips[0].key;
    let (mut now, _) = step(&mut maps, &Published::new(SIZES), &want);
    want.vips[0].members.clear();
    for at in [0, 1000] {
        want.clock.now = at;
        (now, _) = step(&mut maps, &now, &want);
    }
    let slots = &now.vips[&key].slots;
    assert!(slots.len() == 251 && slots.iter().all(|slot| *slot == Slot::default()));
}

#[test]
fn flows_of_a_failed_backend_are_forgotten_for_that_vip_alone() {
    let mut maps = Maps::default();
    let full = |number| tracked(number, &[1, 2], Tracking::Full);
    let mut want = wanted(vec![full(1), full(2)]);
    let (now, _) = step(&mut maps, &Published::new(SIZES), &want);
    let [one, two] = ids(&now);
    let [first, second] = [0, 1].map(|vip| vip_id(&now, &want.vips[vip]));
    let now = clean_up(&mut maps, now, &want);
    let all = Tracked::from([(first, one), (first, two), (second, one), (second, two)]);
    maps.flows.clone_from(&all);
    let (now, plan) = step(&mut maps, &now, &want);
    assert!(plan.is_empty() && maps.flows == all, "nobody is lost");

    want.vips[0].members.remove(0);
    want.vips[0].dead.insert(address(1));
    let (now, plan) = step(&mut maps, &now, &want);
    assert!(plan.lost_flows == Tracked::from([(first, one)]) && !plan.stale_flows);
    let kept = Tracked::from([(first, two), (second, one), (second, two)]);
    assert_eq!(maps.flows, kept);

    // A packet that was in flight is remembered after all, until no more of them can be.
    maps.flows.insert((first, one));
    let (now, plan) = step(&mut maps, &now, &want);
    assert!(plan.is_empty(), "too early");
    let now = clean_up(&mut maps, now, &want);
    assert_eq!(maps.flows, kept);
    assert!(now.lost_at.is_none() && Plan::new(&now, &want).unwrap().is_empty());
}

#[test]
fn a_drained_backend_keeps_its_tracked_flows_and_its_id() {
    let mut maps = Maps::default();
    let mut want = wanted(vec![tracked(1, &[1, 2], Tracking::Full)]);
    let (now, _) = step(&mut maps, &Published::new(SIZES), &want);
    let (first, [one, _]) = (vip_id(&now, &want.vips[0]), ids(&now));
    maps.flows.insert((first, one));
    want.vips[0].members.remove(0);
    let (mut now, _) = step(&mut maps, &now, &want);
    want.clock.now = 1000;
    (now, _) = step(&mut maps, &now, &want);
    now = clean_up(&mut maps, now, &want);
    assert!(now.is_settled(&want.vips[0].key));
    assert!(maps.flows.contains(&(first, one)));

    // Removed in favour of another: its flows go before its id gets that one, whatever is in flight.
    let mut other = vip(1, &[2, 3]);
    other.tracking = Tracking::Full;
    let want = wanted(vec![other]);
    (now, _) = step(&mut maps, &now, &want);
    assert!(!maps.flows.contains(&(first, one)));
    assert_ne!(now.backend_id(address(3)), Some(one));
    maps.flows.insert((first, one));
    now = clean_up(&mut maps, now, &want);
    assert_eq!(now.backend_id(address(1)), None);
    let (now, _) = step(&mut maps, &now, &wanted(vec![vip(1, &[2, 3, 4])]));
    assert_eq!(
        now.backend_id(address(4)),
        Some(one),
        "the id is used again"
    );
}

#[test]
fn a_vip_id_is_not_used_again_while_flows_of_it_may_be_remembered() {
    let mut maps = Maps::default();
    let full = wanted(vec![tracked(1, &[1, 2], Tracking::Full)]);
    let (now, _) = step(&mut maps, &Published::new(SIZES), &full);
    let (id, [one, _]) = (vip_id(&now, &full.vips[0]), ids(&now));
    maps.flows.insert((id, one));
    let (now, plan) = step(&mut maps, &now, &Wanted::default());
    assert!(plan.lost_flows.is_empty(), "nobody asks for them any more");
    // The next VIP comes before packets in flight are through: the store checks the rest.
    for members in [&[1, 2][..], &[]] {
        maps.flows.insert((id, one));
        let next = wanted(vec![tracked(2, members, Tracking::Moving)]);
        let (now, plan) = step(&mut maps, &now, &next);
        assert!(plan.grace_period && plan.stale_flows && maps.flows.is_empty());
        assert_eq!(vip_id(&now, &next.vips[0]), id);
        maps.vips.clear();
    }
}

#[test]
fn what_full_tracking_knew_is_forgotten_with_it_when_nobody_in_flight_asks_any_more() {
    for kind in [Tracking::Moving, Tracking::None] {
        let mut maps = Maps::default();
        let full = wanted(vec![tracked(1, &[1, 2], Tracking::Full)]);
        let (now, _) = step(&mut maps, &Published::new(SIZES), &full);
        let [one, two] = ids(&now).map(|backend| (vip_id(&now, &full.vips[0]), backend));
        maps.flows = Tracked::from([one, two]);
        let mut other = wanted(vec![tracked(1, &[1, 2], kind)]);
        let (now, _) = step(&mut maps, &now, &other);
        assert_eq!(maps.flows, Tracked::from([one, two]), "{kind}");

        // Tracked again before that: what it knew is old by then.
        let (again, plan) = step(&mut maps, &now, &full);
        assert!(plan.grace_period && plan.stale_flows, "{kind}");
        assert!(maps.flows.is_empty() && again.lost_at.is_none(), "{kind}");
        assert_eq!(again.tracked, Tracked::from([one, two]), "{kind}");

        // Or not tracked any more, and a backend is lost.
        maps.flows = Tracked::from([one, two]);
        other.vips[0].members.remove(0);
        other.vips[0].dead.insert(address(1));
        let (now, plan) = step(&mut maps, &now, &other);
        assert!(plan.lost_flows.is_empty(), "{kind}");
        let now = clean_up(&mut maps, now, &other);
        assert!(maps.flows.is_empty() && now.lost_at.is_none(), "{kind}");
        let (_, plan) = step(&mut maps, &now, &full);
        assert!(!plan.stale_flows, "{kind}: nothing is left");
    }
}

#[test]
fn an_adopting_agent_forgets_whom_the_one_before_lost() {
    let mut maps = Maps::default();
    let full = wanted(vec![tracked(1, &[1, 2], Tracking::Full)]);
    let mut want = full.clone();
    let (now, _) = step(&mut maps, &Published::new(SIZES), &want);
    let (first, [one, two]) = (vip_id(&now, &want.vips[0]), ids(&now));
    // It died when it had published the ring without 1, and before anything was forgotten.
    want.vips[0].members.remove(0);
    want.vips[0].dead.insert(address(1));
    step(&mut maps, &now, &want);
    let strange = (first + 1, two);
    maps.flows = Tracked::from([(first, one), (first, two), strange]);

    let adopted = adopt(&maps, 0);
    let (now, plan) = step(&mut maps, &adopted, &want);
    assert!(plan.lost_flows.contains(&(first, one)), "1 is dead");
    let now = clean_up(&mut maps, now, &want);
    assert_eq!(maps.flows, Tracked::from([(first, two)]));
    assert_eq!(now.lost_at, None);

    // Or when a VIP was gone, of which nothing can be seen any more: nobody of the others is lost.
    maps.flows.insert(strange);
    let adopted = adopt(&maps, 0);
    let now = clean_up(&mut maps, adopted, &full);
    assert_eq!(maps.flows, Tracked::from([(first, two)]));
    assert_eq!(now.lost_at, None);
}

#[test]
fn a_publish_that_fails_forgets_nobody() {
    let want = wanted(vec![tracked(1, &[1, 2], Tracking::Full)]);
    for fail_at in 1.. {
        let mut maps = Maps::default();
        let (now, _) = step(&mut maps, &Published::new(SIZES), &want);
        let first = vip_id(&now, &want.vips[0]);
        let flows = Tracked::from(ids(&now).map(|backend| (first, backend)));
        maps.flows.clone_from(&flows);
        let mut less = want.clone();
        less.vips[0].members.remove(0);
        less.vips[0].dead.insert(address(1));
        (maps.writes, maps.fail_at) = (0, Some(fail_at));
        let plan = Plan::new(&now, &less).unwrap();
        if apply(&mut maps, &now, plan).is_ok() {
            assert!(fail_at > 2 && maps.flows.len() == 1);
            return;
        }
        assert_eq!(maps.flows, flows, "failure at {fail_at}");
    }
}
