//! One world for each window: it is reached, by its cause alone, and counted. And worlds in which
//! nobody is to notice anything.

use std::collections::BTreeSet;

use crate::setup::Setup;
use crate::window::Window;
use crate::world::{Edit, Step, World};

const WEB: usize = 0;
const SHOP: usize = 1;
const DNS: usize = 2;
const CHAT: usize = 3;
const BULK: usize = 4;

/// All clients of 60 open a connection, to any VIP; then the steps happen.
fn world(setup: &Setup, steps: &[Step]) -> World {
    let mut world = World::new(setup);
    world.step(&Step::Open { percent: 100 });
    for step in steps {
        world.step(step);
        assert_eq!(world.failure(), None, "after {step:?}");
    }
    world
}

/// Asserts that flows were doomed in `window` and no other one. Returns how many.
#[track_caller]
fn only(world: &World, window: Window) -> u64 {
    let tally = &world.wire.tally;
    let doomed = tally.tcp.doomed.keys().chain(tally.udp.doomed.keys());
    let doomed: BTreeSet<Window> = doomed.copied().collect();
    assert_eq!(doomed, BTreeSet::from([window]), "{tally:?}");
    tally.doomed(window)
}

#[track_caller]
fn nothing(world: &World) {
    let tally = &world.wire.tally;
    assert!(
        tally.tcp.doomed.is_empty() && tally.udp.doomed.is_empty(),
        "{tally:?}"
    );
}

fn drain(vip: usize, backend: u8) -> Step {
    edit(vip, backend, Edit::Drain(true))
}

fn edit(vip: usize, backend: u8, change: Edit) -> Step {
    Step::Change {
        vip,
        backend,
        change,
    }
}

/// Clients who do nothing but what the steps say.
fn still(seed: u64) -> Setup {
    Setup {
        packets: 0,
        ..Setup::calm(seed)
    }
}

#[test]
fn a_deadline_cuts_connections_that_go_on() {
    let setup = Setup {
        settle_deadline_s: 20,
        ..still(1)
    };
    let steps = [drain(WEB, 1), Step::Wait { seconds: 19 }];
    nothing(&world(&setup, &steps));
    let steps = [drain(WEB, 1), Step::Wait { seconds: 26 }];
    let world = world(&setup, &steps);
    let cut = only(&world, Window::Deadline);
    // The backend had a fifth of 60 connections, and each was used again.
    assert!((1..=24).contains(&cut), "{cut}");
    assert_eq!(world.wire.tally.tcp.broken[&Window::Deadline], cut);
}

#[test]
fn a_quiet_connection_is_cut_and_the_others_of_its_slots_are_not() {
    let setup = Setup {
        every_s: 50,
        ..still(2)
    };
    let steps = [drain(WEB, 1), Step::Wait { seconds: 100 }];
    only(&world(&setup, &steps), Window::Quiet);
    let steps = [drain(CHAT, 1), Step::Wait { seconds: 100 }];
    nothing(&world(&setup, &steps));
}

#[test]
fn connections_over_the_budget_are_forgotten() {
    let setup = Setup {
        inserts_per_second: 2,
        ..still(3)
    };
    let steps = [
        Step::Close { percent: 90 },
        drain(WEB, 1),
        drain(WEB, 2),
        Step::Open { percent: 100 },
        Step::Wait { seconds: 6 },
    ];
    only(&world(&setup, &steps), Window::Forgotten);
}

#[test]
fn evicted_connections_are_forgotten() {
    let setup = Setup {
        exceptions: 4,
        ..still(4)
    };
    let steps = [
        Step::Close { percent: 100 },
        drain(WEB, 1),
        drain(WEB, 2),
        Step::Open { percent: 100 },
        Step::Wait { seconds: 6 },
    ];
    only(&world(&setup, &steps), Window::Forgotten);
}

#[test]
fn full_tracking_forgets_under_a_flood_those_that_a_change_had_moved() {
    let setup = Setup {
        flows: 64,
        clients: 10,
        ..still(5)
    };
    let calm = [drain(CHAT, 1), drain(CHAT, 2), Step::Wait { seconds: 60 }];
    nothing(&world(&setup, &calm));
    let flood = Step::Flood {
        vip: CHAT,
        count: 2_000,
    };
    let steps = [
        drain(CHAT, 1),
        drain(CHAT, 2),
        Step::Close { percent: 100 },
        Step::Open { percent: 100 },
        Step::Wait { seconds: 1 },
        flood,
    ];
    only(&world(&setup, &steps), Window::Forgotten);
}

