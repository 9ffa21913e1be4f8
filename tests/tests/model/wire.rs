//! Packets: who sends them, and where they arrive.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use lb_ebpf::abi::{Mark, Vip, VipKey};
use lb_ebpf::datapath;
use lb_ebpf::frame::{Buffer, HEADROOM};
use lb_ebpf::steer;
use lb_ebpf::track::Event;
use lb_userspace::control::slots::Clock;

use crate::client::{Client, Door, Live, Publish};
use crate::memory::{Answers, Memory, Reader};
use crate::random::Random;
use crate::seen::{Kept, Left, kind};
use crate::window::{Tally, Window};

/// The balancer's maps, the packets on their way through it, and those who send and answer them.
pub(crate) struct Wire {
    pub(crate) memory: Memory,
    pub(crate) doors: Vec<Door>,
    pub(crate) clients: Vec<Client>,
    by_fingerprint: HashMap<u64, usize>,
    /// Backends that answer, by number of the VIP.
    serving: BTreeSet<(usize, IpAddr)>,
    /// How often a backend went or came, and the last time for each.
    turns: u64,
    last_turns: BTreeMap<(usize, IpAddr), u64>,
    /// How often full tracking forgot flows.
    pub(crate) sweeps: u64,
    in_flight: Vec<InFlight>,
    pub(crate) random: Random,
    pub(crate) tally: Tally,
    pub(crate) traffic: Traffic,
    /// Times, as the agent has them; its `now` is that of the publish under way.
    pub(crate) clock: Clock,
    /// The marks that the agent had read when it planned what is published now.
    pub(crate) planned: BTreeMap<VipKey, Vec<Mark>>,
    /// Where the VIPs pointed when the publish under way began.
    pub(crate) before: BTreeMap<VipKey, Vip>,
    /// Backends that the agent has not given up, by VIP with full tracking.
    pub(crate) kept: Kept,
    pub(crate) faults: Faults,
    /// VIPs without tracking, by number.
    pub(crate) untracked: BTreeSet<usize>,
    /// The first flows that were doomed.
    pub(crate) story: Vec<String>,
    /// What should not have happened.
    pub(crate) failure: Option<String>,
}

/// What happens while the agent writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Packets before each write, at most.
    pub(crate) packets: u32,
    /// SYNs may be sent again, or forged.
    pub(crate) syns_again: bool,
}

/// What goes wrong with the agent's writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The agent dies before write number so many.
    pub(crate) crash_at: Option<u32>,
    /// Write number so many is refused.
    pub(crate) refuse_at: Option<u32>,
    /// Writes of the publish under way so far.
    pub(crate) writes: u32,
    /// A write was refused, so what was written is taken back. Until something else is published, the
    /// maps do not say what the agent wants.
    pub(crate) taking_back: bool,
    /// How often that has happened.
    pub(crate) takings_back: u32,
    /// A publish is under way.
    pub(crate) publishing: bool,
    /// Publishes so far.
    pub(crate) publishes: Publish,
}

impl Faults {
    /// Whether the agent has died in the publish under way.
    pub(crate) fn is_dead(&self) -> bool {
        self.crash_at.is_some_and(|at| self.writes > at)
    }
}

/// What a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sends {
    /// The first packet of a connection.
    Opening,
    /// The SYN once more. The answer to the first one may be lost, or only late.
    Again { answer_lost: bool },
    /// Somebody else's SYN, with the addresses and ports of the connection.
    Forged,
    /// Any other packet.
    More,
}

/// A packet that has read a part of the tables.
struct InFlight {
    client: usize,
    sends: Sends,
    answers: Answers,
    left: Left,
}

impl Wire {
    pub(crate) fn new(memory: Memory, doors: Vec<Door>, clock: Clock, seed: u64) -> Self {
        Self {
            memory,
            doors,
            clients: Vec::new(),
            by_fingerprint: HashMap::new(),
            serving: BTreeSet::new(),
            turns: 0,
            last_turns: BTreeMap::new(),
            sweeps: 0,
            in_flight: Vec::new(),
            random: Random::new(seed),
            tally: Tally::default(),
            traffic: Traffic::default(),
            clock,
            planned: BTreeMap::new(),
            before: BTreeMap::new(),
            kept: Kept::new(),
            faults: Faults::default(),
            untracked: BTreeSet::new(),
            story: Vec::new(),
            failure: None,
        }
    }

