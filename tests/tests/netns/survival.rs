//! Live connections stay whole while everything around them changes.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use lb_userspace::api::types::Stats;
use tests::wait;

use crate::flow::Connection;
use crate::stage::{Mode, PORT, SETTLE_LIMIT, Stage, VIP_V4};

const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(VIP_V4), PORT);

/// Connections that are there before anything changes, over all threads.
const CONNECTIONS: usize = 300;

/// Connections that are opened on moving slots.
const LATE_CONNECTIONS: usize = 60;

/// Threads that the first ones are spread over.
const THREADS: usize = 4;

/// The rest after a turn through all connections of a thread.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest that a connection may wait for its echo.
const STALL_MAX: Duration = Duration::from_secs(1);

/// Slots without traffic settle within the test, those with live connections do not.
const SETTINGS: &str = "settle_after = \"2s\"";

/// How long things are left alone after each change.
const REST: Duration = Duration::from_secs(3);

/// How a thread's connections fared.
struct Report {
    exchanges: usize,
    longest: Duration,
}

#[test]
fn live_connections_outlive_every_planned_change_and_a_crash_in_mid_move() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("survival", Mode::Ipip, 4);
    stage.balancer.set(SETTINGS);
    let all = stage.tunnel_vip("web", "tcp");
    let mut three = all.clone();
    three.backends.pop();
    stage.start(std::slice::from_ref(&three));

    let stop = AtomicBool::new(false);
    let mut first = open(&stage, CONNECTIONS);
    assert!(first.iter().any(|one| one.backend == "backend-1"));
    std::thread::scope(|scope| {
        // Whatever ends this scope ends the threads too.
        let _stopper = Stopper(&stop);
        let mut threads: Vec<ScopedJoinHandle<'_, Report>> = (0..THREADS)
            .map(|_| {
                let share = first.split_off(first.len().saturating_sub(CONNECTIONS / THREADS));
                scope.spawn(|| talk(share, &stop))
            })
            .collect();
        rest();

        // Added: a quarter of the slots moves to a fourth backend.
        stage
            .balancer
            .configure(std::slice::from_ref(&all))
            .unwrap();
        stage.balancer.weir(&["reload"]).unwrap();
        stage
            .balancer
            .wait_for_owners("web", SETTLE_LIMIT, |_| true)
            .unwrap();
        assert!(moving(&stage.balancer.stats().unwrap()) > 0);
        let late = open(&stage, LATE_CONNECTIONS);
        assert!(late.iter().any(|one| one.backend == "backend-4"));
        threads.push(scope.spawn(|| talk(late, &stop)));
        rest();

        // Drained: it keeps its connections and gets no new ones.
        stage
            .balancer
            .weir(&["backend", "drain", "web", "backend-1"])
            .unwrap();
        stage
            .balancer
            .wait_for_owners("web", SETTLE_LIMIT, |name| name != "backend-1")
            .unwrap();
        let later = open(&stage, LATE_CONNECTIONS);
        assert!(later.iter().all(|one| one.backend != "backend-1"));
        threads.push(scope.spawn(|| talk(later, &stop)));
        rest();

        // Re-weighted, and killed in mid-move.
        stage
            .balancer
            .weir(&["backend", "weight", "web", "backend-2", "67"])
            .unwrap();
        let before = moving(&stage.balancer.stats().unwrap());
        assert!(before > 0);
        stage.balancer.crash().unwrap();
        rest();
        stage.balancer.start().unwrap();
        assert!(stage.balancer.status().unwrap().adopted);
        rest();

        // Undrained: what still moves waits.
        stage
            .balancer
            .weir(&["backend", "undrain", "web", "backend-1"])
            .unwrap();
        stage
            .balancer
            .wait_for_owners("web", SETTLE_LIMIT, |_| true)
            .unwrap();
        rest();

        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let report = thread.join().unwrap();
            assert!(report.exchanges > 100, "{}", report.exchanges);
            assert!(
                report.longest < STALL_MAX,
                "a stall of {:?}",
                report.longest
            );
        }
    });
    accounted(&stage.balancer.stats().unwrap());
    // With nobody talking any more, every slot settles.
    wait::until("all slots to settle", SETTLE_LIMIT, || {
        (moving(&stage.balancer.stats().ok()?) == 0).then_some(())
    })
    .unwrap();
}

/// Ends the threads, also when an assertion has failed.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn open(stage: &Stage, number: usize) -> Vec<Connection> {
    let connection = |_| Connection::open(&stage.client, VIP).unwrap();
    (0..number).map(connection).collect()
}

/// Sends something else over each connection in turn and compares what comes back, until told to stop.
fn talk(mut connections: Vec<Connection>, stop: &AtomicBool) -> Report {
    let mut report = Report {
        exchanges: 0,
        longest: Duration::ZERO,
    };
    while !stop.load(Ordering::Relaxed) {
        for connection in &mut connections {
            let payload = format!("{} {}", connection.backend, report.exchanges);
            let sent = Instant::now();
            let echoed = connection.exchange(payload.as_bytes());
            let echoed = echoed.unwrap_or_else(|error| panic!("{payload}: {error}"));
            assert_eq!(echoed, payload.as_bytes());
            report.longest = report.longest.max(sent.elapsed());
            report.exchanges += 1;
        }
        std::thread::park_timeout(PAUSE);
    }
    for connection in connections {
        connection.close().unwrap();
    }
    report
}

/// Lets traffic flow on: what is measured is that nothing happens.
fn rest() {
    let started = Instant::now();
    wait::until("a rest", 2 * REST, || {
        (started.elapsed() >= REST).then_some(())
    })
    .unwrap();
}

fn moving(stats: &Stats) -> u32 {
    stats.vips.iter().map(|vip| vip.slots_moving).sum()
}

/// Exceptions were needed, all of them could be made, and nothing was dropped.
fn accounted(stats: &Stats) {
    let event = |name: &str| {
        let found = stats.tracking.iter().find(|event| event.name == name);
        found.unwrap().count
    };
    assert!(event("insert") > 0 && event("hit") > 0, "{stats:#?}");
    assert_eq!((event("over_budget"), event("insert_failed")), (0, 0));
    let dropped = stats.reasons.iter().filter(|one| one.action == "drop");
    assert!(
        dropped.map(|one| one.packets).sum::<u64>() == 0,
        "{stats:#?}"
    );
}
