//! Which of its owners a flow belongs to, where flows have to be told apart.
//!
//! A settled slot never comes here: no look-up, no insert, whatever the packet. While a slot moves
//! from its previous to its current owner, flows are told apart by *exceptions*:
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
//! An exception counts for the move in which it was made: it carries that move's [`Mark::since`].
//! That is a second of 16 bits, which is not quite unique (*mistaken*, below). When a slot begins to move, all its live flows are the previous
//! owner's. A choice whose backend is gone, or has no next hop, falls back to the current owner. A
//! slot without a current owner (its last backend is being drained) refuses new flows and keeps the
//! others.
//!
//! **Full tracking** ([`tracking::FULL`]) remembers every flow, in a table of its own that is asked
//! first: whoever has been seen stays with its backend through any number of moves and without a
//! deadline, as long as the table holds it. A flow that the table does not know is decided as above,
//! and remembered. Opening packets go to current all the same.
//!
//! **Floods.** Exceptions are budgeted by CPU and second. Over budget, an opening packet goes to the
//! current owner without an exception, so the connection's next packet misses and meets the previous
//! owner, which resets it: under a flood, *new* connections on *moving* slots fail and are tried
//! again. Live ones do not depend on their exception, since missing means previous; that is why
//! they may take half of the budget only. The [table](crate::flow_table) is bounded: when it is
//! full, the flow that was quiet for longest is forgotten and counts as previous's again. Full
//! tracking has no budget, so a flood fills its table and evicts the quietest flows; an evicted flow
//! is decided as on any slot, which is right for all but those that an earlier change had moved.
//!
//! **Where a live connection can still change its backend**, by name. The model of the crate `tests`
//! looks for changes that none of these explains, and counts those that one does:
//!
//! - *deadline*: the slot settles while previous still has flows; they meet current and are reset.
//! - *quiet*: a connection that sends nothing for as long as slots take to settle counts as ended.
//! - *unseen*: a packet to previous comes when its slot is just being settled, after the agent has
//!   looked and before it has published.
//! - *straggler*: a packet is in flight, for microseconds, while its backend is lost. A flow that it
//!   opens is lost with that backend, even if that is back at once. And full tracking may remember the
//!   flow, until the agent has waited for the packets in flight and swept the table: till then a new
//!   flow of the same ports goes to the lost backend too.
//! - *forgotten*: an opening packet was over budget, its exception was evicted, or two CPUs wanted the
//!   same entry at once. While a publish is under way the slot may look as if it needed no entry: when
//!   that publish is taken back, it does again.
//! - *mistaken*: a slot moves, its new owner is lost, and it moves again within the same second, or 18
//!   hours later to the second, to the lost one, which is back, or to a backend that has got its id. A
//!   client of the first move who has used its ports again in between is taken for a flow of the second.
//! - *reopened*: a SYN with the ports of a live connection takes it to current; only a client that
//!   uses the ports again, or a forger who knows them, sends one.
//! - *handshake*: a SYN is sent again, after its slot has begun to move: the first one's answer
//!   comes from previous, the connection is current's.
//! - *undone*: a publish fails half-way and is taken back; connections that began in between, a few
//!   milliseconds, are decided as if it had never been. So are those of which a packet met a move that
//!   is taken back: its exception took the place of the one that counts again.
//! - *reconfigured*: the VIP's ring gets another size, its hash other fields or its flows another
//!   tracking. What full tracking knew of a UDP flow on a slot that moves is no exception: the flow
//!   goes when the window after the move began is over.
//! - *untracked*: the VIP is configured to track nothing, so every change moves flows at once.
//!
//! **Where a new flow can still meet a lost backend**: while its slot names that one; as a straggler; and
//! *unnoticed*, with full tracking: a UDP flow, which no packet opens, is remembered where its slot led
//! it, until the agent takes that backend for failed and has swept the table (the next agent, if this one
//! dies in between). As long as it does not (all backends look down, so all are used), the slot may get
//! another owner and the flow stays, for its backend may be alive.

use crate::{
    abi::{Mark, Slot, Tracking, tracking},
    flow_table::{Put, Remembered},
    frame::Frame,
    hash,
    parse::{Parsed, Payload, parse},
    steer::Tables,
};