    pub(crate) fn add_client(&mut self, client: Client) {
        self.by_fingerprint
            .insert(client.fingerprint, self.clients.len());
        self.clients.push(client);
    }

    /// From now on the VIP's backends are these. Connections of all others are lost.
    pub(crate) fn serve(&mut self, vip: usize, backends: &BTreeSet<IpAddr>) {
        let of_vip = |(of, _): &(usize, IpAddr)| *of == vip;
        let before: BTreeSet<_> = self.serving.extract_if(.., of_vip).collect();
        let after: BTreeSet<_> = backends.iter().map(|&backend| (vip, backend)).collect();
        for turned in before.symmetric_difference(&after) {
            self.turns += 1;
            self.last_turns.insert(*turned, self.turns);
        }
        self.serving.extend(after);
        let clients = self.clients.iter_mut().filter(|client| client.vip == vip);
        for client in clients {
            if client
                .live
                .is_some_and(|live| !backends.contains(&live.backend))
            {
                client.live = None;
                self.tally.lost += 1;
            }
        }
    }

    /// The connection ends; its client may open another one with the same ports.
    pub(crate) fn close(&mut self, client: usize) {
        self.pass(client);
        self.clients[client].live = None;
    }

    /// Sends one packet. Those of one flow come through one queue, in order.
    pub(crate) fn send(&mut self, client: usize, sends: Sends) {
        self.pass(client);
        if sends == Sends::Opening && self.clients[client].live.is_some() {
            // A SYN that was in flight has done that by now.
            return;
        }
        let left = self.left_to(client);
        self.arrive(client, sends, Answers::default(), left);
    }

    /// What holds for a packet of a client that is sent now.
    pub(crate) fn left_to(&self, client: usize) -> Left {
        let key = self.doors[self.clients[client].vip].key();
        Left {
            vip: self.memory.vips.get(&key).copied(),
            takings_back: self.faults.takings_back,
            turns: self.turns,
            undone: false,
            untracked: false,
            sweeps: self.sweeps,
            restarts: self.tally.restarts,
            doom: self.clients[client].live.and_then(|live| live.doom),
        }
    }

    /// Sends one packet, which is held up when it has read some of the tables.
    pub(crate) fn send_slowly(&mut self, client: usize, sends: Sends) {
        self.pass(client);
        if sends == Sends::Opening && self.clients[client].live.is_some() {
            return;
        }
        let reader = Reader::imagined(&self.memory);
        let opens = sends != Sends::More;
        forward(&self.clients[client], opens, &reader);
        let mut answers = reader.into_answers();
        let read = 1 + self.random.below(answers.len() as u32);
        answers.truncate(read as usize);
        self.in_flight.push(InFlight {
            client,
            sends,
            answers,
            left: self.left_to(client),
        });
    }

    /// Lets the packet of a client through that is in flight, if there is one.
    fn pass(&mut self, client: usize) {
        let of_client = |packet: &InFlight| packet.client == client;
        if let Some(at) = self.in_flight.iter().position(of_client) {
            self.pass_at(at);
        }
    }

    /// Lets all packets in flight through.
    pub(crate) fn pass_all(&mut self) {
        while !self.in_flight.is_empty() {
            let at = self.random.below(self.in_flight.len() as u32);
            self.pass_at(at as usize);
        }
    }

    fn pass_at(&mut self, at: usize) {
        let packet = self.in_flight.swap_remove(at);
        self.tally.torn += 1;
        self.arrive(packet.client, packet.sends, packet.answers, packet.left);
    }

    /// Notes that packets in flight to a VIP were sent to `undone`, which is taken back just now.
    pub(crate) fn note_undone(&mut self, vip: usize, undone: Option<Vip>) {
        for packet in &mut self.in_flight {
            packet.left.undone |=
                self.clients[packet.client].vip == vip && packet.left.vip == undone;
        }
    }

    /// Notes that packets in flight to a VIP will find it elsewhere, whose flows nobody tracks just now.
    pub(crate) fn note_untracked(&mut self, vip: usize) {
        for packet in &mut self.in_flight {
            packet.left.untracked |= self.clients[packet.client].vip == vip;
        }
    }

