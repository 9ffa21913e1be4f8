//! Plans for slots that move: what they remember, what waits for them, and when they settle.

use super::*;

#[test]
fn slots_that_move_remember_their_owner_unless_it_is_dead() {
    let mut maps = Maps::default();
    let mut want = wanted(vec![vip(1, &[1, 2])]);
    let (now, _) = step(&mut maps, &Published::new(SIZES), &want);
    let key = want.vips[0].key;
    let (one, two) = (
        now.backend_id(address(1)).unwrap(),
        now.backend_id(address(2)).unwrap(),
    );

    // Drained: the slots of 1 go to 2 and remember 1.
    want.vips[0].members.remove(0);
    let (now, _) = step(&mut maps, &now, &want);
    assert_eq!(shares(&maps, key), BTreeMap::from([(address(2), 251)]));
    let slots = &now.vips[&key].slots;
    let moved = slots.iter().filter(|slot| slot.previous == one).count();
    assert_eq!((moved, now.vips[&key].moving), (125, 125));
    assert!(!now.is_settled(&key));

    // Dead: nothing remembers it any more.
    want.vips[0].dead.insert(address(1));
    let (now, _) = step(&mut maps, &now, &want);
    let slots = &now.vips[&key].slots;
    assert!(slots.iter().all(|slot| *slot == Slot::settled(two)));
    assert!(now.is_settled(&key));
}

#[test]
fn a_change_waits_in_slots_that_move_and_goes_ahead_in_the_others() {
    let mut maps = Maps::default();
    let mut want = wanted(vec![vip(1, &[1, 2])]);
    let (now, _) = step(&mut maps, &Published::new(SIZES), &want);
    let key = want.vips[0].key;
    // A third backend takes a third of the slots; then 1 is drained.
    let want_third = wanted(vec![vip(1, &[1, 2, 3])]);
    let (now, _) = step(&mut maps, &now, &want_third);
    let third_moving = now.vips[&key].moving;
    let before = Arc::clone(&now.vips[&key].slots);
    want = want_third;
    want.vips[0].members.remove(0);
    want.clock.now = 30;
    let (now, _) = step(&mut maps, &now, &want);
    let deferred = now.vips[&key].deferred;
    assert!(
        deferred > 0 && deferred < third_moving,
        "1 still owns slots that move"
    );
    for (old, new) in before.iter().zip(now.vips[&key].slots.iter()) {
        match old.moves() {
            true => assert_eq!(old, new, "a slot took a second change"),
            false => assert!(new.previous == old.current),
        }
    }
    assert!(now.vips[&key].moving > third_moving);

    // At 60 s the first moves are quiet: they settle, and what waited goes ahead. At 120 s, all has
    // settled.
    let mut now = now;
    for (at, moves) in [(59, true), (60, true), (119, true), (120, false)] {
        want.clock.now = at;
        (now, _) = step(&mut maps, &now, &want);
        assert_eq!(now.vips[&key].deferred > 0, at < 60, "at {at} s");
        assert_eq!(!now.is_settled(&key), moves, "at {at} s");
    }
    let mut owners: Vec<_> = shares(&maps, key).into_keys().collect();
    owners.sort();
    assert_eq!(owners, [address(2), address(3)]);
}

#[test]
fn a_ring_has_marks_while_slots_of_it_move() {
    let mut maps = Maps::default();
    let mut now = Published::new(SIZES);
    // Members, second; marks, and whether the ring before had some.
    for (members, at, marks, before) in [
        (&[1, 2][..], 0, 0, false),
        (&[1, 2, 3], 0, 251, false),
        (&[1, 2, 3], 60, 0, true),
        (&[1], 60, 0, false),
    ] {
        let mut want = wanted(vec![vip(1, members)]);
        want.clock.now = at;
        let plan;
        (now, plan) = step(&mut maps, &now, &want);
        let ring = &now.vips[&want.vips[0].key];
        let got = (plan.rings[0].2.len(), ring.idle_moved);
        assert_eq!(got, (marks, before), "{members:?} at {at} s");
    }
}

#[test]
fn an_agent_that_starts_in_mid_move_goes_on_with_it() {
    let mut maps = Maps::default();
    let (now, _) = step(
        &mut maps,
        &Published::new(SIZES),
        &wanted(vec![vip(1, &[1, 2])]),
    );
    let mut want = wanted(vec![vip(1, &[1, 2, 3])]);
    let key = want.vips[0].key;
    let (now, _) = step(&mut maps, &now, &want);
    // Nobody knows where the one before would have looked for hits of its last publish: the slots
    // count as hit when another one came.
    let mut adopted = adopt(&maps, 30);
    assert_eq!(adopted.vips[&key].moving, now.vips[&key].moving);
    for (at, moves) in [(30, true), (60, true), (89, true), (90, false)] {
        want.clock.now = at;
        (adopted, _) = step(&mut maps, &adopted, &want);
        assert_eq!(!adopted.is_settled(&key), moves, "at {at} s");
    }
    assert_eq!(adopted.owners(&key).len(), 3);

    // Nor do they move for longer than any others.
    want.vips[0].table = Table::Rendezvous;
    want.clock.now = 100;
    step(&mut maps, &adopted, &want);
    for (at, moves) in [(999, true), (1000, false)] {
        want.clock.now = at;
        let adopted = adopt(&maps, 990);
        let (adopted, _) = step(&mut maps, &adopted, &want);
        assert_eq!(!adopted.is_settled(&key), moves, "at {at} s");
    }
}
