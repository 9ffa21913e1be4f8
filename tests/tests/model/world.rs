//! A world: one balancer, its agents one after the other, and everybody around it.

use std::collections::BTreeSet;

use lb_userspace::control::runtime::{Change, Runtime};
use lb_userspace::control::slots::Clock;
use lb_userspace::dataplane::Sizes;

use crate::agent::{Agent, Files};
use crate::client::Client;
use crate::memory::Memory;
use crate::setup::{RING_SIZES, SIZES, Setup, VIPS, VipKind, address, config, doors, name};
use crate::store::NotWritten;
use crate::wire::{Faults, Sends, Traffic, Wire};

/// Something that happens. Numbers of backends beyond those of the VIP mean nobody.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// `weir backend …`
    Change {
        vip: usize,
        backend: u8,
        change: Edit,
    },
    /// The process of a backend dies, and its probes fail.
    Fail { vip: usize, backend: u8 },
    /// It comes back.
    Return { vip: usize, backend: u8 },
    /// The balancer is cut off from the backends of a VIP, and is no longer.
    CutOff { vip: usize, from: bool },
    /// The agent dies at this write of its next publish, and comes back after some seconds.
    Crash { write: u32, down_s: u32 },
    /// This write of the next publish is refused.
    Refuse { write: u32 },
    /// Seconds pass.
    Wait { seconds: u32 },
    /// A grace period passes.
    Grace,
    /// Packets of any kind.
    Packets { count: u32 },
    /// Clients without a connection open one.
    Open { percent: u32 },
    /// Connections end.
    Close { percent: u32 },
    /// SYNs are sent again.
    Again { count: u32, answer_lost: bool },
    /// SYNs with the ports of live connections.
    Forge { count: u32 },
    /// SYNs from anywhere.
    Flood { vip: usize, count: u32 },
    /// The ring of a VIP gets another size.
    Resize { vip: usize, large: bool },
    /// The flows of a VIP are tracked by number so much of [`TRACKINGS`].
    Track { vip: usize, by: usize },
}

/// What `weir backend` can do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edit {
    Add(u16),
    Remove,
    Drain(bool),
    Weight(u16),
}

/// What flows are tracked by.
const TRACKINGS: [&str; 3] = ["moving", "full", "none"];

/// After so many seconds without traffic all slots have settled.
const REST_S_MAX: u32 = 60;

