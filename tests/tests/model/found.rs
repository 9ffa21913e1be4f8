//! Worlds that random seeds have found, of which each was a loss that nobody could explain. They stay,
//! as short as they could be made.

use crate::property;
use crate::setup::Setup;
use crate::window::{Tally, Window};
use crate::world::{Edit, Step};

const WEB: usize = 0;
const SHOP: usize = 1;
const DNS: usize = 2;
const CHAT: usize = 3;
const BULK: usize = 4;

/// Little room, and clients who do not behave.
fn wild(seed: u64, every_s: u32, settle_deadline_s: u16, flows: u32, lost_of: u32) -> Setup {
    Setup {
        every_s,
        settle_deadline_s,
        exceptions: 16,
        flows,
        inserts_per_second: 5,
        lost_of,
        syns_again: true,
        ..Setup::calm(seed)
    }
}

fn edit(vip: usize, backend: u8, change: Edit) -> Step {
    Step::Change {
        vip,
        backend,
        change,
    }
}

fn crash(write: u32, down_s: u32) -> Step {
    Step::Crash { write, down_s }
}

fn track(vip: usize, by: usize) -> Step {
    Step::Track { vip, by }
}

const MOVING: usize = 0;
const FULL: usize = 1;
const NONE: usize = 2;

/// What has come of a world in which nothing happens that cannot be explained.
#[track_caller]
fn tally(setup: &Setup, steps: &[Step]) -> Tally {
    let world = property::live_through(setup, steps);
    let world = world.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(property::within_bounds(&world), "{:?}", world.wire.tally);
    world.wire.tally
}

/// A hit that came during the last publish of an agent was noted where its successor did not look.
#[test]
fn a_connection_is_heard_although_the_agent_dies_that_would_have_known_where_to_look() {
    let steps = [
        Step::Open { percent: 1 },
        Step::Fail {
            vip: CHAT,
            backend: 1,
        },
        edit(WEB, 8, Edit::Add(147)),
        Step::Resize {
            vip: SHOP,
            large: true,
        },
        edit(DNS, 1, Edit::Remove),
        Step::Again {
            count: 14,
            answer_lost: false,
        },
        crash(0, 14),
        crash(0, 9),
    ];
    let setup = wild(2_494_005_405_184_823_804, 11, 27, 16, 0);
    let tally = tally(&setup, &steps);
    let cut = [Window::Unseen, Window::Quiet].map(|window| tally.doomed(window));
    assert_eq!(cut, [0, 0], "{tally:?}");
}

/// Full tracking had remembered the flow; its slot had not, and forgot it a window later.
#[test]
fn a_udp_flow_that_was_tracked_otherwise_goes_when_time_says_so() {
    let steps = [
        track(DNS, FULL),
        edit(WEB, 1, Edit::Add(1)),
        edit(DNS, 2, Edit::Drain(true)),
        Step::Wait { seconds: 8 },
        track(DNS, MOVING),
        crash(0, 4),
    ];
    let setup = wild(217_569_634_317_547_174, 5, 39, 33, 2);
    let tally = tally(&setup, &steps);
    assert_eq!(tally.doomed(Window::Reconfigured), 2, "{tally:?}");
}

/// A SYN was in flight while its backend was removed, and arrived when that one was back.
#[test]
fn a_connection_that_was_in_flight_to_a_lost_backend_is_lost() {
    let steps = [
        Step::Close { percent: 100 },
        edit(SHOP, 2, Edit::Remove),
        edit(SHOP, 2, Edit::Add(100)),
    ];
    let setup = Setup {
        packets: 60,
        ..Setup::calm(2)
    };
    let tally = tally(&setup, &steps);
    assert_eq!(tally.doomed(Window::Straggler), 1, "{tally:?}");
}

/// Its SYN was sent again when the slot moved; the slot settled, and that was taken back.
#[test]
fn a_connection_that_is_spared_by_what_is_taken_back_is_as_lost_as_before() {
    let steps = [
        edit(WEB, 1, Edit::Add(1)),
        edit(SHOP, 6, Edit::Add(2)),
        Step::Packets { count: 25 },
        edit(WEB, 1, Edit::Remove),
        edit(CHAT, 1, Edit::Weight(107)),
        Step::Packets { count: 112 },
        Step::Refuse { write: 4 },
        Step::Wait { seconds: 27 },
    ];
    let setup = wild(5_524_075_563_128_793_189, 16, 20, 16, 1);
    let tally = tally(&setup, &steps);
    // Its SYN was sent again.
    assert_eq!(tally.doomed(Window::Handshake), 1, "{tally:?}");
}