    /// Whether a packet in flight may still read the ring between these slots.
    pub(crate) fn may_be_read(&self, start: u32, end: u32) -> bool {
        let mut vips = self.in_flight.iter().filter_map(|packet| packet.left.vip);
        vips.any(|vip| vip.ring_start < end && start < vip.ring_start + vip.ring_size)
    }

    /// Sends a SYN that belongs to no client.
    pub(crate) fn flood(&mut self, vip: usize) {
        let number = 1 << 24 | self.random.below(1 << 24);
        let key = self.memory.settings.hash_key;
        let stranger = Client::new(vip, &self.doors[vip], number, 0, key);
        let reader = Reader::going_on(&self.memory, Answers::default());
        forward(&stranger, true, &reader);
        self.tally.packets += 1;
        self.judge_victims();
    }

    /// Some packets of any kind.
    pub(crate) fn random_packets(&mut self) {
        for _ in 0..self.random.below(self.traffic.packets + 1) {
            self.random_packet();
        }
    }

    /// Whatever may happen at any moment.
    pub(crate) fn random_packet(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let client = self.random.below(self.clients.len() as u32) as usize;
        let sends = self.random_sends(client);
        match self.random.below(5) {
            0 => self.send_slowly(client, sends),
            1 if !self.in_flight.is_empty() => {
                let at = self.random.below(self.in_flight.len() as u32);
                self.pass_at(at as usize);
            }
            _ => self.send(client, sends),
        }
    }

    fn random_sends(&mut self, client: usize) -> Sends {
        let Client { live, udp, .. } = &self.clients[client];
        let (is_live, udp) = (live.is_some(), *udp);
        match self.random.below(12) {
            _ if !is_live => Sends::Opening,
            0 if !udp && self.traffic.syns_again => Sends::Again { answer_lost: false },
            1 if !udp && self.traffic.syns_again => Sends::Again { answer_lost: true },
            2 if !udp && self.traffic.syns_again => Sends::Forged,
            _ => Sends::More,
        }
    }

    /// A packet goes through the balancer and arrives.
    fn arrive(&mut self, index: usize, sends: Sends, known: Answers, left: Left) {
        let unremembered = self.unremembered();
        let reader = Reader::going_on(&self.memory, known);
        let opens = sends != Sends::More;
        let target = forward(&self.clients[index], opens, &reader);
        self.tally.packets += 1;
        let forgotten = self.unremembered() > unremembered;
        let vip = self.clients[index].vip;
        let answered = target.filter(|&backend| self.serving.contains(&(vip, backend)));
        let arrived = self.left_to(index);
        let strayed = target.is_some_and(|target| self.is_straggler(vip, target, &left, &arrived));
        if strayed {
            self.tally.stragglers += 1;
            let fingerprint = self.clients[index].fingerprint;
            let tracked = self.memory.tracked(fingerprint);
            self.clients[index].strayed_to = target.filter(|&target| tracked == Some(target));
        }
        self.note_led(index, target, &left);
        let untimely = self.untimely(&left, &arrived);
        self.tally.untimely += u64::from(untimely.is_some());
        if let (Sends::Opening, Some(target), None) = (sends, target, answered) {
            self.judge_refusal(index, target, &left, strayed);
        }
        match (sends, self.clients[index].live) {
            (Sends::Opening, None) | (Sends::Again { answer_lost: true }, Some(_)) => {
                self.open(index, answered, &left, untimely);
            }
            (Sends::More, Some(live)) => {
                self.more(index, &live, target, left.doom);
                self.note_seen(index, &live, &left, untimely);
            }
            _ => {}
        }
        if let Some(live) = &mut self.clients[index].live {
            live.unpinned = forgotten;
            if forgotten {
                live.forgotten = Some((self.faults.publishes, Window::Forgotten));
            }
        }
        self.judge_victims();
        let unseen = arrived.vip != left.vip && self.was_previous(index, left.vip);
        self.judge(index, |_, live| match sends {
            Sends::Again { .. } => Ok(Window::Handshake),
            Sends::Forged => Ok(Window::Reopened),
            _ if live.unpinned => Ok(Window::Forgotten),
            _ if strayed => Ok(Window::Straggler),
            _ if arrived.vip.map(kind) != left.vip.map(kind) => Ok(Window::Reconfigured),
            _ if left.untracked => Ok(Window::Untracked),
            _ if unseen => Ok(Window::Unseen),
            _ if left.undone => Ok(Window::Undone),
            _ => Err(format!("after its own packet: {sends:?}")),
        });
        self.count_again(sends);
    }

