//! The windows in which a live flow may still change its backend, and what came of them.

use std::collections::BTreeMap;

/// One of the windows that the documentation of [`lb_ebpf::track`] lists, by the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Window {
    Deadline,
    Quiet,
    Forgotten,
    Mistaken,
    Reopened,
    Handshake,
    Unseen,
    Straggler,
    Undone,
    Reconfigured,
    Untracked,
}

impl Window {
    pub(crate) const ALL: [Self; 11] = [
        Self::Deadline,
        Self::Quiet,
        Self::Forgotten,
        Self::Mistaken,
        Self::Reopened,
        Self::Handshake,
        Self::Unseen,
        Self::Straggler,
        Self::Undone,
        Self::Reconfigured,
        Self::Untracked,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Quiet => "quiet",
            Self::Forgotten => "forgotten",
            Self::Mistaken => "mistaken",
            Self::Reopened => "reopened",
            Self::Handshake => "handshake",
            Self::Unseen => "unseen",
            Self::Straggler => "straggler",
            Self::Undone => "undone",
            Self::Reconfigured => "reconfigured",
            Self::Untracked => "untracked",
        }
    }
}

/// What the model has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Packets that were decided.
    pub(crate) packets: u64,
    /// Packets that were decided by tables of which a part was read before a write.
    pub(crate) torn: u64,
    /// Connections and UDP flows that began.
    pub(crate) opened: u64,
    /// Opening packets that nobody answered.
    pub(crate) refused: u64,
    /// Those of them that full tracking sent to a lost backend, because a packet that was in flight
    /// meanwhile had been remembered.
    pub(crate) refused_strayed: u64,
    /// Those of them that full tracking sent to a backend that failed *unnoticed*, and that their slot
    /// had named.
    pub(crate) refused_unnoticed: u64,
    /// Flows whose backend failed or was removed.
    pub(crate) lost: u64,
    /// Packets that were in flight while their backend was lost.
    pub(crate) stragglers: u64,
    /// SYNs sent again.
    pub(crate) syns_again: u64,
    /// SYNs with the ports of live connections.
    pub(crate) forged: u64,
    /// Times a VIP was pointed to another ring.
    pub(crate) flips: u64,
    /// Times an agent took over what another had left.
    pub(crate) restarts: u64,
    /// Packets that came while something was published, or were in flight meanwhile.
    pub(crate) untimely: u64,
    /// Configurations that made another kind of VIP.
    pub(crate) reconfigured: u64,
    /// TCP connections.
    pub(crate) tcp: Changes,
    /// UDP flows.
    pub(crate) udp: Changes,
}

/// Flows that changed their backend, by window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Live flows whose next packet would go elsewhere.
    pub(crate) doomed: BTreeMap<Window, u64>,
    /// Those whose next packet did go elsewhere. A TCP connection is reset then.
    pub(crate) broken: BTreeMap<Window, u64>,
}

impl Tally {
    pub(crate) fn of(&mut self, udp: bool) -> &mut Changes {
        if udp { &mut self.udp } else { &mut self.tcp }
    }

    /// Live flows, TCP and UDP, that were doomed in `window`.
    pub(crate) fn doomed(&self, window: Window) -> u64 {
        let of = |changes: &Changes| changes.doomed.get(&window).copied().unwrap_or(0);
        of(&self.tcp) + of(&self.udp)
    }
}

/// Documentation and model name the same windows.
#[test]
fn every_window_is_listed_in_the_documentation() {
    let documentation = include_str!("../../../lb-ebpf/src/track.rs");
    for window in Window::ALL {
        let item = format!("//! - *{}*: ", window.name());
        assert!(documentation.contains(&item), "{item}");
    }
    let listed = documentation.matches("\n//! - *").count();
    assert_eq!(
        listed,
        Window::ALL.len(),
        "the model knows all that is listed"
    );
}
