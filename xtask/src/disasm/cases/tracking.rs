//! What a balancer may have to remember when a packet comes.
use lb_ebpf::track::Event;

use crate::disasm::contents::State;

/// What is remembered of a flow, and where.
#[derive(Debug)]
pub(in crate::disasm) struct Tracking {
    pub(in crate::disasm) name: &'static str,
    /// What is special about the VIP.
    pub(super) state: State,
    /// The flow has sent a packet before.
    pub(super) is_known: bool,
    /// What a SYN brings about, which is new by definition.
    pub(super) opens: &'static [Event],
    /// What any other packet brings about.
    pub(super) other: &'static [Event],
}

/// Nothing is remembered: all slots are settled.
pub(super) const NOTHING: State = State {
    moves: false,
    tracks: false,
    is_full: false,
};
const MOVES: State = State {
    moves: true,
    ..NOTHING
};
const TRACKS: State = State {
    tracks: true,
    ..NOTHING
};

/// What a balancer may have to remember when a packet comes.
pub(in crate::disasm) const TRACKING: [Tracking; 7] = [
    Tracking {
        name: "settled",
        state: NOTHING,
        is_known: false,
        opens: &[],
        other: &[],
    },
    Tracking {
        name: "moving-new",
        state: MOVES,
        is_known: false,
        opens: &[Event::Insert],
        other: &[Event::Insert],
    },
    Tracking {
        name: "moving-known",
        state: MOVES,
        is_known: true,
        opens: &[Event::Insert],
        other: &[Event::Hit],
    },
    Tracking {
        name: "moving-evict",
        state: State {
            is_full: true,
            ..MOVES
        },
        is_known: false,
        opens: &[Event::Insert, Event::Evict],
        other: &[Event::Insert, Event::Evict],
    },
    Tracking {
        name: "full-new",
        state: TRACKS,
        is_known: false,
        opens: &[Event::FlowInsert],
        other: &[Event::FlowInsert],
    },
    Tracking {
        name: "full-known",
        state: TRACKS,
        is_known: true,
        opens: &[Event::FlowInsert],
        other: &[Event::FlowHit],
    },
    Tracking {
        name: "full-evict",
        state: State {
            is_full: true,
            ..TRACKS
        },
        is_known: false,
        opens: &[Event::FlowInsert, Event::FlowEvict],
        other: &[Event::FlowInsert, Event::FlowEvict],
    },
];