    fn count_again(&mut self, sends: Sends) {
        match sends {
            Sends::Again { .. } => self.tally.syns_again += 1,
            Sends::Forged => self.tally.forged += 1,
            _ => {}
        }
    }

    /// Writes to the flow tables that did not come about.
    fn unremembered(&self) -> u64 {
        [
            Event::OverBudget,
            Event::InsertFailed,
            Event::FlowInsertFailed,
        ]
        .map(|event| self.memory.count_of(event))
        .iter()
        .sum()
    }

    fn open(
        &mut self,
        index: usize,
        answered: Option<IpAddr>,
        left: &Left,
        untimely: Option<Publish>,
    ) {
        let Some(backend) = answered else {
            self.tally.refused += 1;
            self.clients[index].live = None;
            return;
        };
        self.tally.opened += 1;
        let client = &mut self.clients[index];
        client.live = Some(Live {
            backend,
            seen_s: self.memory.now_s,
            unseen: untimely.map(|publish| (publish, 0)),
            opened_in: self.faults.publishes,
            unpinned: false,
            forgotten: None,
            kind: left.vip.map(kind),
            doom: None,
            spared: None,
        });
    }

    /// A packet in the middle of a flow: a backend that does not know the connection resets it.
    fn more(
        &mut self,
        index: usize,
        live: &Live,
        target: Option<IpAddr>,
        doom_before: Option<Window>,
    ) {
        let backend = live.backend;
        let doom = live.doom.or(doom_before);
        let client = &mut self.clients[index];
        if target == Some(backend) {
            return;
        }
        let (vip, udp) = (client.vip, client.udp);
        let takes_it = |backend: &IpAddr| udp && self.serving.contains(&(vip, *backend));
        client.live = target.filter(takes_it).map(|backend| Live {
            backend,
            opened_in: self.faults.publishes,
            doom: None,
            ..*live
        });
        match doom {
            Some(window) => *self.tally.of(udp).broken.entry(window).or_default() += 1,
            None => {
                let what = format!("a packet came to {target:?}, but {backend} is alive");
                self.fail(index, &what);
            }
        }
    }

    /// Whether a packet that was in flight across a flip, or while full tracking forgot flows, went to
    /// a backend that was lost before or meanwhile.
    fn is_straggler(&self, vip: usize, target: IpAddr, left: &Left, arrived: &Left) -> bool {
        let backend = (vip, target);
        let turned = self.last_turns.get(&backend);
        let lost = !self.serving.contains(&backend) || turned.is_some_and(|at| *at > left.turns);
        lost && (left.vip, left.sweeps) != (arrived.vip, arrived.sweeps)
    }

    /// Where the next packet of a client would go.
    pub(crate) fn destination(&self, client: &Client) -> Option<IpAddr> {
        let reader = Reader::imagined(&self.memory);
        let settings = &self.memory.settings;
        let owner = steer::owner(&client.flow, client.middle(), settings, &reader);
        owner.ok().map(|owner| owner.backend.address.into())
    }

    pub(crate) fn client_of(&self, fingerprint: u64) -> Option<usize> {
        self.by_fingerprint.get(&fingerprint).copied()
    }
}

/// Takes a packet of `client` through the balancer. Returns the backend it was wrapped up for.
fn forward(client: &Client, opens: bool, reader: &Reader<'_>) -> Option<IpAddr> {
    let mut bytes = client.frame(opens, HEADROOM);
    let mut buffer = Buffer::new(&mut bytes, HEADROOM);
    datapath::run(&mut buffer, reader).forwarded?;
    let packet = buffer.packet();
    // Destination addresses of IPv4 and of IPv6, behind the Ethernet header.
    Some(match packet[14] >> 4 {
        4 => <[u8; 4]>::try_from(&packet[30..34]).ok()?.into(),
        _ => <[u8; 16]>::try_from(&packet[38..54]).ok()?.into(),
    })
}
