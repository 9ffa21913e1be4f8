//! The way of a packet through the balancer, shown once.

use crate::{
    abi::{Settings, forward},
    encap,
    frame::Frame,
    parse::{self, Parsed},
    reason::Reason,
    steer::{Owner, Tables, steer},
    track::{self, Place},
    wire::ether_type,
};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why; its action says what to do with the frame.
    pub reason: Reason,
    /// Set when the packet was forwarded.
    pub forwarded: Option<Forwarded>,
}

/// Whom a forwarded packet is counted for, and where it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Id of the VIP.
    pub vip_id: u32,
    /// Id of the backend.
    pub backend_id: u16,
    /// Interface that the frame leaves through.
    pub ifindex: u32,
}

/// Takes one packet through all steps. The frame is changed only when it is forwarded or
/// answered.
#[inline(always)]
pub fn run<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    let result = decide(frame, tables);
    match result {
        Ok((reason, forwarded)) => Outcome { reason, forwarded },
        Err(reason) => Outcome {
            reason,
            forwarded: None,
        },
    }
}

#[inline(always)]
fn decide<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
) -> Result<(Reason, Option<Forwarded>), Reason> {
    // 1. Ethernet and VLAN tags. What is not IP ends here.
    let (ip_at, ether_type) = parse::link(frame)?;
    // 2. IP and transport headers: malformed packets end here, each with the reason that the
    //    host's stack would have. Both versions of IP take the same steps from there; each gets
    //    machine code of its own, in which the version is no longer a question.
    match ether_type {
        ether_type::IPV4 => steer_and_forward(frame, tables, &parse::ipv4(frame, ip_at)?),
        ether_type::IPV6 => steer_and_forward(frame, tables, &parse::ipv6(frame, ip_at)?),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn steer_and_forward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    parsed: &Parsed,
) -> Result<(Reason, Option<Forwarded>), Reason> {
    // 3. VIP, flow hash, ring slot, owner. Packets that are not for a VIP end here.
    let settings = tables.settings().ok_or(Reason::TableMissing)?;
    let told_apart = |place: &Place| track::owner_of_frame(&*frame, place, tables);
    let owner = match steer(parsed, settings, tables, told_apart) {
        Ok(owner) => owner,
        Err(Reason::EchoReplied) => {
            encap::echo_reply(frame, parsed)?;
            return Ok((Reason::EchoReplied, None));
        }
        Err(reason) => return Err(reason),
    };
    // 4. New headers towards the owner, in the VIP's forwarding mode.
    let reason = forward(frame, settings, parsed, &owner)?;
    let ifindex = owner.backend.hop.ifindex;
    let backend_id = owner.backend_id;
    Ok((
        reason,
        Some(Forwarded {
            vip_id: owner.vip.id,
            backend_id,
            ifindex,
        }),
    ))
}

#[inline(always)]
fn forward<F: Frame>(
    frame: &mut F,
    settings: &Settings,
    parsed: &Parsed,
    owner: &Owner,
) -> Result<Reason, Reason> {
    if owner.vip.forward == forward::L2 {
        encap::l2(frame, &owner.backend.hop)?;
        return Ok(Reason::ForwardedL2);
    }
    encap::ipip(frame, parsed, &owner.backend, settings, owner.hash as u32)?;
    Ok(Reason::ForwardedIpip)
}

#[cfg(test)]
mod tests;
