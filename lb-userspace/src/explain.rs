//! `weir explain`: what becomes of a packet, and why.
//!
//! The decision is the kernel's own code ([`steer::owner`]) over the live tables. What is added here
//! is only the way to it, told in sentences.

use std::net::{IpAddr, SocketAddr};

use lb_ebpf::abi::{self, Vip, VipKey, forward, tracking};
use lb_ebpf::flow::{Family, Flow};
use lb_ebpf::hash;
use lb_ebpf::reason::Reason;
use lb_ebpf::steer::{self, Owner, Tables};
use lb_ebpf::track::{Chosen, Packet};

use crate::api::types::{ExplainQuery, Explanation, Slot};
use crate::config::{Forward, Protocol};
use crate::control::state::protocol_number;

/// What the tables do not know: names.
pub trait Names {
    /// Name of the VIP under `key`, and how often its ring was published.
    fn vip(&self, key: &VipKey) -> Option<(String, u64)>;
    /// Name of the backend `id` of the VIP named `vip`.
    fn backend(&self, vip: &str, id: u16) -> Option<String>;
}

/// Explains one packet. `Explanation::backend` is left to the caller, who is told the owner's name.
pub fn explain<T: Tables>(
    query: &ExplainQuery,
    tables: &T,
    names: &impl Names,
) -> (Explanation, Option<String>) {
    let flow = flow_of(query);
    let result = tables
        .settings()
        .ok_or(Reason::TableMissing)
        .and_then(|settings| steer::owner(&flow, packet_of(query), settings, tables));
    let reason = match &result {
        Err(reason) => *reason,
        Ok(owner) if owner.vip.forward == forward::L2 => Reason::ForwardedL2,
        Ok(_) => Reason::ForwardedIpip,
    };
    let mut explanation = Explanation {
        action: reason.action().name().to_owned(),
        reason: reason.name().to_owned(),
        description: reason.describe().to_owned(),
        vip: None,
        slot: None,
        backend: None,
        forward: None,
        steps: Vec::new(),
    };
    let current = retrace(&flow, tables, names, &mut explanation);
    let owner = match &result {
        Ok(owner) if owner.chosen != Chosen::Settled || owner.vip.tracking == tracking::FULL => {
            told_apart(owner, names, &mut explanation)
        }
        _ => current,
    };
    let ending = match &result {
        Ok(owner) => {
            let hop = owner.backend.hop;
            let mac = crate::net::display_mac(hop.destination());
            format!("leaves through interface {} to {mac}", hop.ifindex)
        }
        Err(reason) => format!("{}: {}", reason.action().name(), reason.describe()),
    };
    explanation.steps.push(ending);
    (explanation, owner)
}

/// A packet of a connection that is there already: the question is about live flows. Of those that
/// are opened now, a slot that moves says where they go.
fn packet_of(query: &ExplainQuery) -> Packet {
    match query.protocol {
        Protocol::Tcp => Packet::Segment,
        Protocol::Udp => Packet::Datagram,
    }
}

/// Notes who owns a flow that was told apart from others of its slot, and why. Returns the owner's
/// name.
fn told_apart(owner: &Owner, names: &impl Names, explanation: &mut Explanation) -> Option<String> {
    let vip = explanation.vip.as_deref()?;
    let chosen = names.backend(vip, owner.backend_id);
    let name = chosen.clone().unwrap_or_else(|| "?".to_owned());
    let why = match owner.chosen {
        Chosen::Exception => "an exception remembers this flow's owner",
        Chosen::Previous => "no exception is known, so a live flow is the previous owner's",
        Chosen::New => "no exception is known, and unknown flows go to the new owner by now",
        Chosen::Tracked => "full tracking remembers this flow's owner",
        Chosen::Fallback => "its own backend cannot be reached",
        Chosen::Settled => "full tracking does not know this flow, so it is the slot's owner's",
    };
    explanation.steps.push(format!("{why}: {name}"));
    chosen
}

fn flow_of(query: &ExplainQuery) -> Flow {
    let family = if query.source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    steer::flow(
        family,
        (query.source.into(), query.source_port),
        (query.address.into(), query.port),
        protocol_number(query.protocol),
    )
}