/// A datagram was in flight while its backend was removed, and full tracking remembered it.
#[test]
fn a_flow_that_was_in_flight_to_a_lost_backend_is_remembered_until_the_table_is_swept() {
    let steps = [
        edit(DNS, 3, Edit::Remove),
        Step::Again {
            count: 10,
            answer_lost: false,
        },
        Step::Wait { seconds: 4 },
        Step::Wait { seconds: 8 },
        edit(WEB, 4, Edit::Weight(50)),
        Step::Flood {
            vip: WEB,
            count: 177,
        },
        Step::Flood {
            vip: WEB,
            count: 68,
        },
        Step::Wait { seconds: 13 },
        edit(CHAT, 7, Edit::Add(2)),
        edit(CHAT, 7, Edit::Drain(true)),
        Step::Open { percent: 15 },
        Step::Wait { seconds: 16 },
        Step::Wait { seconds: 16 },
        Step::Flood {
            vip: WEB,
            count: 113,
        },
        track(DNS, FULL),
        Step::Resize {
            vip: WEB,
            large: true,
        },
        Step::Forge { count: 3 },
        Step::Open { percent: 16 },
        edit(DNS, 4, Edit::Remove),
        Step::Open { percent: 44 },
    ];
    let setup = wild(715_424_041_291_935_335, 1, 20, 33, 2);
    let tally = tally(&setup, &steps);
    assert_eq!(tally.refused_strayed, 1, "{tally:?}");
}

/// A VIP looked down with all its backends, so that flows were led to one that had really failed; full
/// tracking kept them there when their slot had another owner.
#[test]
fn a_flow_is_remembered_where_the_panic_rule_has_led_it() {
    let panics = [
        Step::Fail {
            vip: DNS,
            backend: 4,
        },
        track(DNS, FULL),
        Step::CutOff {
            vip: DNS,
            from: true,
        },
        Step::Open { percent: 1 },
        Step::Wait { seconds: 4 },
        edit(DNS, 4, Edit::Weight(32)),
        Step::Wait { seconds: 20 },
        Step::Wait { seconds: 1 },
    ];
    let open = Step::Open { percent: 72 };
    let setup = wild(46_491_774_602_628_343, 15, 20, 33, 2);
    let steps = [&panics[..], std::slice::from_ref(&open)].concat();
    let refused = tally(&setup, &steps).refused_unnoticed;
    assert!(refused > 0, "nobody was led there again");
    // As soon as the panic is over the failed one is given up, and with it what was remembered.
    let over = [
        Step::CutOff {
            vip: DNS,
            from: false,
        },
        open,
    ];
    let steps = [&panics[..], &over].concat();
    assert_eq!(tally(&setup, &steps).refused_unnoticed, 0);
}

/// The entry of a connection was forgotten while its slot looked settled, and that was taken back.
#[test]
fn a_connection_that_is_forgotten_in_a_publish_that_is_undone_is_lost_afterwards() {
    let again = |count| Step::Again {
        count,
        answer_lost: false,
    };
    let flood = |count| Step::Flood { vip: WEB, count };
    let packets = |count| Step::Packets { count };
    let open = |percent| Step::Open { percent };
    let steps = [
        flood(82),
        track(DNS, FULL),
        Step::Close { percent: 33 },
        again(7),
        crash(0, 0),
        Step::Fail {
            vip: CHAT,
            backend: 1,
        },
        edit(WEB, 5, Edit::Weight(2)),
        open(8),
        flood(144),
        track(BULK, FULL),
        edit(CHAT, 1, Edit::Weight(199)),
        open(67),
        Step::Return {
            vip: CHAT,
            backend: 1,
        },
        open(5),
        packets(69),
        edit(CHAT, 3, Edit::Drain(true)),
        edit(WEB, 4, Edit::Weight(201)),
        packets(143),
        packets(106),
        open(22),
        edit(DNS, 4, Edit::Drain(true)),
        Step::Refuse { write: 7 },
        Step::Forge { count: 4 },
        packets(184),
        Step::Fail {
            vip: SHOP,
            backend: 3,
        },
        edit(CHAT, 4, Edit::Remove),
        again(6),
        open(26),
        Step::Wait { seconds: 27 },
    ];
    let setup = wild(2_559_954_031_063_876_280, 24, 20, 16, 2);
    let tally = tally(&setup, &steps);
    assert!(tally.doomed(Window::Forgotten) > 0, "{tally:?}");
}

