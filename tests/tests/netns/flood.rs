//! A SYN flood finds nothing to fill: settled slots keep no state, and moving ones have a budget.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use lb_ebpf::abi::INSERTS_PER_SECOND_MAX;
use lb_userspace::api::types::Stats;
use tests::balancer::Vip;
use tests::counters::{self, Tcp, WrongHeaders};
use tests::crowd::{Crowd, Group, Opening, Report};
use tests::flood::Flood;
use tests::output::say;
use tests::pinned;
use tests::wait;

use crate::stage::{HEALTH_PORT, Mode, PORT, SETTLE_LIMIT, Stage, VIP_V4, pass};

const VIP: SocketAddrV4 = SocketAddrV4::new(VIP_V4, PORT);

/// Packets of the flood while all slots are settled, and while some move.
const SETTLED_FRAMES: u32 = 5_000_000;
const MOVING_FRAMES: u32 = 1_000_000;

/// Live connections, and from one message of each to the next.
const CONNECTIONS: usize = 500;
const PACE: Duration = Duration::from_millis(500);

/// No slot with live connections settles within the test.
const SETTINGS: &str = "settle_after = \"60s\"";

/// How much the agent may grow: pages that it touches for the first time, and what its allocator
/// keeps.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

/// The longest that a live connection may wait for its echo, besides what the machine itself takes.
const STALL_MAX: Duration = Duration::from_secs(1);

#[test]
fn a_flood_finds_no_state_to_fill_while_slots_are_settled() {
    if !crate::balancer_granted() {
        return;
    }
    let (stage, _) = stage("flood");
    let crowd = crowd(&stage);
    let before = Seen::of(&stage);
    let took = flood(&stage, SETTLED_FRAMES);
    let (after, report) = (Seen::of(&stage), crowd.report().unwrap());
    told("settled", SETTLED_FRAMES, took, &before, &after, &report);

    unhurt(&report);
    assert!(after.forwarded - before.forwarded > SETTLED_FRAMES.into());
    assert_eq!(after.dropped, before.dropped, "dropped by the balancer");
    for event in &after.stats.tracking {
        assert_eq!(event.count, 0, "{}", event.name);
    }
    assert_eq!(
        after.tcp.since(before.tcp).lost(),
        0,
        "live connections lost packets"
    );
    assert_eq!(after.interface_drops, before.interface_drops);
    assert_eq!(after.map_bytes, before.map_bytes);
    assert!(after.agent_bytes < before.agent_bytes + GROWTH_BYTES_MAX);
    crowd.close().unwrap();
}

#[test]
fn a_flood_of_moving_slots_spends_the_budget_and_hurts_no_live_connection() {
    if !crate::balancer_granted() {
        return;
    }
    let (stage, vip) = stage("budget");
    let crowd = crowd(&stage);
    for backend in ["backend-1", "backend-2"] {
        let drain = ["backend", "drain", vip.name, backend];
        stage.balancer.weir(&drain).unwrap();
    }
    // Connections with an exception each, which the flood must not push out.
    let late = open(&crowd);
    assert!(late > 0 && moving(&stage) > 0);
    let before = Seen::of(&stage);
    let took = flood(&stage, MOVING_FRAMES);
    let (after, report) = (Seen::of(&stage), crowd.report().unwrap());
    told("moving", MOVING_FRAMES, took, &before, &after, &report);

    unhurt(&report);
    assert!(after.forwarded - before.forwarded > MOVING_FRAMES.into());
    assert_eq!(after.dropped, before.dropped, "dropped by the balancer");
    let [inserts, refusals] =
        ["insert", "over_budget"].map(|name| after.event(name) - before.event(name));
    // A budget for each second that the flood has touched, on each CPU.
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    let budget = u64::from(INSERTS_PER_SECOND_MAX) * (took.as_secs() + 2) * cpus;
    assert!(inserts <= budget, "{inserts} inserts, {budget} allowed");
    assert!(inserts > 0 && refusals > 0, "{inserts} + {refusals}");
    // Every packet of the flood to a moving slot is one or the other: two thirds of them.
    let noted = (inserts + refusals) as f64 / f64::from(MOVING_FRAMES);
    assert!((0.6..0.7).contains(&noted), "{inserts} + {refusals}");
    assert_eq!(after.event("insert_failed"), 0);
    assert_eq!(after.map_bytes, before.map_bytes);
    assert!(after.agent_bytes < before.agent_bytes + GROWTH_BYTES_MAX);
    // When its last second is over, new connections are remembered again.
    pass(Duration::from_secs(1));
    open(&crowd);
    wait::until("everybody to be answered", SETTLE_LIMIT, || {
        crowd.peek().ok()?.silent.is_empty().then_some(())
    })
    .unwrap();
    unhurt(&crowd.close().unwrap());
}

