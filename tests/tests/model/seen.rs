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
            // Noted at the ring before this one, where the agent looks next time.
            (true, true) | (false, false) => Some(publishes),
            // Noted at the ring that is just being overwritten.
            (false, true) => Some(Publish::MAX),
        }
    }

    /// A packet of a flow, which was `before`, was seen.
    pub(crate) fn note_seen(&mut self, index: usize, before: &Live, untimely: Option<Publish>) {
        let known_s = self.known_s(before);
        if let Some(live) = &mut self.clients[index].live {
            live.seen_s = self.memory.now_s;
            live.unseen = untimely.map(|publish| (publish, known_s));
        }
    }

    /// When the last packet of a flow came that the agent of this publish can know of.
    pub(crate) fn known_s(&self, live: &Live) -> u32 {
        let of_another =
            |publish| publish < self.faults.publishes && !self.last_publishes.contains(&publish);
        match live.unseen {
            Some((publish, known_s)) if !of_another(publish) => known_s,
            _ => live.seen_s,
        }
    }
}
