//! What has changed while a packet was in flight, and which packets the agent cannot know of.

use lb_ebpf::abi::Vip;

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
