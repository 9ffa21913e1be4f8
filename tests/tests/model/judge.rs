//! The invariant: where a live flow's next packet would go changes only in one of the windows.
//!
//! A flow is *doomed* from the moment at which its next packet would go elsewhere. The model looks
//! after whatever may bring that about (a flip, a packet of the flow, an entry taken for another flow,
//! time), and asks whether this event is one that may. So a window is found by its cause, at the
//! cause, and not by what is left when all others are ruled out.

use std::net::IpAddr;

use lb_ebpf::abi::{Mark, Slot, Vip, tracking};
use lb_ebpf::hash;

use crate::client::{Client, Live};
use crate::seen::{Left, kind};
use crate::window::Window;
use crate::wire::Wire;

/// Doomed flows that are remembered with their circumstances.
const STORY_MAX: usize = 20;

/// The window that an event opens for a flow, or why it must not.
pub(crate) type Verdict = Result<Window, String>;

impl Wire {
    /// Looks at one client after an event that `explain` explains.
    pub(crate) fn judge(&mut self, index: usize, explain: impl FnOnce(&Self, &Live) -> Verdict) {
        let client = &self.clients[index];
        let Some(live) = client.live else {
            return;
        };
        let udp = client.udp;
        let right = self.destination(client) == Some(live.backend);
        let spared = live.doom.map(|window| (self.faults.publishes, window));
        let doom = match (right, live.doom) {
            (true, _) => None,
            (false, Some(window)) => Some(window),
            (false, None) if let Some(window) = self.spared_from(&live) => Some(window),
            (false, None) => match explain(self, &live) {
                Ok(window) => {
                    self.note(index, window);
                    *self.tally.of(udp).doomed.entry(window).or_default() += 1;
                    Some(window)
                }
                Err(what) => return self.fail(index, &what),
            },
        };
        let spared = if right { spared.or(live.spared) } else { None };
        self.clients[index].live = Some(Live {
            doom,
            spared,
            ..live
        });
    }

    /// What a flow was spared from by something that is now taken back.
    fn spared_from(&self, live: &Live) -> Option<Window> {
        let (publish, window) = live.spared?;
        (self.faults.taking_back && publish == self.faults.publishes).then_some(window)
    }

    /// Looks at the flows that were forgotten for others.
    pub(crate) fn judge_victims(&mut self) {
        for victim in self.memory.take_victims() {
            let Some(index) = self.client_of(victim.fingerprint) else {
                continue;
            };
            let Some(live) = self.clients[index].live else {
                continue;
            };
            // What a packet of its own did not leave there was not renewed either.
            let window = match victim.evicted || live.unpinned {
                true => Some(Window::Forgotten),
                false => self.is_quiet(&live).then_some(Window::Quiet),
            };
            self.judge(index, |_, _| {
                window.ok_or_else(|| "its entry was taken while it was live".to_owned())
            });
            let publish = self.faults.publishes;
            if let Some(live) = &mut self.clients[index].live {
                live.unpinned = true;
                live.forgotten = window.map(|window| (publish, window));
            }
        }
    }

    /// Looks at the UDP flows: for those that nothing is remembered of, time decides.
    pub(crate) fn judge_time(&mut self) {
        for index in 0..self.clients.len() {
            if self.clients[index].udp {
                self.judge(index, |wire, live| match live.unpinned {
                    true => Ok(Window::Forgotten),
                    false if wire.is_quiet(live) => Ok(Window::Quiet),
                    // What its packets left is where nobody looks any more.
                    false if wire.left_to(index).vip.map(kind) != live.kind => {
                        Ok(Window::Reconfigured)
                    }
                    false => Err("time passed".to_owned()),
                });
            }
        }
    }

    /// Looks at the flows after full tracking has forgotten those of lost backends, and with them what
    /// packets left there that were in flight meanwhile.
    pub(crate) fn judge_sweep(&mut self) {
        for index in 0..self.clients.len() {
            let strayed_to = self.clients[index].strayed_to;
            self.judge(index, |_, live| match strayed_to == Some(live.backend) {
                true => Ok(Window::Straggler),
                false => Err("full tracking forgot it".to_owned()),
            });
        }
    }