/// The tables that tell flows apart.
pub trait FlowTables {
    /// Seconds of the monotonic clock.
    fn now_s(&self) -> u32;
    /// The mark of slot `index`, counted over all rings; `None` beyond the end.
    fn mark(&self, index: u32) -> Option<Mark>;
    /// Notes that a packet goes to the previous owner of slot `index`.
    fn note_hit(&self, index: u32, now: u16);
    /// What `table` remembers about a flow, a packet of which is there at `now_s`.
    fn recall(&self, table: FlowTable, fingerprint: u64, now_s: u32) -> Option<Remembered>;
    /// Remembers a flow, whatever was remembered before. Flows that were quiet for longer than
    /// `live_s` seconds count as ended.
    fn remember(&self, table: FlowTable, fingerprint: u64, new: Remembered, live_s: u32) -> Put;
    /// Takes one exception out of this second's budget, of which `divisor` leaves only a part.
    /// False when it is spent.
    fn spend(&self, now_s: u32, divisor: u32) -> bool;
    /// Counts what happened.
    fn count(&self, event: Event);
}

/// One of the two flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowTable {
    /// Flows on slots that move.
    Exceptions,
    /// Flows of VIPs with full tracking.
    Flows,
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

impl Packet {
    /// What a TCP or UDP packet says.
    #[inline(always)]
    pub const fn of(parsed: &Parsed) -> Self {
        match parsed.payload {
            Payload::Tcp { opens: true } => Self::Opens,
            Payload::Tcp { opens: false } => Self::Segment,
            _ => Self::Datagram,
        }
    }
}

/// Where a packet came in the tables: on a slot that moves, or at a VIP with full tracking.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Keyed hash of the flow.
    pub hash: u64,
    /// Its slot, counted over all rings.
    pub index: u32,
    /// That slot.
    pub slot: Slot,
    /// The VIP's id.
    pub vip_id: u32,
    /// See [`Settings::quiet_s`](crate::abi::Settings::quiet_s).
    pub quiet_s: u32,
    /// One of [`tracking`].
    pub tracking: Tracking,
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
    /// Full tracking knows the flow.
    Tracked,
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
            4 => Chosen::Fallback,
            _ => Chosen::Tracked,
        };
        ((self.0 >> 8) as u16, chosen)
    }
}

/// The owner of a frame that came to `place`.
///
/// Out of line, and it reads the frame once more: kept for this, the addresses would take registers
/// from the way of settled slots, which costs every packet some 8 ns.
#[inline(never)]
pub fn owner_of_frame<F: Frame, T: Tables>(frame: &F, place: &Place, tables: &T) -> Choice {
    let Ok(parsed) = parse(frame) else {
        return Choice::new(place.slot.current, Chosen::Fallback);
    };
    let fingerprint = hash::fingerprint(place.hash, &parsed.flow);
    owner(Packet::of(&parsed), fingerprint, place, tables)
}

/// The owner of the flow of `fingerprint` at `place`, which sends `packet`. Backend 0 when the slot
/// has nobody for new flows.
#[inline(always)]
pub fn owner<T: Tables>(packet: Packet, fingerprint: u64, place: &Place, tables: &T) -> Choice {
    let now_s = tables.now_s();
    if place.tracking == tracking::FULL {
        return tracked(packet, fingerprint, place, now_s, tables);
    }
    let choice = choose(packet, fingerprint, place, now_s, tables);
    let divisor = match choice.chosen {
        Chosen::New if packet == Packet::Opens => 1,
        // Half of the budget stays for new connections, which need it more.
        Chosen::Previous => 2,
        _ => return reached(choice, place, now_s, tables),
    };
    if choice.owner != 0 {
        learn(choice, fingerprint, now_s, divisor, place, tables);
    }
    reached(choice, place, now_s, tables)
}

/// An owner, and what an exception for it would carry.
#[derive(Clone, Copy)]
struct Chose {
    owner: u16,
    chosen: Chosen,
    since: u16,
}

/// The table of the module: who owns a flow on a slot that moves.
#[inline(always)]
fn choose<T: Tables>(
    packet: Packet,
    fingerprint: u64,
    place: &Place,
    now_s: u32,
    tables: &T,
) -> Chose {
    let Slot { current, previous } = place.slot;
    let since = tables.mark(place.index).unwrap_or_default().since;
    let chose = |owner, chosen| Chose {
        owner,
        chosen,
        since,
    };
    if packet == Packet::Opens {
        return chose(current, Chosen::New);
    }
    if let Some(Remembered { owner, tag, .. }) =
        tables.recall(FlowTable::Exceptions, fingerprint, now_s)
        && tag == since
        && (owner == current || owner == previous)
    {
        tables.count(Event::Hit);
        return chose(owner, Chosen::Exception);
    }
    // This clock may lag behind the one by which the agent dated the move, and be a second short.
    let age_s = match (now_s as u16).wrapping_sub(since) {
        u16::MAX => 0,
        age_s => u32::from(age_s),
    };
    if packet == Packet::Datagram && age_s >= place.quiet_s {
        return chose(current, Chosen::New);
    }
    chose(previous, Chosen::Previous)
}