#[test]
fn somebody_elses_syn_takes_a_connection_along_on_a_slot_that_moves() {
    let forge = Step::Forge { count: 200 };
    nothing(&world(&still(6), std::slice::from_ref(&forge)));
    let world = world(&still(6), &[drain(WEB, 1), forge]);
    assert!(only(&world, Window::Reopened) <= world.wire.tally.forged);
}

#[test]
fn a_syn_that_is_sent_again_across_a_change_meets_another_backend() {
    for (answer_lost, doomed) in [(false, true), (true, false)] {
        let again = Step::Again {
            count: 200,
            answer_lost,
        };
        let world = world(&still(7), &[drain(WEB, 1), again]);
        if doomed {
            assert!(only(&world, Window::Handshake) <= world.wire.tally.syns_again);
        } else {
            nothing(&world);
        }
    }
}

#[test]
fn a_packet_that_comes_while_its_slot_is_being_settled_comes_too_late() {
    let setup = Setup {
        every_s: 1_000,
        packets: 300,
        clients: 12,
        ..Setup::calm(8)
    };
    let steps = [drain(WEB, 1), drain(WEB, 2), Step::Wait { seconds: 30 }];
    let mut unseen = 0;
    for seed in 8..16 {
        let world = world(
            &Setup {
                seed,
                ..setup.clone()
            },
            &steps,
        );
        let tally = &world.wire.tally;
        unseen += tally.doomed(Window::Unseen);
        assert!(tally.doomed(Window::Unseen) <= tally.untimely, "{tally:?}");
    }
    assert!(unseen > 0, "nobody came too late");
}

#[test]
fn what_is_in_flight_to_a_backend_that_is_lost_is_lost_too() {
    let setup = Setup {
        every_s: 1_000,
        packets: 30,
        ..Setup::calm(17)
    };
    // Full tracking remembers such a flow for a moment; clients try again at once.
    let steps = [
        Step::Close { percent: 100 },
        edit(WEB, 1, Edit::Remove),
        edit(WEB, 1, Edit::Add(100)),
        Step::Close { percent: 100 },
        Step::Track { vip: DNS, by: 1 },
        edit(DNS, 1, Edit::Remove),
        Step::Open { percent: 100 },
    ];
    let (mut lost, mut refused) = (0, 0);
    for seed in 17..57 {
        let setup = Setup {
            seed,
            ..setup.clone()
        };
        let tally = world(&setup, &steps).wire.tally;
        assert!(
            tally.doomed(Window::Straggler) <= tally.stragglers,
            "{tally:?}"
        );
        lost += tally.doomed(Window::Straggler);
        refused += tally.refused_strayed;
    }
    assert!(lost > 0 && refused > 0, "{lost} lost, {refused} refused");
    // When the packets of that moment are through, and the table is swept, nobody is refused.
    for seed in 17..57 {
        let setup = Setup {
            seed,
            ..setup.clone()
        };
        let mut world = world(&setup, &steps[..6]);
        world.step(&Step::Grace);
        world.step(&Step::Grace);
        let refused = world.wire.tally.refused_strayed;
        world.step(&steps[6]);
        assert_eq!(world.failure(), None);
        assert_eq!(world.wire.tally.refused_strayed, refused);
    }
}

#[test]
fn connections_that_began_in_a_publish_which_is_taken_back_go_with_it() {
    // Both slots settle in one publish: two rings, one flip, and the second one is refused.
    let setup = Setup {
        every_s: 1_000,
        packets: 300,
        ..Setup::calm(9)
    };
    let steps = [
        Step::Close { percent: 100 },
        drain(SHOP, 1),
        drain(WEB, 1),
        Step::Close { percent: 100 },
        Step::Refuse { write: 3 },
        Step::Wait { seconds: 13 },
    ];
    let world = world(&setup, &steps);
    assert!(world.wire.faults.takings_back > 0, "nothing was taken back");
    let tally = &world.wire.tally;
    assert!(tally.tcp.doomed.contains_key(&Window::Undone), "{tally:?}");
}

/// Packets leave while the flip is being taken back, and arrive after that.
#[test]
fn what_is_in_flight_while_a_publish_is_taken_back_goes_with_it() {
    let steps = [
        Step::Close { percent: 100 },
        drain(SHOP, 1),
        drain(WEB, 1),
        Step::Close { percent: 100 },
        Step::Refuse { write: 3 },
        Step::Wait { seconds: 13 },
    ];
    assert!(undone(&steps, 20) > 0, "nobody was in flight");
}