/// Notes what the decision met on its way, as far as it came. Returns the owner's name.
fn retrace<T: Tables>(
    flow: &Flow,
    tables: &T,
    names: &impl Names,
    explanation: &mut Explanation,
) -> Option<String> {
    let (address, port) = (
        IpAddr::from(flow.destination),
        u16::from_be(flow.destination_port),
    );
    let to = SocketAddr::new(address, port);
    let Some((key, vip)) = find_vip(flow, tables) else {
        explanation.steps.push(format!(
            "no VIP at {to}, nor one of every port at {address}"
        ));
        return None;
    };
    let (name, generation) = names.vip(&key).unwrap_or_else(|| ("?".to_owned(), 0));
    let every = if key.port == 0 {
        ", which takes every port"
    } else {
        ""
    };
    explanation
        .steps
        .push(format!("{to} belongs to VIP {name}{every}"));
    explanation.vip = Some(name.clone());
    explanation.forward = match vip.forward {
        forward::L2 => Some(Forward::L2),
        forward::IPIP => Some(Forward::Ipip),
        _ => None,
    };
    if vip.ring_size == 0 {
        explanation
            .steps
            .push("its ring is empty: no backend takes flows".to_owned());
        return None;
    }
    let key = tables.settings()?.hash_key;
    let hash = hash::flow(key, flow, vip.hash);
    let index = hash::slot(hash, vip.ring_size);
    let slot = tables.slot(vip.ring_start + index)?;
    explanation.slot = Some(Slot {
        hash: format!("{hash:016x}"),
        index,
        ring_size: vip.ring_size,
        generation,
        current: names.backend(&name, slot.current),
        previous: names.backend(&name, slot.previous),
    });
    explanation.steps.push(format!(
        "the flow hashes to slot {index} of {}",
        vip.ring_size
    ));
    tell_owners(slot, tables, explanation);
    names.backend(&name, slot.current)
}

/// Whose the slot is, and whether it moves.
fn tell_owners<T: Tables>(slot: abi::Slot, tables: &T, explanation: &mut Explanation) {
    let named = explanation.slot.as_ref();
    let owner = |name: fn(&Slot) -> &Option<String>| {
        let name = named.and_then(|slot| name(slot).clone());
        name.unwrap_or_else(|| "?".to_owned())
    };
    let (current, previous) = (owner(|slot| &slot.current), owner(|slot| &slot.previous));
    let backend = tables.backend(slot.current);
    let steps = &mut explanation.steps;
    if slot.current == 0 {
        steps.push("the slot belongs to nobody: new connections are refused".to_owned());
    } else if let Some(backend) = backend {
        let at = IpAddr::from(backend.address);
        steps.push(format!("the slot belongs to backend {current} at {at}"));
    }
    if slot.moves() && slot.current == 0 {
        steps.push(format!(
            "the slot moves away from {previous}, which keeps its live connections"
        ));
    } else if slot.moves() {
        steps.push(format!(
            "the slot moves from {previous} to {current}, which gets new connections"
        ));
    }
}

/// The same look-ups, in the same order, as in [`steer::owner`].
fn find_vip<T: Tables>(flow: &Flow, tables: &T) -> Option<(VipKey, Vip)> {
    let port = u16::from_be(flow.destination_port);
    [port, 0].into_iter().find_map(|port| {
        let key = VipKey::new(flow.destination, port, flow.protocol);
        Some((key, tables.vip(&key)?))
    })
}

#[cfg(test)]
mod tests {
    use lb_ebpf::address::Address;

    use lb_ebpf::abi::{Egress, Hop, Mark, Settings, Tracking, hash_kind};
    use lb_ebpf::flow_table::{Put, Remembered};
    use lb_ebpf::track::{Event, FlowTable, FlowTables};

    use super::*;
    use crate::dataplane::backend::entry;

    /// One VIP of every port at 192.0.2.1/tcp with a ring of one slot.
    struct Small {
        settings: Settings,
        ring_size: u32,
        hop: Hop,
        current: u16,
        previous: u16,
        tracking: Tracking,
        exception: Option<Remembered>,
    }

    impl Default for Small {
        fn default() -> Self {
            Self {
                settings: Settings {
                    hash_key: [1, 2],
                    source_v6: Address::default(),
                    source_v4: Address::default(),
                    version: 1,
                    quiet_s: 60,
                },
                ring_size: 1,
                hop: Hop::new([2, 0, 0, 0, 0, 7].into(), [0; 6].into(), 3),
                current: 7,
                previous: 7,
                tracking: tracking::MOVING,
                exception: None,
            }
        }
    }

    impl FlowTables for Small {
        fn now_s(&self) -> u32 {
            100
        }

        fn mark(&self, _: u32) -> Option<Mark> {
            Some(Mark::begun(90))
        }

        fn note_hit(&self, _: u32, _: u16) {}

        fn recall(&self, _: FlowTable, _: u64, _: u32) -> Option<Remembered> {
            self.exception
        }

        fn spend(&self, _: u32, _: u32) -> bool {
            false
        }

        fn remember(&self, _: FlowTable, _: u64, _: Remembered, _: u32) -> Put {
            Put::Lost
        }

        fn count(&self, _: Event) {}
    }

    impl Tables for Small {
        fn settings(&self) -> Option<&Settings> {
            Some(&self.settings)
        }

        fn vip(&self, key: &VipKey) -> Option<Vip> {
            let ring_size = self.ring_size;
            let vip = Vip {
                ring_start: 4,
                ring_size,
                id: 0,
                forward: forward::IPIP,
                hash: hash_kind::FIVE_TUPLE,
                tracking: self.tracking,
                ..Vip::default()
            };
            (*key == vip_key()).then_some(vip)
        }

        fn slot(&self, index: u32) -> Option<abi::Slot> {
            (index == 4).then_some(abi::Slot {
                current: self.current,
                previous: self.previous,
            })
        }

