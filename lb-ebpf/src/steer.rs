//! The decision: which VIP a flow belongs to, and which backend owns it.
//!
//! Pure over [`Tables`]: the kernel program answers from BPF maps, `weir explain` from the same
//! maps through system calls, tests from plain arrays.

use crate::{
    abi::{Egress, Settings, Slot, Vip, VipKey, forward, tracking},
    address::Address,
    flow::{Family, Flow},
    hash,
    parse::{Parsed, Payload},
    reason::Reason,
    track::{self, Choice, Chosen, FlowTables, Packet, Place},
    wire::protocol,
};

/// The tables that a decision reads. What changes under a reader's feet is copied out, a few words
/// each; the settings are written once, before the first packet.
pub trait Tables: FlowTables {
    /// What holds for the whole data path; `None` when the table is missing.
    fn settings(&self) -> Option<&Settings>;
    /// The VIP or address entry under `key`.
    fn vip(&self, key: &VipKey) -> Option<Vip>;
    /// Slot `index` of the ring map, counted over all rings; `None` beyond its end.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// The way to backend `id`; `None` when there is none.
    fn backend(&self, id: u16) -> Option<Egress>;
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The VIP it is addressed to.
    pub vip: Vip,
    /// Keyed hash of the flow.
    pub hash: u64,
    /// Slot of the VIP's ring, counted from the ring's start.
    pub slot_index: u32,
    /// That slot.
    pub slot: Slot,
    /// The backend that owns the flow.
    pub backend_id: u16,
    /// What made it the owner.
    pub chosen: Chosen,
    /// The way to it.
    pub backend: Egress,
}

/// Finds the owner of a parsed packet, or the reason why it has none.
///
/// [`Reason::EchoReplied`] means that the caller is to answer the packet. `told_apart` chooses where
/// flows are told apart: on slots that move, and at VIPs with full tracking.
#[inline(always)]
pub fn steer<T: Tables>(
    parsed: &Parsed,
    settings: &Settings,
    tables: &T,
    told_apart: impl FnOnce(&Place) -> Choice,
) -> Result<Owner, Reason> {
    match parsed.payload {
        Payload::Tcp { .. } | Payload::Udp => find(&parsed.flow, settings, tables, told_apart),
        Payload::Echo => Err(if_vip_address(&parsed.flow, tables, Reason::EchoReplied)),
        Payload::Fragment => Err(if_vip_address(&parsed.flow, tables, Reason::Fragment)),
        Payload::Other => Err(if_vip_address(&parsed.flow, tables, Reason::OtherProtocol)),
    }
}

/// Finds the owner of a TCP or UDP flow that sends `packet`.
pub fn owner<T: Tables>(
    flow: &Flow,
    packet: Packet,
    settings: &Settings,
    tables: &T,
) -> Result<Owner, Reason> {
    let told_apart = |place: &Place| {
        let fingerprint = hash::fingerprint(place.hash, flow);
        track::owner(packet, fingerprint, place, tables)
    };
    find(flow, settings, tables, told_apart)
}

#[inline(always)]
fn find<T: Tables>(
    flow: &Flow,
    settings: &Settings,
    tables: &T,
    told_apart: impl FnOnce(&Place) -> Choice,
) -> Result<Owner, Reason> {
    let vip = vip(flow, tables)?;
    if vip.ring_size == 0 {
        return Err(Reason::NoBackend);
    }
    let hash = hash::flow(settings.hash_key, flow, vip.hash);
    let slot_index = hash::slot(hash, vip.ring_size);
    let index = vip.ring_start + slot_index;
    let slot = tables.slot(index).ok_or(Reason::TableMissing)?;
    let (backend_id, chosen) = if slot.moves() || vip.tracking == tracking::FULL {
        let place = Place {
            hash,
            index,
            slot,
            vip_id: vip.id,
            quiet_s: settings.quiet_s,
            tracking: vip.tracking,
        };
        told_apart(&place).unpack()
    } else {
        (slot.current, Chosen::Settled)
    };
    if backend_id == 0 {
        return Err(Reason::NoBackend);
    }
    let backend = tables.backend(backend_id).ok_or(Reason::BackendUnknown)?;
    if backend.hop.ifindex == 0 {
        return Err(Reason::NextHopUnknown);
    }
    if vip.forward == forward::L2 && backend.family != flow.family as u8 {
        return Err(Reason::FamilyMismatch);
    }
    Ok(Owner {
        vip,
        hash,
        slot_index,
        slot,
        backend_id,
        chosen,
        backend,
    })
}

/// The VIP of a flow: that of its very port before the one of every port.
#[inline(always)]
fn vip<T: Tables>(flow: &Flow, tables: &T) -> Result<Vip, Reason> {
    let exact = VipKey {
        address: flow.destination,
        port: flow.destination_port,
        protocol: flow.protocol,
        reserved: [0; 5],
    };
    if let Some(vip) = tables.vip(&exact) {
        return Ok(vip);
    }
    let every_port = VipKey { port: 0, ..exact };
    tables.vip(&every_port).ok_or(Reason::NotVip)
}

#[inline(always)]
fn if_vip_address<T: Tables>(flow: &Flow, tables: &T, reason: Reason) -> Reason {
    // The host itself speaks ICMP with its neighbours all the time: those packets must not pay
    // for a VIP's features, nor be touched by them.
    let key = VipKey::address_entry(flow.destination);
    if tables.vip(&key).is_some() {
        reason
    } else {
        Reason::NotVip
    }
}

/// A flow as a person names it, for `weir explain`: ports in host order.
pub fn flow(
    family: Family,
    source: (Address, u16),
    destination: (Address, u16),
    protocol: u8,
) -> Flow {
    debug_assert!(protocol == protocol::TCP || protocol == protocol::UDP);
    Flow {
        family,
        source: source.0,
        destination: destination.0,
        source_port: source.1.to_be(),
        destination_port: destination.1.to_be(),
        protocol,
    }
}
