//! A backend that fails its health checks gets no new flows, and others notice nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::flow::Connection;
use crate::stage::{Mode, PORT, SETTLE_LIMIT, Stage, VIP_V4};

const VIP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VIP_V4), PORT);

/// A dead process refuses at once, so patience costs nothing here.
const HEALTH: &str =
    "{ tcp = true, port = 7100, every = \"1s\", timeout = \"1s\", fall = 3, rise = 2 }";

/// Three failed probes, a second apart, and much room for a busy machine.
const FAILOVER_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_dead_backend_is_left_out_and_taken_back() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("health", Mode::Ipip, 2);
    let mut vip = stage.tunnel_vip("web", "tcp");
    vip.health = Some(HEALTH);
    stage.start(&[vip]);
    let mut held: Vec<Connection> = (0..32).map(|_| connect(&stage)).collect();
    assert!(
        held.iter()
            .any(|connection| connection.backend == "backend-1")
    );

    stage.backend("backend-1").process.crash().unwrap();
    stage
        .balancer
        .wait_for_owners("web", FAILOVER_LIMIT, |name| name == "backend-2")
        .unwrap();

    for _ in 0..32 {
        assert_eq!(connect(&stage).backend, "backend-2");
    }
    // With one backend left no slot of it can move, so its connections all go on.
    held.retain(|connection| connection.backend == "backend-2");
    assert!(!held.is_empty());
    for connection in &mut held {
        assert_eq!(connection.exchange(b"still here").unwrap(), b"still here");
    }

    stage.backend("backend-1").restart();
    stage
        .balancer
        .wait_for_owners("web", SETTLE_LIMIT, |_| true)
        .unwrap();
    assert!((0..32).any(|_| connect(&stage).backend == "backend-1"));
}

#[test]
fn a_drained_backend_gets_no_new_flows_until_it_is_undrained() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("drain", Mode::Ipip, 2);
    // Connections may be quiet for as long as the test needs for others, on a busy machine too.
    stage.balancer.set("settle_after = \"15s\"");
    let vip = stage.tunnel_vip("web", "tcp");
    stage.start(&[vip]);
    let mut held: Vec<Connection> = (0..32).map(|_| connect(&stage)).collect();

    stage
        .balancer
        .weir(&["backend", "drain", "web", "backend-1"])
        .unwrap();
    stage
        .balancer
        .wait_for_owners("web", SETTLE_LIMIT, |name| name == "backend-2")
        .unwrap();
    for _ in 0..32 {
        assert_eq!(connect(&stage).backend, "backend-2");
    }
    assert!(held.iter().any(|one| one.backend == "backend-1"));
    for connection in &mut held {
        assert_eq!(connection.exchange(b"still here").unwrap(), b"still here");
    }

    // Taken back as soon as the slots it had are quiet.
    stage
        .balancer
        .weir(&["backend", "undrain", "web", "backend-1"])
        .unwrap();
    stage
        .balancer
        .wait_for_owners("web", SETTLE_LIMIT, |_| true)
        .unwrap();
    assert!((0..32).any(|_| connect(&stage).backend == "backend-1"));
}

fn connect(stage: &Stage) -> Connection {
    Connection::open(&stage.client, VIP).unwrap()
}
