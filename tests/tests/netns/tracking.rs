//! What is remembered of flows, by VIP: all of them, none, or those on slots that move.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_userspace::api::types::{self, Stats};
use tests::balancer::Vip;
use tests::client::inside;
use tests::wait;

use crate::flow::{Connection, LOST_LIMIT, any_source, ask_by_udp};
use crate::stage::{Mode, PORT, SETTLE_LIMIT, Stage, VIP_V4};

const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(VIP_V4), PORT);

/// Connections that are there before anything changes: on two backends, none is without some.
const HELD: usize = 32;

/// The deadline is far below what a test takes: only full tracking outlives it.
const BRIEF: &str = "settle_after = \"1s\"\nsettle_deadline = \"2s\"";

/// Long enough for every slot to settle, and for the agent to look.
const DEADLINE_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn full_tracking_outlives_deadlines_and_restarts_but_not_the_backend() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("full", Mode::Ipip, 2);
    stage.balancer.set(BRIEF);
    let mut vip = stage.tunnel_vip("web", "tcp");
    start(&mut stage, &vip, "full");
    let mut held: Vec<Connection> = (0..HELD).map(|_| connect(&stage)).collect();

    weir(&stage, "backend drain web backend-1");
    settled(&stage);
    all_go_on(&mut held);
    stage.balancer.crash().unwrap();
    stage.balancer.start().unwrap();
    all_go_on(&mut held);
    let stats = stage.balancer.stats().unwrap();
    assert!(live(&stats, "flows") >= HELD as u64, "{stats:#?}");
    assert!(event(&stats, "flow_hit") > 0, "{stats:#?}");
    assert_eq!(connect(&stage).backend, "backend-2");

    // The runtime change goes with the backend; its flows are forgotten, and end at the other one.
    vip.backends.remove(0);
    configure(&stage, &vip, "full");
    weir(&stage, "reload");
    let (mut lost, mut kept): (Vec<_>, Vec<_>) = held
        .into_iter()
        .partition(|connection| connection.backend == "backend-1");
    assert!(!lost.is_empty() && !kept.is_empty());
    all_go_on(&mut kept);
    for connection in &mut lost {
        assert!(connection.is_cut_off(b"anybody there?"));
    }
}

#[test]
fn the_last_backend_drains_to_nobody() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("last", Mode::Ipip, 1);
    // A connection that is refused takes five seconds to give up; the others are quiet meanwhile, and
    // longer on a busy machine.
    stage.balancer.set("settle_after = \"20s\"");
    let vip = stage.tunnel_vip("web", "tcp");
    start(&mut stage, &vip, "moving");
    let mut held: Vec<Connection> = (0..HELD).map(|_| connect(&stage)).collect();

    weir(&stage, "backend drain web backend-1");
    all_go_on(&mut held);
    assert!(shown(&stage).slots_moving > 0);
    assert!(Connection::open_within(&stage.client, VIP, LOST_LIMIT).is_err());
    all_go_on(&mut held);
    weir(&stage, "backend undrain web backend-1");
    assert!(Connection::open(&stage.client, VIP).is_ok());
    all_go_on(&mut held);

    // Nobody speaks any more: the drain comes to its end.
    weir(&stage, "backend drain web backend-1");
    settled(&stage);
    assert!(held[0].is_cut_off(b"too late"));
}

#[test]
fn without_tracking_a_drain_takes_effect_at_once() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("none", Mode::Ipip, 2);
    let vip = stage.tunnel_vip("web", "udp");
    start(&mut stage, &vip, "moving");
    weir(&stage, "backend drain web backend-1");
    assert!(shown(&stage).slots_moving > 0);
    configure(&stage, &vip, "none");
    let said = weir(&stage, "reload");
    assert_eq!(
        said.trim_end(),
        "~ vip web: tracking moving -> none (slots that move settle at once)"
    );
    assert_eq!(shown(&stage).slots_moving, 0);
    weir(&stage, "backend undrain web backend-1");
    weir(&stage, "backend drain web backend-2");
    assert_eq!(shown(&stage).slots_moving, 0);
    let answered = inside(&stage.client, || ask_by_udp(any_source(VIP), VIP, b"who?"));
    assert_eq!(answered.unwrap(), "backend-1");
    let stats = stage.balancer.stats().unwrap();
    assert_eq!(event(&stats, "insert"), 0, "{stats:#?}");
}

#[test]
fn the_configured_budget_is_the_programs() {
    if !crate::balancer_granted() {
        return;
    }
    let mut stage = Stage::new("budget", Mode::Ipip, 2);
    // Live flows may take half of it, which is nothing.
    stage
        .balancer
        .set("limits = { inserts_per_second_max = 1 }");
    let vip = stage.tunnel_vip("web", "udp");
    start(&mut stage, &vip, "moving");
    weir(&stage, "backend drain web backend-1");
    // Half of the slots move: that twenty flows miss all of them happens once in a million.
    let ask = || ask_by_udp(any_source(VIP), VIP, b"who?");
    for _ in 0..20 {
        inside(&stage.client, ask).unwrap();
    }
    let stats = stage.balancer.stats().unwrap();
    assert_eq!(event(&stats, "insert"), 0, "{stats:#?}");
    assert!(event(&stats, "over_budget") > 0, "{stats:#?}");
}

/// As [`Stage::start`], with a kind of tracking.
fn start(stage: &mut Stage, vip: &Vip, tracking: &str) {
    configure(stage, vip, tracking);
    stage.balancer.start().unwrap();
    stage
        .balancer
        .wait_for_owners(vip.name, SETTLE_LIMIT, |_| true)
        .unwrap();
}

/// Writes the configuration with a kind of tracking.
fn configure(stage: &Stage, vip: &Vip, tracking: &str) {
    stage.balancer.configure(std::slice::from_ref(vip)).unwrap();
    let path = stage.balancer.configuration();
    let text = std::fs::read_to_string(path).unwrap();
    let head = format!("[vips.{}]\n", vip.name);
    let tracked = text.replace(&head, &format!("{head}tracking = \"{tracking}\"\n"));
    assert_ne!(tracked, text);
    std::fs::write(path, tracked).unwrap();
}

fn weir(stage: &Stage, arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    stage.balancer.weir(&arguments).unwrap()
}

fn connect(stage: &Stage) -> Connection {
    Connection::open(&stage.client, VIP).unwrap()
}

fn all_go_on(connections: &mut [Connection]) {
    for connection in connections {
        assert_eq!(connection.exchange(b"still here").unwrap(), b"still here");
    }
}

/// Waits until no slot moves.
fn settled(stage: &Stage) {
    let is_settled = || (shown(stage).slots_moving == 0).then_some(());
    wait::until("all slots to settle", DEADLINE_LIMIT, is_settled).unwrap();
}

fn shown(stage: &Stage) -> types::Vip {
    stage.balancer.weir_json(&["vip", "show", "web"]).unwrap()
}

fn live(stats: &Stats, table: &str) -> u64 {
    let tables = &stats.flow_tables;
    tables.iter().find(|one| one.name == table).unwrap().live
}

fn event(stats: &Stats, name: &str) -> u64 {
    let events = &stats.tracking;
    events.iter().find(|one| one.name == name).unwrap().count
}