        fn backend(&self, id: u16) -> Option<Egress> {
            let entry = entry([10, 0, 0, id as u8].into(), self.hop, 1500);
            entry.egress().filter(|_| id != 0)
        }
    }

    struct Numbers;

    impl Names for Numbers {
        fn vip(&self, key: &VipKey) -> Option<(String, u64)> {
            (*key == vip_key()).then(|| ("web".to_owned(), 3))
        }

        fn backend(&self, vip: &str, id: u16) -> Option<String> {
            (id != 0).then(|| format!("{vip}-{id}"))
        }
    }

    fn vip_key() -> VipKey {
        VipKey::new(Address::v4([192, 0, 2, 1]), 0, 6)
    }

    fn ask(tables: &Small, protocol: Protocol) -> (Explanation, Option<String>) {
        let query = ExplainQuery {
            source: [198, 51, 100, 1].into(),
            source_port: 40_000,
            address: [192, 0, 2, 1].into(),
            port: 443,
            protocol,
        };
        explain(&query, tables, &Numbers)
    }

    #[test]
    fn a_forwarded_packet_is_followed_to_its_hop() {
        let (explanation, owner) = ask(&Small::default(), Protocol::Tcp);
        assert_eq!(owner.as_deref(), Some("web-7"));
        assert_eq!(
            (&*explanation.action, &*explanation.reason),
            ("forward", "forwarded_ipip")
        );
        let slot = explanation.slot.unwrap();
        assert_eq!((slot.index, slot.ring_size, slot.generation), (0, 1, 3));
        assert_eq!(slot.previous.as_deref(), Some("web-7"));
        assert_eq!(
            explanation.steps,
            [
                "192.0.2.1:443 belongs to VIP web, which takes every port",
                "the flow hashes to slot 0 of 1",
                "the slot belongs to backend web-7 at 10.0.0.7",
                "leaves through interface 3 to 02:00:00:00:00:07",
            ]
        );
    }

    #[test]
    fn a_slot_that_moves_says_so_and_who_decided() {
        let known = Remembered {
            owner: 7,
            tag: 90,
            seen_s: 95,
        };
        let none = "no exception is known, so a live flow is the previous owner's: web-8";
        let some = "an exception remembers this flow's owner: web-7";
        for (exception, owner, why) in [(None, "web-8", none), (Some(known), "web-7", some)] {
            let tables = Small {
                previous: 8,
                exception,
                ..Small::default()
            };
            let (explanation, found) = ask(&tables, Protocol::Tcp);
            assert_eq!(found.as_deref(), Some(owner));
            let moves = "the slot moves from web-8 to web-7, which gets new connections";
            assert_eq!(explanation.steps[3..5], [moves, why]);
        }
    }

    #[test]
    fn a_slot_of_nobody_keeps_live_flows_alone() {
        let nobody = "the slot belongs to nobody: new connections are refused";
        let moves = "the slot moves away from web-8, which keeps its live connections";
        let why = "no exception is known, so a live flow is the previous owner's: web-8";
        for (previous, owner, reason, steps) in [
            (
                8,
                Some("web-8"),
                "forwarded_ipip",
                &[nobody, moves, why][..],
            ),
            (0, None, "no_backend", &[nobody]),
        ] {
            let tables = Small {
                current: 0,
                previous,
                ..Small::default()
            };
            let (explanation, found) = ask(&tables, Protocol::Tcp);
            assert_eq!((&*explanation.reason, found.as_deref()), (reason, owner));
            assert_eq!(explanation.steps[2..2 + steps.len()], *steps);
        }
    }

    #[test]
    fn full_tracking_says_whether_it_knows_the_flow() {
        let known = Remembered {
            owner: 9,
            tag: 0,
            seen_s: 95,
        };
        let none = "full tracking does not know this flow, so it is the slot's owner's: web-7";
        let some = "full tracking remembers this flow's owner: web-9";
        for (exception, owner, why) in [(None, "web-7", none), (Some(known), "web-9", some)] {
            let tables = Small {
                tracking: tracking::FULL,
                exception,
                ..Small::default()
            };
            let (explanation, found) = ask(&tables, Protocol::Tcp);
            assert_eq!(found.as_deref(), Some(owner));
            assert_eq!(explanation.steps[3], why);
        }
    }

    #[test]
    fn a_refused_packet_is_followed_as_far_as_it_came() {
        for (ring_size, ifindex, protocol, reason, owner, steps) in [
            (1, 3, Protocol::Udp, "not_vip", None, 2),
            (0, 3, Protocol::Tcp, "no_backend", None, 3),
            (1, 0, Protocol::Tcp, "next_hop_unknown", Some("web-7"), 4),
        ] {
            let mut tables = Small {
                ring_size,
                ..Small::default()
            };
            tables.hop.ifindex = ifindex;
            let (explanation, found) = ask(&tables, protocol);
            assert_eq!((&*explanation.reason, found.as_deref()), (reason, owner));
            assert_eq!(explanation.steps.len(), steps, "{:?}", explanation.steps);
        }
    }
}
