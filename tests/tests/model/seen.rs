//! What has changed while a packet was in flight, and which packets the agent cannot know of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_ebpf::abi::{Vip, VipKey};

use crate::client::{Live, Publish};
use crate::window::Window;
use crate::wire::{Faults, Wire};

/// What held when a packet was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// The VIP it was sent to.
    pub(crate) vip: Option<Vip>,
    /// How often something had been taken back.
    pub(crate) takings_back: u32,
    /// Where its VIP pointed then was taken back since.
    pub(crate) undone: bool,
    /// Its VIP was pointed elsewhere since while nobody tracked its flows.
    pub(crate) untracked: bool,
    /// How often a backend had gone or come.
    pub(crate) turns: u64,
    /// How often full tracking had forgotten flows.
    pub(crate) sweeps: u64,
    /// How often an agent had taken over.
    pub(crate) restarts: u64,
    /// Why it would go elsewhere.
    pub(crate) doom: Option<Window>,
}

/// Ring size, hash and tracking: what makes a VIP another one for its flows.
pub(crate) type Kind = (u32, u8, u8);

/// Backends by VIP.
pub(crate) type Kept = BTreeMap<VipKey, BTreeSet<IpAddr>>;

/// The kind of a VIP.
pub(crate) fn kind(vip: Vip) -> Kind {
    (vip.ring_size, vip.hash, vip.tracking)
}

impl Wire {
    /// The publish that keeps the agent from knowing of a packet.
    pub(crate) fn untimely(&self, left: &Left, arrived: &Left) -> Option<Publish> {
        let Faults {
            publishing,
            publishes,
            ..
        } = self.faults;
        match (left.vip == arrived.vip, publishing) {
            (true, false) => None,
            // Noted at a ring of which this agent does not know that it was there.
            (false, _)
                if (left.restarts, left.takings_back)
                    != (arrived.restarts, arrived.takings_back) =>
            {
                Some(Publish::MAX)
            }
            // Noted at the ring before this one, where the agent looks next time.
            (true, true) | (false, false) => Some(publishes),
            // Noted at the ring that is just being overwritten.
            (false, true) => Some(Publish::MAX),
        }
    }

    /// Every packet is through that was in flight when a backend was lost, and nothing is remembered
    /// of it.
    pub(crate) fn forget_stragglers(&mut self) {
        for client in &mut self.clients {
            client.strayed_to = None;
        }
    }

    /// A publish begins after which the agent will keep these backends.
    pub(crate) fn note_publish(&mut self, keeps: &Kept) {
        self.before = self.memory.vips.clone();
        // Packets see some of what was and some of what will be.
        for (key, backends) in keeps {
            self.kept.entry(*key).or_default().extend(backends);
        }
    }

    /// What was published is what holds: full tracking knows nobody any more but whom the agent keeps.
    pub(crate) fn note_published(&mut self, keeps: Kept) {
        self.kept = keeps;
        for index in 0..self.clients.len() {
            let led_to = self.clients[index].led_to;
            self.clients[index].led_to = led_to.filter(|backend| self.keeps(index, backend));
        }
    }

    /// Whether the agent has not given up a backend of a client's VIP, whose flows are all tracked.
    fn keeps(&self, index: usize, backend: &IpAddr) -> bool {
        let key = self.doors[self.clients[index].vip].key();
        let kept = self.kept.get(&key);
        kept.is_some_and(|kept| kept.contains(backend))
    }

    /// A packet went to `target`, which full tracking may remember if that was right.
    pub(crate) fn note_led(&mut self, index: usize, target: Option<IpAddr>, left: &Left) {
        let client = &self.clients[index];
        let led_to = target.filter(|target| {
            let named = left.vip.is_some_and(|vip| self.names(client, vip, *target));
            self.keeps(index, target) && (named || client.led_to == Some(*target))
        });
        self.clients[index].led_to = led_to;
    }

    /// An agent takes over: it takes it that whoever is there was heard just now.
    pub(crate) fn note_takeover(&mut self) {
        self.tally.restarts += 1;
        for live in self
            .clients
            .iter_mut()
            .filter_map(|client| client.live.as_mut())
        {
            live.unseen = None;
        }
    }

    /// A packet of a flow, which was `before`, was seen.
    pub(crate) fn note_seen(
        &mut self,
        index: usize,
        before: &Live,
        left: &Left,
        untimely: Option<Publish>,
    ) {
        let known_s = self.known_s(before);
        if let Some(live) = &mut self.clients[index].live {
            live.seen_s = self.memory.now_s;
            live.kind = left.vip.map(kind);
            live.unseen = untimely.map(|publish| (publish, known_s));
        }
    }

    /// When the last packet of a flow came that the agent of this publish can know of.
    pub(crate) fn known_s(&self, live: &Live) -> u32 {
        match live.unseen {
            Some((publish, known_s)) if publish >= self.faults.publishes => known_s,
            _ => live.seen_s,
        }
    }
}
