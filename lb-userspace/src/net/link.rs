//! Interfaces: name, MAC address, MTU, state, and what XDP program sits on them.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
};
use rtnetlink::Handle;

use super::{Error, Mac};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its MAC address; `None` when it has none, or one that is not Ethernet's.
    pub mac: Option<Mac>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// One end of a veth pair.
    pub veth: bool,
    /// The XDP program on it.
    pub xdp: Option<XdpAttachment>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpAttachment {
    /// Kernel id of the program.
    pub program_id: u32,
    /// In the driver (or its hardware), rather than in the stack.
    pub native: bool,
}

/// All interfaces by index.
pub(super) async fn list(handle: &Handle) -> Result<BTreeMap<u32, Link>, Error> {
    let messages: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    Ok(messages
        .iter()
        .map(|message| (message.header.index, parse(message)))
        .collect())
}

/// Reads one interface from a netlink message.
pub(super) fn parse(message: &LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        veth: false,
        xdp: None,
    };
    let loopback = message.header.flags.contains(LinkFlags::Loopback);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) if !loopback => {
                link.mac = Mac::try_from(address.as_slice()).ok();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            LinkAttribute::Xdp(attributes) => link.xdp = xdp(attributes),
            _ => {}
        }
    }
    link
}

fn xdp(attributes: &[LinkXdp]) -> Option<XdpAttachment> {
    attributes.iter().find_map(|attribute| match *attribute {
        LinkXdp::DrvProgId(program_id) | LinkXdp::HwProgId(program_id) => Some(XdpAttachment {
            program_id,
            native: true,
        }),
        LinkXdp::SkbProgId(program_id) => Some(XdpAttachment {
            program_id,
            native: false,
        }),
        _ => None,
    })
}
