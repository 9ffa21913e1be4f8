//! The stage with its crowd, and what is looked at after each act.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_userspace::api::types::{Backend, Stats};
use tests::balancer::Vip;
use tests::counters::Tcp;
use tests::crowd::{Crowd, Group, Opening, Report};
use tests::output::say;
use tests::{privilege, wait};

use crate::stage::{Family, HEALTH_PORT, Mode, PORT, SETTLE_LIMIT, Stage, VIP_V4, pass};

const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(VIP_V4), PORT);

/// From one message of a connection to its next: 5 000 messages a second altogether, which leaves
/// most of two cores to those under test.
const PACE: Duration = Duration::from_secs(2);

/// How long things are left alone after each change: everybody speaks twice.
const REST: Duration = Duration::from_millis(4500);

/// By then everybody has been answered in any case: TCP tries again after some seconds at most, and
/// the machine may have other work.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// The longest that a connection may wait for its echo, besides what the machine itself takes.
const STALL_MAX: Duration = Duration::from_secs(1);

/// Slots without traffic settle within the test. Those with live connections do not, not even when
/// these are silent while an interface is down and then until TCP tries again.
const SETTINGS: &str = "settle_after = \"12s\"";

/// Sockets of all connections in one process, and what else it has open.
const DESCRIPTORS: u64 = 16_000;

/// When nobody talks any more, there is nothing to wait for.
const LAST_SETTINGS: &str = "settle_after = \"2s\"";

/// A backend that was removed still sends what it has to its clients, who do not know it any more, and
/// their resets are traffic too. By then its TCP has given up.
const END_LIMIT: Duration = Duration::from_secs(60);

/// TCP of all hosts tries again after so long at the latest, where the kernel can be told.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(1);

/// Connections past the balancer, to each backend, and their pace.
const CONTROLS: usize = 10;
const CONTROL_PACE: Duration = Duration::from_millis(200);

/// Last bytes of further addresses of the client: one address does not have ports enough for all
/// connections anywhere.
const CLIENTS: std::ops::Range<u8> = 10..14;

pub(crate) struct Play {
    pub(crate) crowd: Crowd,
    pub(crate) stage: Stage,
    /// Whether [`RETRY_MAX`] holds.
    pub(crate) tcp_hurries: bool,
    all: Vip,
    sources: Vec<IpAddr>,
    lost: Vec<&'static str>,
    forgiven: Duration,
    alive: BTreeMap<String, usize>,
}

impl Play {
    /// Six backends, five of which are used.
    pub(crate) fn begin() -> Self {
        privilege::allow_descriptors(DESCRIPTORS).unwrap();
        let mut stage = Stage::new("survival", Mode::Ipip, 6);
        stage.balancer.set(SETTINGS);
        let all = stage.tunnel_vip("web", "tcp");
        let mut five = all.clone();
        five.backends.pop();
        stage.start(&[five]);
        let [a, b, c, _] = stage.client.addresses().v4.octets();
        let sources = CLIENTS.map(|last| IpAddr::from([a, b, c, last]));
        let sources: Vec<IpAddr> = sources.collect();
        for address in &sources {
            let add = format!("addr add {address}/24 dev eth0");
            stage.client.ip(&add).unwrap();
        }
        Self {
            crowd: Crowd::new(&stage.client).unwrap(),
            tcp_hurries: hurry_tcp(&stage),
            stage,
            all,
            sources,
            lost: Vec::new(),
            forgiven: Duration::ZERO,
            alive: BTreeMap::new(),
        }
    }

    /// Makes a change, lets everybody talk, and sees that nobody was hurt.
    pub(crate) fn act(&mut self, what: &str, change: impl FnOnce(&mut Self)) {
        self.crowd.report().unwrap();
        let before = self.tcp();
        change(self);
        let meanwhile = self.crowd.report().unwrap();
        pass(REST);
        self.wait_for_answers(what);
        let report = meanwhile.followed_by(self.crowd.report().unwrap());
        let [client, backends] = self.tcp();
        let [client, backends] = [client.since(before[0]), backends.since(before[1])];
        say(&format!(
            "{what}: {} answers, longest wait {:?}, past the balancer {:?}; \
             {} + {} segments lost, {} resets, {} connections broken",
            report.exchanges,
            report.longest_wait(&self.lost),
            report.control_longest(&self.lost),
            client.lost(),
            backends.lost(),
            backends.resets_sent,
            report.broken.len(),
        ));
        self.check(what, &report);
        if self.lost.is_empty() {
            assert_eq!(backends.resets_sent, 0, "{what}: packets of strangers");
        }
        self.alive = report.alive;
    }