#[inline(always)]
fn learn<T: Tables>(
    chose: Chose,
    fingerprint: u64,
    now_s: u32,
    divisor: u32,
    place: &Place,
    tables: &T,
) {
    if !tables.spend(now_s, divisor) {
        return tables.count(Event::OverBudget);
    }
    let new = Remembered {
        owner: chose.owner,
        tag: chose.since,
        seen_s: now_s,
    };
    match tables.remember(FlowTable::Exceptions, fingerprint, new, place.quiet_s) {
        Put::Updated | Put::Inserted => tables.count(Event::Insert),
        Put::Evicted => {
            tables.count(Event::Insert);
            tables.count(Event::Evict);
        }
        Put::Lost => tables.count(Event::InsertFailed),
    }
}

/// Full tracking: what is remembered, else what the slot says, which is remembered.
#[inline(always)]
fn tracked<T: Tables>(
    packet: Packet,
    fingerprint: u64,
    place: &Place,
    now_s: u32,
    tables: &T,
) -> Choice {
    let tag = place.vip_id as u16;
    if packet != Packet::Opens
        && let Some(known) = tables.recall(FlowTable::Flows, fingerprint, now_s)
        && known.tag == tag
        && is_reachable(known.owner, tables)
    {
        tables.count(Event::FlowHit);
        if known.owner == place.slot.previous && place.slot.moves() {
            note_hit(place, now_s, tables);
        }
        return Choice::new(known.owner, Chosen::Tracked);
    }
    let choice = if place.slot.moves() {
        let chose = choose(packet, fingerprint, place, now_s, tables);
        reached(chose, place, now_s, tables)
    } else {
        Choice::new(place.slot.current, Chosen::Settled)
    };
    let (owner, _) = choice.unpack();
    if owner == 0 {
        return choice;
    }
    let seen_s = now_s;
    let new = Remembered { owner, tag, seen_s };
    match tables.remember(FlowTable::Flows, fingerprint, new, place.quiet_s) {
        Put::Updated | Put::Inserted => tables.count(Event::FlowInsert),
        Put::Evicted => {
            tables.count(Event::FlowInsert);
            tables.count(Event::FlowEvict);
        }
        Put::Lost => tables.count(Event::FlowInsertFailed),
    }
    choice
}

/// The choice, or the current owner when the chosen previous one cannot be reached.
#[inline(always)]
fn reached<T: Tables>(chose: Chose, place: &Place, now_s: u32, tables: &T) -> Choice {
    let Slot { current, previous } = place.slot;
    if chose.owner == current {
        return Choice::new(current, chose.chosen);
    }
    if !is_reachable(previous, tables) {
        return Choice::new(current, Chosen::Fallback);
    }
    note_hit(place, now_s, tables);
    Choice::new(previous, chose.chosen)
}

#[inline(always)]
fn is_reachable<T: Tables>(backend_id: u16, tables: &T) -> bool {
    tables
        .backend(backend_id)
        .is_some_and(|backend| backend.hop.ifindex != 0)
}

/// Notes, once a second, that the slot's previous owner still has flows.
#[inline(always)]
fn note_hit<T: Tables>(place: &Place, now_s: u32, tables: &T) {
    let now = now_s as u16;
    let mark = tables.mark(place.index);
    if mark.is_some_and(|mark| mark.hit != now) {
        tables.note_hit(place.index, now);
    }
}

macro_rules! events {
    ($($variant:ident, $name:literal, $text:literal;)+) => {
        /// What can happen where flows are told apart. The numbers are indexes of the counter map.
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
    Evict, "evict", "The table was full: a live flow was forgotten for another.";
    OverBudget, "over_budget", "Not remembered: this second's budget is spent.";
    InsertFailed, "insert_failed", "Not remembered: another CPU wrote there at this moment.";
    FlowHit, "flow_hit", "Full tracking knew the owner of a packet's flow.";
    FlowInsert, "flow_insert", "Full tracking remembered the owner of a flow.";
    FlowEvict, "flow_evict", "Full tracking forgot a live flow for another: its table is full.";
    FlowInsertFailed, "flow_insert_failed", "Full tracking lost an entry to another CPU.";
}

/// Number of events: elements of the counter map.
pub const EVENTS: u32 = Event::ALL.len() as u32;