    /// Looks at all flows when nothing has happened since somebody looked.
    pub(crate) fn judge_all(&mut self) {
        for index in 0..self.clients.len() {
            self.judge(index, |_, _| Err("nobody knows when".to_owned()));
        }
    }

    /// Looks at the flows of a VIP that was `old` a moment ago, and is `new`.
    pub(crate) fn judge_flip(&mut self, vip: usize, old: Option<Vip>, new: Option<Vip>) {
        for index in 0..self.clients.len() {
            if self.clients[index].vip == vip {
                self.judge(index, |wire, live| {
                    wire.explain_flip(&wire.clients[index], live, old, new)
                });
            }
        }
    }

    fn explain_flip(
        &self,
        client: &Client,
        live: &Live,
        old: Option<Vip>,
        new: Option<Vip>,
    ) -> Verdict {
        let (Some(old), Some(new)) = (old, new) else {
            return Err("its VIP came or went".to_owned());
        };
        if kind(old) != kind(new) {
            return Ok(Window::Reconfigured);
        }
        if self.untracked.contains(&client.vip) {
            return Ok(Window::Untracked);
        }
        if self.faults.taking_back {
            return self.explain_taking_back(client, live, old, new);
        }
        let at = self.slot_number(client, old);
        let slot = |vip: Vip| self.memory.slots[(vip.ring_start + at) as usize];
        if self.is_mistaken(client, slot(old), new.ring_start + at) {
            return Ok(Window::Mistaken);
        }
        let planned = self.planned.get(&self.doors[client.vip].key());
        let mark = planned.and_then(|marks| marks.get(at as usize)).copied();
        let story = || {
            let now = self.clock.now;
            format!("at {now} {:?} {mark:?} became {:?}", slot(old), slot(new))
        };
        let was_previous = slot(old).moves() && self.is(slot(old).previous, live);
        let Some(mark) = mark.filter(|_| was_previous) else {
            return Err(story());
        };
        self.explain_end(mark, slot(new), live).ok_or_else(story)
    }

    /// `old` is taken back, and `new` is there once more. All that a packet reads is again as it was
    /// before the publish, but for what packets have left in the flow tables meanwhile: flows that
    /// began in between, and what has become of the flow's own entry. Nothing else is an explanation: a
    /// flow with the same entry as before finds its backend, or not everything was taken back.
    fn explain_taking_back(&self, client: &Client, live: &Live, old: Vip, new: Vip) -> Verdict {
        if self.before.get(&self.doors[client.vip].key()) != Some(&new) {
            return Err("its VIP is not what it was before the publish".to_owned());
        }
        if live.opened_in == self.faults.publishes {
            return Ok(Window::Undone);
        }
        let at = self.slot_number(client, new);
        let exception = self.memory.exception(client.fingerprint);
        let known_in = |vip: Vip| {
            let (slot, since) = self.memory.moving(vip.ring_start + at);
            slot.moves() && exception.is_some_and(|known| known.tag == since)
        };
        let full = new.tracking == tracking::FULL;
        if !full && known_in(old) && !known_in(new) {
            // A packet has met the move that is undone, and what it left took the place of what was
            // known of the flow.
            return Ok(Window::Undone);
        }
        let known = match full {
            true => self.memory.tracked(client.fingerprint) == Some(live.backend),
            false => known_in(new),
        };
        match live.forgotten {
            Some((publish, window)) if publish == self.faults.publishes && !known => Ok(window),
            _ => Err("its publish is taken back, and nothing has become of its entry".to_owned()),
        }
    }

    /// Whether a move that begins just now at slot `index` has an exception for a flow: then that one is
    /// of a move that began in the same second.
    fn is_mistaken(&self, client: &Client, before: Slot, index: u32) -> bool {
        let (slot, since) = self.memory.moving(index);
        let known = self.memory.exception(client.fingerprint);
        !before.moves()
            && slot.moves()
            && known.is_some_and(|known| known.tag == since && known.owner == slot.current)
    }