    /// Waits until everybody has been answered since the change, however slow the machine is.
    fn wait_for_answers(&self, what: &str) {
        wait::until(&format!("{what}: answers"), ANSWER_LIMIT, || {
            let report = self.crowd.peek().ok()?;
            let lost = |server: &String| self.lost.contains(&server.as_str());
            report.silent.keys().all(lost).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}", self.crowd.report()));
    }

    fn check(&self, what: &str, report: &Report) {
        let hurt = |server: &&String| !self.lost.contains(&server.as_str());
        let broken: Vec<_> = report
            .broken
            .iter()
            .filter(|one| hurt(&&one.server))
            .collect();
        assert!(
            broken.is_empty(),
            "{what}: {} broken: {:?}",
            broken.len(),
            &broken[..broken.len().min(5)]
        );
        let stall = report.longest_stall(&self.lost);
        assert!(
            stall < STALL_MAX + self.forgiven,
            "{what}: a stall of {stall:?}: {:?}, past the balancer {:?}",
            report.waits,
            report.control_waits
        );
    }

    /// Opens connections to the VIP; who got them.
    pub(crate) fn open(&self, number: usize) -> BTreeMap<String, usize> {
        let opening = Opening {
            group: Group::Tested,
            number,
            to: VIP,
            sources: self.sources.clone(),
            pace: PACE,
        };
        self.crowd.open(opening).unwrap()
    }

    /// Opens those past the balancer.
    pub(crate) fn open_controls(&self) {
        for backend in &self.stage.backends {
            let own = Family::V4.of(&backend.host);
            let opening = Opening {
                group: Group::Control,
                number: CONTROLS,
                to: SocketAddr::new(own, HEALTH_PORT),
                sources: Vec::new(),
                pace: CONTROL_PACE,
            };
            self.crowd.open(opening).unwrap();
        }
    }

    /// The configuration with all six backends.
    pub(crate) fn add_the_sixth(&self) {
        let all = std::slice::from_ref(&self.all);
        self.stage.balancer.configure(all).unwrap();
        self.weir(&["reload"]);
    }

    /// The connections of this backend may die from now on.
    pub(crate) fn lose(&mut self, backend: &'static str) {
        self.lost.push(backend);
    }

    /// Waits may be so much longer from now on.
    pub(crate) fn forgive(&mut self, wait: Duration) {
        self.forgiven = wait;
    }

    /// Live connections of a backend after the last act.
    pub(crate) fn alive(&self, backend: &str) -> usize {
        self.alive.get(backend).copied().unwrap_or_default()
    }

    pub(crate) fn weir(&self, arguments: &[&str]) {
        self.stage.balancer.weir(arguments).unwrap();
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stage.balancer.stats().unwrap()
    }

    /// Waits until `wanted` holds for a backend of the VIP.
    pub(crate) fn wait_for(&self, name: &str, wanted: impl Fn(&Backend) -> bool) {
        let what = format!("{name} to be as wanted");
        wait::until(&what, SETTLE_LIMIT, || {
            let status = self.stage.balancer.status().ok()?;
            let mut backends = status.vips.iter().flat_map(|vip| &vip.backends);
            backends
                .find(|one| one.name == name && wanted(one))
                .map(drop)
        })
        .unwrap();
    }

    /// Everybody ends in good order, and then every slot settles.
    pub(crate) fn end(mut self) {
        accounted(&self.stats());
        self.stage.balancer.set(LAST_SETTINGS);
        let all = std::slice::from_ref(&self.all);
        self.stage.balancer.configure(all).unwrap();
        self.weir(&["reload"]);
        let report = self.crowd.close().unwrap();
        wait::until("all slots to settle", END_LIMIT, || {
            (moving(&self.stage.balancer.stats().ok()?) == 0).then_some(())
        })
        .unwrap();
        let hurt = report
            .broken
            .iter()
            .filter(|one| !self.lost.contains(&one.server.as_str()));
        assert_eq!(hurt.count(), 0, "{:?}", report.broken);
    }

    /// Counters of the client, and of all backends together.
    fn tcp(&self) -> [Tcp; 2] {
        let backends = self.stage.backends.iter();
        let backends = backends.map(|one| Tcp::of(&one.host).unwrap()).sum();
        [Tcp::of(&self.stage.client).unwrap(), backends]
    }
}

/// Has TCP try again after [`RETRY_MAX`] at the latest, in connections that are opened from now on;
/// false where the kernel is too old for that.
fn hurry_tcp(stage: &Stage) -> bool {
    let backends = stage.backends.iter().map(|one| &one.host);
    let mut hosts = backends.chain([&stage.client]);
    let limit = RETRY_MAX.as_millis().to_string();
    hosts.all(|host| host.sysctl("net.ipv4.tcp_rto_max_ms", &limit).is_ok())
}

/// Slots that move.
pub(crate) fn moving(stats: &Stats) -> u32 {
    stats.vips.iter().map(|vip| vip.slots_moving).sum()
}

/// Whether nothing was ever looked up or remembered about any flow.
pub(crate) fn untracked(stats: &Stats) -> bool {
    stats.tracking.iter().all(|event| event.count == 0)
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