pub(crate) struct World {
    pub(crate) wire: Wire,
    pub(crate) agent: Agent,
    sizes: Sizes,
    /// Backends whose process is dead, by VIP.
    failed: BTreeSet<(usize, String)>,
    kinds: [VipKind; VIPS.len()],
    setup: Setup,
}

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        let sizes = Sizes {
            exceptions: setup.exceptions,
            flows: setup.flows,
            inserts_per_second: setup.inserts_per_second,
            ..SIZES
        };
        let quiet_s = u32::from(setup.settle_after_s);
        let memory = Memory::new(sizes, quiet_s, setup.lost_of);
        let clock = Clock {
            now: 0,
            quiet: setup.settle_after_s,
            deadline: setup.settle_deadline_s,
        };
        let mut wire = Wire::new(memory, doors(), clock, setup.seed);
        add_clients(&mut wire, setup);
        wire.traffic = Traffic {
            packets: setup.packets,
            syns_again: setup.syns_again,
        };
        let kinds = VIPS.map(|(_, _, tracking)| VipKind {
            ring_size: RING_SIZES[0],
            tracking,
        });
        let files = Files {
            config: config(setup, &kinds),
            runtime: Runtime::default(),
        };
        let agent = Agent::new(files, sizes);
        let mut world = Self {
            wire,
            agent,
            sizes,
            failed: BTreeSet::new(),
            kinds,
            setup: setup.clone(),
        };
        world.serve();
        world.note_untracked();
        let published = world.agent.publish(&mut world.wire);
        published.expect("no faults yet");
        world
    }

    /// Does `step`, and looks at all flows.
    pub(crate) fn step(&mut self, step: &Step) {
        let result = self.try_step(step);
        self.after(result);
        self.wire.judge_all();
    }

    /// Comes to another configuration, and to rest: every backend is healthy, and no slot moves.
    pub(crate) fn come_to(&mut self, files: Files) {
        self.failed.clear();
        self.wire.faults.refuse_at = None;
        self.step(&Step::Close { percent: 100 });
        let followed = self.agent.follow(&mut self.wire, files);
        followed.expect("no faults any more");
        self.probe_all();
        for _ in 0..REST_S_MAX {
            self.second();
            self.step(&Step::Close { percent: 100 });
        }
        assert!(!self.agent.moves(), "some slot still moves");
    }

    /// What went wrong against the invariant.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.wire.failure.as_deref()
    }

    fn try_step(&mut self, step: &Step) -> Result<(), NotWritten> {
        match *step {
            Step::Change {
                vip,
                backend,
                change,
            } => return self.change(vip, backend, change),
            Step::Fail { vip, backend } => return self.fail(vip, backend),
            Step::Return { vip, backend } => return self.come_back(vip, backend),
            Step::CutOff { vip, from } => return self.cut_off(vip, from),
            Step::Crash { write, down_s } => {
                self.wire.faults.crash_at = Some(write);
                // Published or not: it dies.
                let _ = self.agent.publish(&mut self.wire);
                self.restart(down_s);
            }
            Step::Refuse { write } => self.wire.faults.refuse_at = Some(write),
            Step::Wait { seconds } => {
                for _ in 0..seconds {
                    self.second();
                }
            }
            Step::Grace => return self.agent.grace_passed(&mut self.wire),
            Step::Packets { count } => (0..count).for_each(|_| self.wire.random_packet()),
            Step::Open { percent } => self.each(percent, false, |wire, client| {
                wire.send(client, Sends::Opening);
            }),
            Step::Close { percent } => self.each(percent, true, Wire::close),
            Step::Again { count, answer_lost } => {
                self.some_tcp(count, Sends::Again { answer_lost });
            }
            Step::Forge { count } => self.some_tcp(count, Sends::Forged),
            Step::Flood { vip, count } => (0..count).for_each(|_| self.wire.flood(vip)),
            Step::Resize { vip, large } => {
                let ring_size = RING_SIZES[usize::from(large)];
                let kind = self.kinds[vip];
                return self.reload(vip, VipKind { ring_size, ..kind });
            }
            Step::Track { vip, by } => {
                let tracking = TRACKINGS[by];
                let kind = self.kinds[vip];
                return self.reload(vip, VipKind { tracking, ..kind });
            }
        }
        Ok(())
    }

    /// An agent that died in the middle of a publish comes back; a publish that was refused is tried
    /// again later.
    fn after(&mut self, result: Result<(), NotWritten>) {
        match result {
            Err(NotWritten::Dead) => self.restart(1),
            Err(NotWritten::Refused) => self.wire.faults.refuse_at = None,
            Ok(()) => {}
        }
    }

    fn change(&mut self, vip: usize, backend: u8, change: Edit) -> Result<(), NotWritten> {
        let (names, address) = (name(vip, backend), address(vip, backend));
        let names = (names.0, names.1.as_str());
        let change = match change {
            Edit::Add(weight) => Change::Add {
                address,
                weight: Some(weight),
            },
            Edit::Remove => Change::Remove,
            Edit::Drain(draining) => Change::Drain(draining),
            Edit::Weight(weight) => Change::Weight(weight),
        };
        let Some(files) = self.agent.changed(names, &change) else {
            return Ok(());
        };
        // Whoever is removed is of no use any more; whoever is added can answer at once.
        match change {
            Change::Remove => self.failed.insert((vip, names.1.to_owned())),
            Change::Add { .. } => self.failed.remove(&(vip, names.1.to_owned())),
            _ => false,
        };
        self.serve();
        let followed = self.agent.follow(&mut self.wire, files);
        if followed == Err(NotWritten::Refused) && matches!(change, Change::Remove) {
            self.failed.remove(&(vip, names.1.to_owned()));
        }
        self.serve();
        followed?;
        if let Change::Add { .. } = change {
            self.agent.observe(names.0, names.1, true, true);
            self.agent.publish(&mut self.wire)?;
        }
        Ok(())
    }

    fn fail(&mut self, vip: usize, backend: u8) -> Result<(), NotWritten> {
        let (vip_name, backend) = name(vip, backend);
        self.failed.insert((vip, backend.clone()));
        self.serve();
        let confirmed = self.somebody_answers(vip);
        self.agent.observe(vip_name, &backend, false, confirmed);
        self.agent.publish(&mut self.wire)
    }

    /// All backends of a VIP look down, one after the other, and are not.
    fn cut_off(&mut self, vip: usize, from: bool) -> Result<(), NotWritten> {
        let vip_name = VIPS[vip].0;
        for backend in self.agent.backends(vip_name).into_keys() {
            let healthy = !from && !self.failed.contains(&(vip, backend.clone()));
            self.agent.observe(vip_name, &backend, healthy, healthy);
            self.agent.publish(&mut self.wire)?;
        }
        Ok(())
    }

    fn somebody_answers(&self, vip: usize) -> bool {
        let backends = self.agent.backends(VIPS[vip].0).into_keys();
        backends
            .into_iter()
            .any(|backend| !self.failed.contains(&(vip, backend)))
    }

    fn come_back(&mut self, vip: usize, backend: u8) -> Result<(), NotWritten> {
        let (vip_name, backend) = name(vip, backend);
        if !self.failed.remove(&(vip, backend.clone())) {
            return Ok(());
        }
        self.serve();
        self.agent.observe(vip_name, &backend, true, true);
        self.agent.publish(&mut self.wire)
    }

    fn reload(&mut self, vip: usize, kind: VipKind) -> Result<(), NotWritten> {
        let before = std::mem::replace(&mut self.kinds[vip], kind);
        let files = Files {
            config: config(&self.setup, &self.kinds),
            ..self.agent.files.clone()
        };
        self.note_untracked();
        self.wire.tally.reconfigured += 1;
        let followed = self.agent.follow(&mut self.wire, files);
        if followed == Err(NotWritten::Refused) {
            // The agent goes on with what it had.
            self.kinds[vip] = before;
            self.note_untracked();
        }
        followed
    }

    /// Tells the wire whose flows nobody tracks: from the moment on at which that is wanted.
    fn note_untracked(&mut self) {
        let kinds = self.kinds.iter().enumerate();
        let untracked = kinds.filter(|(_, kind)| kind.tracking == "none");
        self.wire.untracked = untracked.map(|(vip, _)| vip).collect();
    }

    /// Backends serve that are configured and have not failed.
    fn serve(&mut self) {
        for (vip, (vip_name, ..)) in VIPS.iter().enumerate() {
            let backends = self.agent.backends(vip_name).into_iter();
            let serving = backends
                .filter(|(name, _)| !self.failed.contains(&(vip, name.clone())))
                .map(|(_, address)| address)
                .collect();
            self.wire.serve(vip, &serving);
        }
    }

    /// Another agent takes over what the one before has left.
    fn restart(&mut self, down_s: u32) {
        self.wire.faults = Faults {
            crash_at: None,
            refuse_at: None,
            ..self.wire.faults
        };
        for _ in 0..down_s {
            self.wire.random_packets();
            self.second_of_traffic();
        }
        self.agent = Agent::adopt(self.agent.files.clone(), self.sizes, &self.wire);
        self.wire.note_takeover();
        self.serve();
        let published = self.agent.publish(&mut self.wire);
        published.expect("no faults after a start");
        self.probe_all();
    }

    /// The first probes of a new agent, in any order.
    fn probe_all(&mut self) {
        for (vip, (vip_name, ..)) in VIPS.iter().enumerate() {
            let mut backends: Vec<_> = self.agent.backends(vip_name).into_keys().collect();
            self.wire.random.shuffle(&mut backends);
            for backend in backends {
                let healthy = !self.failed.contains(&(vip, backend.clone()));
                let confirmed = self.somebody_answers(vip);
                self.agent.observe(vip_name, &backend, healthy, confirmed);
                let published = self.agent.publish(&mut self.wire);
                published.expect("no faults after a start");
            }
        }
    }

    /// A second of traffic, and of an agent that looks whether slots may settle.
    fn second(&mut self) {
        self.second_of_traffic();
        let graced = self.agent.grace_passed(&mut self.wire);
        self.after(graced);
        if self.agent.moves() || self.wire.faults.taking_back {
            let published = self.agent.publish(&mut self.wire);
            self.after(published);
        }
    }

    fn second_of_traffic(&mut self) {
        self.wire.pass_all();
        self.wire.memory.now_s += 1;
        self.wire.judge_time();
        let now_s = self.wire.memory.now_s;
        for index in 0..self.wire.clients.len() {
            let Client { live, every_s, .. } = self.wire.clients[index];
            if live.is_some_and(|live| now_s - live.seen_s >= every_s) {
                self.wire.send(index, Sends::More);
            }
        }
    }

    /// Does something to so many percent of the clients with a connection, or without one.
    fn each(&mut self, percent: u32, live: bool, mut act: impl FnMut(&mut Wire, usize)) {
        for index in 0..self.wire.clients.len() {
            let matches = self.wire.clients[index].live.is_some() == live;
            if matches && self.wire.random.below(100) < percent {
                act(&mut self.wire, index);
            }
        }
    }

    fn some_tcp(&mut self, count: u32, sends: Sends) {
        for _ in 0..count {
            let index = self.wire.random.below(self.wire.clients.len() as u32) as usize;
            let client = &self.wire.clients[index];
            if client.live.is_some() && !client.udp {
                self.wire.send(index, sends);
            }
        }
    }
}

fn add_clients(wire: &mut Wire, setup: &Setup) {
    let key = wire.memory.settings.hash_key;
    for vip in 0..VIPS.len() {
        for number in 0..setup.clients {
            let every_s = setup.every_s - number % setup.every_s / 2;
            let client = Client::new(vip, &wire.doors[vip], number, every_s, key);
            wire.add_client(client);
        }
    }
}