/// Three backends, all of which are used.
fn stage(label: &str) -> (Stage, Vip) {
    let mut stage = Stage::new(label, Mode::Ipip, 3);
    stage.balancer.set(SETTINGS);
    // Without tail loss probes (RFC 8985): on a fast network they are sent after a few milliseconds in
    // which nobody was scheduled, and look like losses.
    let backends = stage.backends.iter().map(|backend| &backend.host);
    for host in backends.chain([&stage.client]) {
        host.sysctl("net.ipv4.tcp_early_retrans", "0").unwrap();
    }
    let vip = stage.tunnel_vip("web", "tcp");
    stage.start(std::slice::from_ref(&vip));
    (stage, vip)
}

fn crowd(stage: &Stage) -> Crowd {
    let crowd = Crowd::new(&stage.client).unwrap();
    assert_eq!(open(&crowd), 3);
    for backend in &stage.backends {
        let own = backend.host.addresses().v4.into();
        let control = Opening {
            group: Group::Control,
            number: 10,
            to: SocketAddr::new(own, HEALTH_PORT),
            sources: Vec::new(),
            pace: PACE,
        };
        crowd.open(control).unwrap();
    }
    crowd.report().unwrap();
    crowd
}

/// Opens connections to the VIP; how many backends got some.
fn open(crowd: &Crowd) -> usize {
    let opening = Opening {
        group: Group::Tested,
        number: CONNECTIONS,
        to: VIP.into(),
        sources: Vec::new(),
        pace: PACE,
    };
    crowd.open(opening).unwrap().len()
}

/// From the other end of the balancer's link, where packets of clients come from too.
fn flood(stage: &Stage, frames: u32) -> Duration {
    let backends = stage.backends.iter().map(|backend| &backend.host);
    let arrived = WrongHeaders::of(backends).unwrap();
    let interface = stage.balancer.host().name();
    let flood = Flood::new(stage.network.fabric(), interface, VIP).unwrap();
    flood.send(frames, || arrived.count().unwrap()).unwrap()
}

fn moving(stage: &Stage) -> u32 {
    let stats = stage.balancer.stats().unwrap();
    stats.vips.iter().map(|vip| vip.slots_moving).sum()
}

/// Nobody was reset, nobody had to wait, and everybody was answered.
fn unhurt(report: &Report) {
    assert!(report.broken.is_empty(), "{:?}", report.broken);
    let stall = report.longest_stall(&[]);
    assert!(stall < STALL_MAX, "a stall of {stall:?}: {report:?}");
    assert!(report.silent.is_empty(), "{:?}", report.silent);
}

/// Everything that a flood could change.
struct Seen {
    stats: Stats,
    forwarded: u64,
    dropped: u64,
    /// Of the client and the backends.
    tcp: Tcp,
    /// Of all hosts.
    interface_drops: u64,
    map_bytes: BTreeMap<String, u64>,
    agent_bytes: u64,
}

impl Seen {
    fn of(stage: &Stage) -> Self {
        let stats = stage.balancer.stats().unwrap();
        let counted = |action| {
            let reasons = stats.reasons.iter().filter(|one| one.action == action);
            reasons.map(|one| one.packets).sum()
        };
        let (forwarded, dropped) = (counted("forward"), counted("drop"));
        let ends = stage.backends.iter().map(|backend| &backend.host);
        let ends: Vec<_> = ends.chain([&stage.client]).collect();
        let way = [stage.network.fabric(), stage.balancer.host()];
        let all = ends.iter().copied().chain(way);
        let pid = stage.balancer.status().unwrap().pid;
        Self {
            forwarded,
            dropped,
            tcp: ends.iter().map(|host| Tcp::of(host).unwrap()).sum(),
            interface_drops: all
                .map(|host| counters::interface_drops(host).unwrap())
                .sum(),
            map_bytes: pinned::map_bytes(&stage.balancer.maps()).unwrap(),
            agent_bytes: pinned::resident_bytes(pid).unwrap(),
            stats,
        }
    }

    fn event(&self, name: &str) -> u64 {
        let found = self.stats.tracking.iter().find(|event| event.name == name);
        found.unwrap().count
    }
}

fn told(slots: &str, frames: u32, took: Duration, before: &Seen, after: &Seen, report: &Report) {
    say(&format!(
        "flood while slots are {slots}: {frames} SYNs in {took:.1?}; {} inserts, {} over budget; \
         {} answers meanwhile, longest wait {:?}, past the balancer {:?}, {} segments lost, \
         {} packets without room in a queue; agent {} kB before, {} kB after",
        after.event("insert") - before.event("insert"),
        after.event("over_budget") - before.event("over_budget"),
        report.exchanges,
        report.longest_wait(&[]),
        report.control_longest(&[]),
        after.tcp.since(before.tcp).lost(),
        after.interface_drops - before.interface_drops,
        before.agent_bytes >> 10,
        after.agent_bytes >> 10,
    ));
}
