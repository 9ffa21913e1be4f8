//! Ten thousand live connections stay whole while everything around them changes.
//!
//! All of them talk all the time, each every two seconds, and every byte is compared
//! ([`tests::crowd`]). After each change everybody must have been answered, nobody may have been reset
//! or have waited for more than a second longer than those who do not pass the balancer, and the
//! backends must not have met a packet of a connection they do not know ([`Play::act`]). Only the
//! connections of a backend that was removed or has failed may die.

use std::time::{Duration, Instant};

use tests::other_build;

use self::play::{Play, RETRY_MAX, moving, untracked};
use crate::stage::pass;

mod play;

/// Connections that are there before anything changes.
const CONNECTIONS: usize = 10_000;

/// Connections that are opened after a change, on slots that move too.
const LATE_CONNECTIONS: usize = 100;

/// Slots of the ring.
const SLOTS: f64 = 65_537.0;

/// A share of the ring that is somebody's and not an accident.
const SLOTS_MANY: u32 = 5_000;

/// How long the agent stays dead.
const DEAD: Duration = Duration::from_secs(3);

/// How long the balancer's interface is down: longer than it takes to declare a backend dead.
const OUTAGE: Duration = Duration::from_secs(4);

/// When the interface is up again, TCP has to try again by itself. Ten thousand connections do so in
/// the same moments, and a queue between namespaces holds 256 packets: some try twice.
const RETRANSMISSION: Duration = RETRY_MAX.saturating_mul(2);

/// The same where the hosts' kernel cannot be told when to try again (before Linux 6.15). After a
/// second in vain TCP has tried at 0.2, 0.6 and 1.4 s, and at 3.0 and 6.2 s once more.
const OUTAGE_BRIEF: Duration = Duration::from_secs(1);
const RETRANSMISSION_SLOW: Duration = Duration::from_secs(6);

#[test]
fn ten_thousand_live_connections_outlive_every_change() {
    if !crate::balancer_granted() {
        return;
    }
    let mut play = Play::begin();
    play.act("nothing", |play| {
        play.open_controls();
        let spread = play.open(CONNECTIONS);
        assert_eq!(spread.len(), 5, "{spread:?}");
    });
    assert!(
        untracked(&play.stats()),
        "settled slots track nobody: {:#?}",
        play.stats()
    );
    planned_changes(&mut play);
    crash_and_upgrade(&mut play);
    interface_down_and_up(&mut play);
    losses(&mut play);
    play.end();
}

fn planned_changes(play: &mut Play) {
    play.act("a backend drained", |play| {
        play.weir(&["backend", "drain", "web", "backend-1"]);
        play.wait_for("backend-1", |one| one.slots == 0);
        let late = play.open(LATE_CONNECTIONS);
        assert!(!late.contains_key("backend-1"), "{late:?}");
    });
    play.act("the same undrained", |play| {
        play.weir(&["backend", "undrain", "web", "backend-1"]);
        // Its slots wait until they have settled with the others.
        play.wait_for("backend-1", |one| one.slots > SLOTS_MANY);
        let late = play.open(LATE_CONNECTIONS);
        assert!(late.contains_key("backend-1"), "{late:?}");
    });
    play.act("a backend added", |play| {
        play.add_the_sixth();
        play.wait_for("backend-6", |one| one.slots > SLOTS_MANY);
        let late = play.open(LATE_CONNECTIONS);
        assert!(late.contains_key("backend-6"), "{late:?}");
    });
    // The shares of one backend in six: 16.7 %, 15.8 %, 5.8 %, 39.0 %.
    for (weight, percent) in [("94", 1.0), ("31", 10.0), ("320", 33.0)] {
        play.act(&format!("{percent} % re-weighted"), |play| {
            let before = moving(&play.stats());
            play.weir(&["backend", "weight", "web", "backend-2", weight]);
            let moved = moving(&play.stats()).saturating_sub(before);
            let moved = f64::from(moved) * 100.0 / SLOTS;
            let expected = percent * 0.5..percent * 2.0;
            assert!(expected.contains(&moved), "{moved} % of the slots moved");
            play.open(LATE_CONNECTIONS);
        });
    }
}

fn crash_and_upgrade(play: &mut Play) {
    play.act("the agent killed in mid-move, and started again", |play| {
        play.weir(&["backend", "weight", "web", "backend-2", "100"]);
        let before = moving(&play.stats());
        assert!(f64::from(before) > SLOTS / 10.0, "{before} slots move");
        play.stage.balancer.crash().unwrap();
        // New connections find their backends with nobody in control.
        play.open(LATE_CONNECTIONS);
        pass(DEAD);
        play.stage.balancer.start().unwrap();
        assert!(play.stage.balancer.status().unwrap().adopted);
        assert!(moving(&play.stats()) > before / 2, "moves go on");
    });
    play.act("the program replaced by another build", |play| {
        let objects = tempfile::tempdir().unwrap();
        other_build::write(objects.path()).unwrap();
        let before = play.stage.balancer.attachment().unwrap();
        play.stage.balancer.stop().unwrap();
        play.stage.balancer.load_objects_from(objects.path());
        play.stage.balancer.start().unwrap();
        let after = play.stage.balancer.attachment().unwrap();
        assert_eq!(after.link_id, before.link_id, "the link stays");
        assert_ne!(after.program_id, before.program_id);
        assert_ne!(after.program_tag, before.program_tag, "other instructions");
        play.open(LATE_CONNECTIONS);
    });
}

fn interface_down_and_up(play: &mut Play) {
    let (outage, retransmission) = if play.tcp_hurries {
        (OUTAGE, RETRANSMISSION)
    } else {
        (OUTAGE_BRIEF, RETRANSMISSION_SLOW)
    };
    play.forgive(retransmission);
    play.act("the interface down, and up again", |play| {
        let balancer = play.stage.balancer.host();
        let routers = balancer.addresses();
        balancer.ip("link set eth0 down").unwrap();
        pass(outage);
        play.crowd.count_from(Instant::now());
        // What the kernel forgets with the link, an operator's network configuration sets again.
        let (v4, v6, v6_router) = (routers.router_v4, routers.v6, routers.router_v6);
        balancer
            .ip(&format!(
                "link set eth0 up\n\
                 route replace default via {v4}\n\
                 addr replace {v6}/64 dev eth0 nodad\n\
                 route replace default via {v6_router}"
            ))
            .unwrap();
    });
    play.forgive(Duration::ZERO);
    play.act("nothing, afterwards", |play| {
        play.open(LATE_CONNECTIONS);
    });
}

fn losses(play: &mut Play) {
    play.act("a backend removed", |play| {
        play.lose("backend-5");
        play.weir(&["backend", "remove", "web", "backend-5"]);
        let late = play.open(LATE_CONNECTIONS);
        assert!(!late.contains_key("backend-5"), "{late:?}");
    });
    play.act("a backend's process killed", |play| {
        play.lose("backend-3");
        play.stage.backend("backend-3").process.crash().unwrap();
        play.wait_for("backend-3", |one| one.slots == 0);
        play.open(LATE_CONNECTIONS);
    });
    play.act("a backend's host cut off", |play| {
        play.lose("backend-4");
        let host = &play.stage.backend("backend-4").host;
        host.ip("link set eth0 down").unwrap();
        play.wait_for("backend-4", |one| one.slots == 0);
        play.open(LATE_CONNECTIONS);
    });
    for name in ["backend-3", "backend-5"] {
        assert_eq!(
            play.alive(name),
            0,
            "{name} is gone, and so are its connections"
        );
    }
}
