//! Just-enough tracking: who owns a flow while its slot moves.
//!
//! A settled slot never comes here: no look-up, no insert, whatever the packet. While a slot moves
//! from its previous to its current owner, and only then, flows are told apart:
//!
//! | packet | exception of this move | goes to | leaves |
//! |---|---|---|---|
//! | TCP, opens (SYN without ACK) | any | current | exception → current |
//! | other TCP | names current or previous | that one | - |
//! | other TCP | none | previous | exception → previous |
//! | UDP | names current or previous | that one | - |
//! | UDP, in the window after the move began | none | previous | exception → previous |
//! | UDP, later | none | current | - |
//!
//! An exception counts for the move in which it was made ([`Mark::since`]); when a slot begins to
//! move, all its live flows are the previous owner's. A choice whose backend is gone, or has no next
//! hop, falls back to the current owner.
//!
//! **Floods.** Exceptions are budgeted by CPU and second. Over budget, an opening packet goes to the
//! current owner without an exception, so the connection's next packet misses and meets the previous
//! owner, which resets it: under a flood, *new* connections on *moving* slots fail and are tried
//! again. Live ones do not depend on their exception, since missing means previous; that is why
//! they may take half of the budget only. The exceptions themselves are a bounded LRU: a flow that
//! is forgotten counts as previous's again, so what a full table costs is the new connections that
//! were quiet for longest.
//!
//! **Where a live connection can still change its backend**, by name:
//!
//! - *deadline*: the slot settles while previous still has flows; they meet current and are reset.
//! - *quiet*: a connection that sends nothing for as long as slots take to settle counts as ended.
//! - *forgotten*: an opening packet was over budget, or its exception fell out of the full table.
//! - *reopened*: a SYN with the ports of a live connection takes it to current; only a client that
//!   uses the ports again, or a forger who knows them, sends one.

use crate::{
    abi::{Exception, FlowKey, Mark, Slot},
    frame::Frame,
    parse::{Payload, parse},
    steer::Tables,
};

/// The tables of slots that move.
pub trait Exceptions {
    /// Seconds of the monotonic clock.
    fn now_s(&self) -> u32;
    /// The mark of slot `index`, counted over all rings; `None` beyond the end.
    fn mark(&self, index: u32) -> Option<Mark>;
    /// Notes that a packet goes to the previous owner of slot `index`.
    fn note_hit(&self, index: u32, now: u16);
    /// What is remembered about a flow.
    fn exception(&self, key: &FlowKey) -> Option<Exception>;
    /// Takes one exception out of this second's budget, of which `divisor` leaves only a part.
    /// False when it is spent.
    fn spend(&self, now_s: u32, divisor: u32) -> bool;
    /// Remembers the owner of a flow, whatever was remembered before. False when that failed.
    fn remember(&self, key: &FlowKey, exception: &Exception) -> bool;
    /// Counts what happened.
    fn count(&self, event: Event);
}

/// What a packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The first TCP packet of a connection.
    Opens,
    /// Any other TCP packet.
    Segment,
    /// A UDP datagram.
    Datagram,
}

/// A packet on a slot that moves.
#[derive(Clone, Copy, Debug)]
pub struct Moving {
    /// Its flow.
    pub key: FlowKey,
    /// Its slot, counted over all rings.
    pub index: u32,
    /// That slot.
    pub slot: Slot,
    /// Which packet it is.
    pub packet: Packet,
    /// See [`Settings::udp_window_s`](crate::abi::Settings::udp_window_s).
    pub udp_window_s: u32,
}

/// What made a backend the owner of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Chosen {
    /// The slot is settled.
    Settled,
    /// The slot moves, and the flow is new.
    New,
    /// The slot moves, and an exception names the owner.
    Exception,
    /// The slot moves, and nothing is remembered: an earlier flow.
    Previous,
    /// The slot moves, and the one who was chosen cannot be reached: the current owner instead.
    Fallback,
}

/// A backend id and a [`Chosen`] in one register: a BPF function returns no more.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Choice(u32);

impl Choice {
    #[inline(always)]
    const fn new(backend_id: u16, chosen: Chosen) -> Self {
        Self((backend_id as u32) << 8 | chosen as u32)
    }