    /// Number of a client's slot in the ring of `vip`.
    fn slot_number(&self, client: &Client, vip: Vip) -> u32 {
        let hash = hash::flow(self.memory.settings.hash_key, &client.flow, vip.hash);
        hash::slot(hash, vip.ring_size)
    }

    /// Whether the owner of a flow was previous in the ring of `old`, which the VIP has left.
    pub(crate) fn was_previous(&self, index: usize, old: Option<Vip>) -> bool {
        let client = &self.clients[index];
        let (Some(live), Some(old)) = (client.live, old) else {
            return false;
        };
        let at = old.ring_start + self.slot_number(client, old);
        let slot = self.memory.slots[at as usize];
        slot.moves() && self.is(slot.previous, &live)
    }

    /// Whether the slot of a client in the ring of `vip` names a backend.
    pub(crate) fn names(&self, client: &Client, vip: Vip, backend: IpAddr) -> bool {
        let at = vip.ring_start + self.slot_number(client, vip);
        let slot = self.memory.slots[at as usize];
        let address = |id: u16| IpAddr::from(self.memory.backends[usize::from(id)].address);
        [slot.current, slot.previous]
            .map(address)
            .contains(&backend)
    }

    /// Looks at a new flow that was sent to a backend which does not answer: the slot may name it that
    /// was its slot when it `left` (nobody else is there), or a packet that was in flight meanwhile, or
    /// full tracking what the slot named before, if the agent has not given that backend up since. Nothing
    /// else may, and a SYN asks the slot alone.
    pub(crate) fn judge_refusal(
        &mut self,
        index: usize,
        target: IpAddr,
        left: &Left,
        straggler: bool,
    ) {
        let client = &self.clients[index];
        let named = left.vip.is_some_and(|vip| self.names(client, vip, target));
        let led = client.udp && client.led_to == Some(target);
        let strayed = straggler || client.strayed_to == Some(target);
        self.tally.refused_unnoticed += u64::from(led && !named);
        self.tally.refused_strayed += u64::from(strayed && !led && !named);
        if !named && !led && !strayed {
            let what = format!("a new flow was sent to {target}, which is lost");
            self.fail(index, &what);
        }
    }

    /// Why a slot that still had a flow of its previous owner may forget that one.
    fn explain_end(&self, mark: Mark, new: Slot, live: &Live) -> Option<Window> {
        let since = |then: u16| self.clock.now.wrapping_sub(then);
        if self.is(new.previous, live) {
            return None;
        }
        if since(mark.since) >= self.clock.deadline {
            return Some(Window::Deadline);
        }
        if since(mark.hit) < self.clock.quiet {
            return None;
        }
        if self.is_quiet(live) {
            return Some(Window::Quiet);
        }
        let known_s = self.memory.now_s - self.known_s(live);
        (known_s >= u32::from(self.clock.quiet)).then_some(Window::Unseen)
    }

    /// Whether backend `id` is the one of the flow.
    fn is(&self, id: u16, live: &Live) -> bool {
        let backend = self.memory.backends.get(usize::from(id));
        backend.is_some_and(|backend| IpAddr::from(backend.address) == live.backend)
    }

    /// Whether a flow was silent for as long as slots take to settle.
    fn is_quiet(&self, live: &Live) -> bool {
        self.memory.now_s - live.seen_s >= u32::from(self.clock.quiet)
    }

    /// Remembers the first flows that are doomed, for whoever reads about a failure.
    fn note(&mut self, index: usize, window: Window) {
        if self.story.len() < STORY_MAX {
            let (now_s, live) = (self.memory.now_s, self.clients[index].live);
            let text = format!("at {now_s} client {index}, {live:?}: {}", window.name());
            self.story.push(text);
        }
    }

    pub(crate) fn fail(&mut self, index: usize, what: &str) {
        let client = &self.clients[index];
        let vip = self.doors[client.vip];
        let text = format!(
            "at {} client {index} of {vip:?}, {:?}, would go to {:?}: {what}",
            self.memory.now_s,
            client.live,
            self.destination(client),
        );
        self.failure.get_or_insert(text);
    }
}