/// Slots settle and move on in one publish. What their live connections leave there is of the second
/// move, and the first one is back.
#[test]
fn connections_of_a_move_that_is_back_go_with_what_they_left_at_the_next_one() {
    let steps = [
        Step::Close { percent: 100 },
        drain(SHOP, 1),
        drain(WEB, 1),
        Step::Close { percent: 100 },
        Step::Open { percent: 100 },
        drain(SHOP, 2),
        drain(WEB, 2),
        Step::Refuse { write: 3 },
        Step::Wait { seconds: 13 },
    ];
    assert!(undone(&steps, 30) > 0, "no connection was there");
}

/// TCP connections that are *undone* in ten worlds of busy clients.
fn undone(steps: &[Step], seed: u64) -> u64 {
    let undone = |seed| {
        let setup = Setup {
            every_s: 1_000,
            packets: 300,
            ..Setup::calm(seed)
        };
        let world = world(&setup, steps);
        assert!(world.wire.faults.takings_back > 0, "nothing was taken back");
        let doomed = &world.wire.tally.tcp.doomed;
        doomed.get(&Window::Undone).copied().unwrap_or(0)
    };
    (seed..seed + 10).map(undone).sum()
}

#[test]
fn a_ring_of_another_size_moves_the_flows_of_its_vip() {
    let resize = Step::Resize {
        vip: WEB,
        large: true,
    };
    only(&world(&still(10), &[resize]), Window::Reconfigured);
}

#[test]
fn without_tracking_a_change_takes_effect_at_once() {
    let steps = [drain(BULK, 1)];
    only(&world(&still(11), &steps), Window::Untracked);
}

#[test]
fn the_last_backend_drains_like_the_others() {
    let removals = (2..=5).map(|backend| edit(WEB, backend, Edit::Remove));
    let drained = [drain(WEB, 1), Step::Wait { seconds: 20 }];
    let steps: Vec<Step> = removals.chain(drained).collect();
    let mut world = world(&Setup::calm(12), &steps);
    let stayed = live(&world, WEB);
    assert!(stayed > 0, "nobody stayed");
    world.step(&Step::Open { percent: 100 });
    assert_eq!(live(&world, WEB), stayed, "nobody takes new flows");
    world.step(&edit(WEB, 1, Edit::Drain(false)));
    world.step(&Step::Open { percent: 100 });
    assert!(live(&world, WEB) > stayed, "somebody takes new flows again");
    world.step(&Step::Wait { seconds: 20 });
    nothing(&world);
}

/// Live flows of a VIP.
fn live(world: &World, vip: usize) -> usize {
    let clients = world.wire.clients.iter();
    let live = clients.filter(|client| client.vip == vip && client.live.is_some());
    live.count()
}

#[test]
fn nobody_is_cut_while_the_balancer_itself_is() {
    let cut_off = |from| Step::CutOff { vip: WEB, from };
    let wait = Step::Wait { seconds: 60 };
    let steps = [cut_off(true), wait.clone(), cut_off(false), wait];
    let world = world(&Setup::calm(14), &steps);
    nothing(&world);
    assert_eq!(world.wire.tally.lost, 0);
}

#[test]
fn a_failure_is_that_of_one_vip() {
    // Backends of the same number share an address.
    let steps = [
        Step::Fail {
            vip: WEB,
            backend: 1,
        },
        Step::Wait { seconds: 60 },
    ];
    let world = world(&Setup::calm(13), &steps);
    nothing(&world);
    let clients = world.wire.clients.iter();
    let shared = clients.filter(|client| {
        let address = std::net::IpAddr::from([10, 0, 0, 1]);
        client.live.is_some_and(|live| live.backend == address)
    });
    let vips: BTreeSet<usize> = shared.map(|client| client.vip).collect();
    assert_eq!(vips, BTreeSet::from([DNS, CHAT, BULK]));
}

#[test]
fn full_tracking_forgets_the_flows_of_a_backend_that_is_lost() {
    let (vip, full) = (DNS, 1);
    let steps = [
        Step::Track { vip, by: full },
        Step::Close { percent: 100 },
        Step::Open { percent: 100 },
        Step::Fail { vip, backend: 1 },
        Step::Open { percent: 100 },
    ];
    let world = world(&still(15), &steps);
    assert!(world.wire.tally.lost > 0, "the backend had flows");
    assert_eq!(live(&world, DNS), 60, "all of them went on elsewhere");
}