    /// The two parts.
    #[inline(always)]
    pub const fn unpack(self) -> (u16, Chosen) {
        let chosen = match self.0 as u8 {
            0 => Chosen::Settled,
            1 => Chosen::New,
            2 => Chosen::Exception,
            3 => Chosen::Previous,
            _ => Chosen::Fallback,
        };
        ((self.0 >> 8) as u16, chosen)
    }
}

/// The owner of a frame on a slot that moves.
///
/// Out of line, and it reads the frame once more: kept for this, the addresses would take registers
/// from the way of settled slots, which costs every packet some 8 ns.
#[inline(never)]
pub fn owner_of_frame<F: Frame, T: Tables>(
    frame: &F,
    index: u32,
    slot: Slot,
    udp_window_s: u32,
    tables: &T,
) -> Choice {
    let Ok(parsed) = parse(frame) else {
        return Choice::new(slot.current, Chosen::Fallback);
    };
    let packet = match parsed.payload {
        Payload::Tcp { opens: true } => Packet::Opens,
        Payload::Tcp { opens: false } => Packet::Segment,
        _ => Packet::Datagram,
    };
    let moving = Moving {
        key: FlowKey::new(&parsed.flow),
        index,
        slot,
        packet,
        udp_window_s,
    };
    owner(&moving, tables)
}

/// The owner of a packet's flow on a slot that moves.
#[inline(always)]
pub fn owner<T: Tables>(moving: &Moving, tables: &T) -> Choice {
    let (owner, chosen) = choose(moving, tables);
    let Slot { current, previous } = moving.slot;
    if owner == current {
        return Choice::new(current, chosen);
    }
    let reached = tables
        .backend(previous)
        .is_some_and(|backend| backend.family != 0 && backend.hop().ifindex != 0);
    if !reached {
        return Choice::new(current, Chosen::Fallback);
    }
    let now = tables.now_s() as u16;
    if tables
        .mark(moving.index)
        .is_some_and(|mark| mark.hit != now)
    {
        tables.note_hit(moving.index, now);
    }
    Choice::new(previous, chosen)
}

#[inline(always)]
fn choose<T: Tables>(moving: &Moving, tables: &T) -> (u16, Chosen) {
    let Slot { current, previous } = moving.slot;
    let now_s = tables.now_s();
    if moving.packet == Packet::Opens {
        learn(moving, current, now_s, 1, tables);
        return (current, Chosen::New);
    }
    let since = tables.mark(moving.index).unwrap_or_default().since;
    let age_s = u32::from((now_s as u16).wrapping_sub(since));
    if let Some(exception) = tables.exception(&moving.key)
        && now_s.wrapping_sub(exception.made_s) <= age_s
        && (exception.owner == current || exception.owner == previous)
    {
        tables.count(Event::Hit);
        return (exception.owner, Chosen::Exception);
    }
    if moving.packet == Packet::Datagram && age_s >= moving.udp_window_s {
        return (current, Chosen::New);
    }
    // Half of the budget stays for new connections, which need it more.
    learn(moving, previous, now_s, 2, tables);
    (previous, Chosen::Previous)
}

#[inline(always)]
fn learn<T: Tables>(moving: &Moving, owner: u16, now_s: u32, divisor: u32, tables: &T) {
    if !tables.spend(now_s, divisor) {
        return tables.count(Event::OverBudget);
    }
    let exception = Exception {
        made_s: now_s,
        owner,
        reserved: 0,
    };
    tables.count(if tables.remember(&moving.key, &exception) {
        Event::Insert
    } else {
        Event::InsertFailed
    });
}

macro_rules! events {
    ($($variant:ident, $name:literal, $text:literal;)+) => {
        /// What can happen on a slot that moves. The numbers are indexes of the counter map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Event {
            $(#[doc = $text] $variant,)+
        }

        impl Event {
            /// All events, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Name for metrics and the CLI, in snake case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for people.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

events! {
    Hit, "hit", "An exception named the owner of a packet's flow.";
    Insert, "insert", "The owner of a flow was remembered.";
    OverBudget, "over_budget", "Not remembered: this second's budget is spent.";
    InsertFailed, "insert_failed", "Not remembered: the kernel refused the insert.";
}

/// Number of events: elements of the counter map.
pub const EVENTS: u32 = Event::ALL.len() as u32;
