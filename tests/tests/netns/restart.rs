//! The data plane outlives the agent: a crash is not felt, and a restart takes over what is there.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tests::service::{PATTERN_BLOCK_BYTES, pattern_block};
use tests::wait;

use crate::flow::Connection;
use crate::stage::{Mode, PORT, SETTLE_LIMIT, Stage, VIP_V4};

const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(VIP_V4), PORT);

/// How long the transfer lasts.
const TRANSFER: Duration = Duration::from_secs(60);

/// When within the transfer the agent is killed, and when it is started again.
const CRASH_AT: Duration = Duration::from_secs(15);
const RESTART_AT: Duration = Duration::from_secs(35);

/// The rest between two blocks: some 3 MB/s, so that the machine stays usable for other tests.
const BLOCK_PAUSE: Duration = Duration::from_millis(20);

#[test]
fn a_transfer_outlives_the_agent_and_a_restart_takes_over() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("restart", Mode::Ipip, 2);
    let vip = stage.tunnel_vip("web", "tcp");
    stage.start(&[vip]);
    let first = stage.balancer.status().unwrap();
    assert!(!first.adopted, "nothing was there to take over: {first:?}");

    let connection = Connection::open(&stage.client, VIP).unwrap();
    let started = Instant::now();
    let transfer = std::thread::spawn(move || transfer(connection));

    at(started, CRASH_AT);
    let before = stage.balancer.stats().unwrap();
    stage.balancer.crash().unwrap();
    // New connections too find their backends with nobody in control.
    assert!(Connection::open(&stage.client, VIP).is_ok());

    at(started, RESTART_AT);
    stage.balancer.start().unwrap();
    stage
        .balancer
        .wait_for_owners("web", SETTLE_LIMIT, |_| true)
        .unwrap();
    let second = stage.balancer.status().unwrap();
    assert!(second.adopted, "{second:?}");
    assert_ne!(second.pid, first.pid);
    let after = stage.balancer.stats().unwrap();
    assert!(
        after.packets > before.packets,
        "counters go on: {before:?} {after:?}"
    );
    assert!(
        after.vips[0].packets > before.vips[0].packets,
        "{before:?} {after:?}"
    );

    let blocks = transfer.join().unwrap();
    assert!(started.elapsed() >= TRANSFER);
    // Every block is on its way twice, but only requests pass the balancer.
    let sent = blocks * PATTERN_BLOCK_BYTES as u64;
    let stats = stage.balancer.stats().unwrap();
    assert!(
        stats.vips[0].bytes > sent,
        "{sent} bytes were sent: {stats:?}"
    );
}

/// Sends blocks and compares what comes back, for as long as the transfer lasts.
fn transfer(mut connection: Connection) -> u64 {
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < TRANSFER {
        let block = pattern_block(number);
        let echoed = connection.exchange(&block).unwrap();
        assert!(echoed == block, "block {number} came back changed");
        number += 1;
        std::thread::park_timeout(BLOCK_PAUSE);
    }
    connection.close().unwrap();
    number
}

fn at(started: Instant, offset: Duration) {
    let what = format!("{offset:?} of the transfer to pass");
    wait::until(&what, TRANSFER, || {
        (started.elapsed() >= offset).then_some(())
    })
    .unwrap();
}