/// A publish was refused after one of its flips, and the next one wrote at once where packets in
/// flight had been led.
#[test]
fn what_was_taken_back_is_not_overwritten_while_packets_may_see_it() {
    let steps = [
        Step::Flood { vip: WEB, count: 8 },
        Step::Fail {
            vip: WEB,
            backend: 1,
        },
        Step::Packets { count: 157 },
        Step::Open { percent: 1 },
        Step::Flood {
            vip: WEB,
            count: 101,
        },
        Step::Fail {
            vip: WEB,
            backend: 2,
        },
        Step::Forge { count: 1 },
        edit(SHOP, 6, Edit::Add(2)),
        Step::Again {
            count: 17,
            answer_lost: false,
        },
        Step::Wait { seconds: 8 },
        track(BULK, MOVING),
        Step::Fail {
            vip: SHOP,
            backend: 1,
        },
        edit(WEB, 3, Edit::Weight(2)),
        edit(WEB, 1, Edit::Drain(false)),
        edit(DNS, 6, Edit::Add(2)),
        edit(BULK, 7, Edit::Add(2)),
        crash(0, 7),
        Step::Flood {
            vip: WEB,
            count: 148,
        },
        Step::Refuse { write: 7 },
        Step::Wait { seconds: 12 },
    ];
    let setup = wild(30_963_897_474_666_192, 7, 26, 16, 0);
    let tally = tally(&setup, &steps);
    assert!(tally.torn > 0, "{tally:?}");
}

/// A slot moved to a backend, lost it, and moved to another one with its id, all in one second.
#[test]
fn two_moves_of_a_second_are_taken_for_one() {
    let steps = [
        edit(WEB, 3, Edit::Remove),
        edit(WEB, 1, Edit::Add(1)),
        Step::Open { percent: 1 },
        Step::Flood {
            vip: WEB,
            count: 11,
        },
        Step::Packets { count: 160 },
        Step::Forge { count: 2 },
        Step::Packets { count: 33 },
        Step::Wait { seconds: 1 },
        Step::Fail {
            vip: SHOP,
            backend: 2,
        },
        Step::Packets { count: 22 },
        Step::Forge { count: 1 },
        crash(0, 1),
        Step::Close { percent: 11 },
        edit(WEB, 9, Edit::Add(137)),
        Step::Refuse { write: 2 },
        Step::Again {
            count: 1,
            answer_lost: false,
        },
        Step::Packets { count: 59 },
        edit(WEB, 9, Edit::Remove),
        Step::Grace,
        Step::Packets { count: 97 },
        edit(WEB, 8, Edit::Add(30)),
    ];
    let setup = wild(9_359_448_835_491_250_411, 1, 20, 16, 6);
    let tally = tally(&setup, &steps);
    assert_eq!(tally.doomed(Window::Mistaken), 1, "{tally:?}");
}

/// Full tracking forgot the flows of a VIP with its flip, while packets in flight still asked for them;
/// those then met the previous owner of their slots.
#[test]
fn what_full_tracking_knew_is_there_for_packets_that_were_in_flight_when_it_ended() {
    // Connections are of the slots' current owners, also on those that move.
    let steps = [
        edit(CHAT, 1, Edit::Drain(true)),
        Step::Close { percent: 100 },
        Step::Open { percent: 100 },
        track(CHAT, NONE),
        Step::Grace,
    ];
    for seed in 0..20 {
        let setup = Setup {
            packets: 30,
            ..Setup::calm(seed)
        };
        let tally = tally(&setup, &steps);
        assert!(tally.torn > 0, "{tally:?}");
    }
}

/// The model refused the agent what nobody can refuse: to forget flows, in memory of its own.
#[test]
fn flows_of_a_lost_backend_are_forgotten_whatever_is_refused() {
    for write in 0..4 {
        let removed = [
            track(DNS, FULL),
            Step::Wait { seconds: 6 },
            Step::Refuse { write },
            edit(DNS, 1, Edit::Remove),
        ];
        let before = tally(&Setup::calm(1), &removed);
        let open = Step::Open { percent: 100 };
        let after = tally(&Setup::calm(1), &[&removed[..], &[open]].concat());
        assert!(before.lost > 0, "at {write}: {before:?}");
        assert_eq!(after.refused, before.refused, "at {write}: {after:?}");
    }
}

/// The agent died when it had given up a backend and not yet forgotten its flows.
#[test]
fn flows_of_a_lost_backend_are_remembered_until_there_is_an_agent_again() {
    let fail = Step::Fail {
        vip: DNS,
        backend: 1,
    };
    let died = [
        track(DNS, FULL),
        Step::Wait { seconds: 6 },
        Step::Refuse { write: 0 },
        fail,
        crash(2, 1),
    ];
    let setup = Setup {
        packets: 1_000,
        ..Setup::calm(1)
    };
    let before = tally(&setup, &died);
    assert!(before.refused_unnoticed > 0, "nobody was led there again");
    let open = Step::Open { percent: 100 };
    let after = tally(&setup, &[&died[..], &[open]].concat());
    assert_eq!(after.refused, before.refused, "{after:?}");
}

/// A slot was given to another owner at once, and kept a mark that meant nothing; a move that began in
/// second 0 of the marks' 2^16 took that for a mark of its own, and no hit for a later one.
#[test]
fn a_move_that_begins_in_second_0_is_heard() {
    let fail = Step::Fail {
        vip: WEB,
        backend: 1,
    };
    let steps = [
        edit(WEB, 3, Edit::Drain(true)),
        Step::Wait { seconds: 26 },
        // The next agent takes what moves as heard when it comes.
        crash(0, 1),
        fail,
        Step::Open { percent: 100 },
        Step::Wait { seconds: 3 },
        edit(WEB, 2, Edit::Drain(true)),
        Step::Wait { seconds: 30 },
    ];
    let tally = tally(&Setup::calm(1), &steps);
    assert!(tally.tcp.doomed.is_empty(), "{tally:?}");
}

/// A backend was lost and came back within the second in which slots had begun to move to it.
#[test]
fn a_backend_that_is_back_within_a_second_is_taken_for_the_one_that_was_lost() {
    let open = Step::Open { percent: 100 };
    let moved_and_lost = [
        Step::Close { percent: 100 },
        edit(WEB, 7, Edit::Add(100)),
        // These are remembered as the new backend's, and open again when it is lost.
        open.clone(),
        Step::Fail {
            vip: WEB,
            backend: 7,
        },
        open,
    ];
    let back = Step::Return {
        vip: WEB,
        backend: 7,
    };
    let wait = Step::Wait { seconds: 1 };
    let calm = Setup::calm(1);
    let soon = [&moved_and_lost[..], std::slice::from_ref(&back)].concat();
    let later = [&moved_and_lost[..], &[wait, back]].concat();
    let mistaken = [soon, later].map(|steps| tally(&calm, &steps).doomed(Window::Mistaken));
    assert!(mistaken[0] > 0 && mistaken[1] == 0, "{mistaken:?}");
}

/// A SYN was in flight while a VIP changed that nobody tracked then, and arrived when somebody did.
#[test]
fn what_was_in_flight_while_nobody_tracked_it_is_untracked() {
    let steps = [
        Step::Close { percent: 100 },
        edit(BULK, 6, Edit::Add(100)),
        track(BULK, MOVING),
        Step::Grace,
    ];
    let untracked = |seed| {
        let setup = Setup {
            packets: 10,
            ..Setup::calm(seed)
        };
        tally(&setup, &steps).doomed(Window::Untracked)
    };
    assert!((0..100).map(untracked).sum::<u64>() > 0, "nobody was");
}
