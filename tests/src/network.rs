//! The network between the hosts: one plain router, the fabric, with a link to each of them.
//!
//! ```text
//!               client  10.0.1.2
//!                  │
//!   balancer ── fabric ── gateway-1, gateway-2, services …
//!   10.0.2.2               10.0.n.2, fd00:0:0:n::2
//! ```
//!
//! Each link is a veth pair and a subnet of its own, so every packet between two hosts is routed,
//! as in a data centre. [`Network::attach_lan`] puts several hosts on one bridge instead, for what
//! needs a shared link layer.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::backend::accept_returned_frames;
use crate::bpffs::Bpffs;
use crate::cleanup::{Guard, NAME_PREFIX, Resource, sweep};
use crate::command;
use crate::host::{Addresses, Host};

/// MTU of links to clients and services, bytes: what the Internet has.
pub const MTU_EDGE_BYTES: u32 = 1500;

/// MTU of links that carry tunnels, bytes: a full packet of a client and the outer headers
/// (20 for IPv4, 40 for IPv6) fit, and a frame still fits the page that native XDP needs.
pub const MTU_TUNNEL_BYTES: u32 = 1600;

/// Each subnet is one octet of the addresses.
const SUBNETS_MAX: u8 = 254;

/// Linux limits interface names to 15 bytes; the fabric names its interfaces after the hosts.
const HOST_NAME_BYTES_MAX: usize = 15;

/// A fabric and the directory in which everything about one test bed lies.
#[derive(Debug)]
pub struct Network {
    label: String,
    subnets: u8,
    fabric: Host,
    directory: PathBuf,
    _guard: Guard,
}

impl Network {
    /// Makes the fabric. `label` tells test beds of one process apart; the demo has none.
    ///
    /// # Errors
    ///
    /// Without root or the tools named by [`crate::privilege::missing_for_namespaces`].
    pub fn new(label: &str) -> Result<Self> {
        sweep();
        let directory = std::env::temp_dir().join(unique_name(label, "files"));
        let made = Guard::making(
            || fs::create_dir(&directory),
            |()| Resource::Directory(directory.clone()),
        );
        let ((), guard) = made.with_context(|| format!("creating {}", directory.display()))?;
        let nowhere = subnet(0, 0);
        let fabric = Host::new("fabric", &unique_name(label, "fabric"), &directory, nowhere)?;
        fabric.forward_packets()?;
        Ok(Self {
            label: label.to_owned(),
            subnets: 0,
            fabric,
            directory,
            _guard: guard,
        })
    }

    /// Where logs, keys, sockets and configuration files of this test bed lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The router.
    #[must_use]
    pub fn fabric(&self) -> &Host {
        &self.fabric
    }

    /// Makes a host with a link and a subnet of its own.
    ///
    /// # Errors
    ///
    /// When a tool refuses, or after `SUBNETS_MAX` subnets.
    pub fn attach(&mut self, name: &str, mtu_bytes: u32) -> Result<Host> {
        let number = self.next_subnet()?;
        let host = self.host(name, subnet(number, 0))?;
        self.connect(&host, mtu_bytes)?;
        self.give_router_address(name, host.addresses())?;
        give_address(&host)?;
        Ok(host)
    }

    /// Makes hosts that share one link layer and one subnet: ports of one bridge in the fabric.
    ///
    /// # Errors
    ///
    /// As [`Network::attach`].
    pub fn attach_lan(&mut self, names: &[&str], mtu_bytes: u32) -> Result<Vec<Host>> {
        let number = self.next_subnet()?;
        let bridge = format!("lan-{number}");
        self.fabric.ip(&format!(
            "link add {bridge} type bridge forward_delay 0\nlink set {bridge} up"
        ))?;
        let mut hosts = Vec::new();
        for (name, position) in names.iter().zip(0..) {
            let host = self.host(name, subnet(number, position))?;
            self.connect(&host, mtu_bytes)?;
            self.fabric
                .ip(&format!("link set {name} master {bridge}"))?;
            hosts.push(host);
        }
        self.fabric
            .ip(&format!("link set {bridge} mtu {mtu_bytes}"))?;
        self.give_router_address(&bridge, subnet(number, 0))?;
        hosts.iter().try_for_each(give_address)?;
        Ok(hosts)
    }

    /// Sends packets for a VIP to `host`.
    ///
    /// # Errors
    ///
    /// When `ip` refuses.
    pub fn route_vip(&self, v4: Ipv4Addr, v6: Ipv6Addr, host: &Host) -> Result<()> {
        let next = host.addresses();
        self.fabric.ip(&format!(
            "route replace {v4}/32 via {}\nroute replace {v6}/128 via {}",
            next.v4, next.v6
        ))
    }

    /// Makes the fabric take the frames that an XDP program on the `eth0` of `host` sends back.
    ///
    /// # Errors
    ///
    /// As [`accept_returned_frames`].
    pub fn expect_returned_frames(&self, host: &Host, bpffs: &Bpffs) -> Result<()> {
        let unused = host.addresses().router_v4.into();
        accept_returned_frames(&self.fabric, host.name(), unused, bpffs)
    }

    fn next_subnet(&mut self) -> Result<u8> {
        ensure!(
            self.subnets < SUBNETS_MAX,
            "a network has at most {SUBNETS_MAX} subnets"
        );
        self.subnets += 1;
        Ok(self.subnets)
    }

    fn host(&self, name: &str, addresses: Addresses) -> Result<Host> {
        ensure!(
            name.len() <= HOST_NAME_BYTES_MAX,
            "host name {name} is too long"
        );
        Host::new(
            name,
            &unique_name(&self.label, name),
            &self.directory,
            addresses,
        )
    }

    /// A veth pair: `eth0` in the host, an interface with the host's name in the fabric.
    fn connect(&self, host: &Host, mtu_bytes: u32) -> Result<()> {
        let (inside, name) = (host.namespace().name(), host.name());
        let mtu = mtu_bytes.to_string();
        let fabric = self.fabric.namespace().name();
        let near = [
            "link", "add", "eth0", "mtu", &mtu, "netns", inside, "type", "veth",
        ];
        let far = ["peer", "name", name, "mtu", &mtu, "netns", fabric];
        command::run("ip", &[&near[..], &far[..]].concat())?;
        host.finish_packets("eth0")?;
        self.fabric.finish_packets(name)?;
        self.fabric.ip(&format!("link set {name} up"))?;
        host.ip("link set eth0 up")
    }

    fn give_router_address(&self, interface: &str, addresses: Addresses) -> Result<()> {
        self.fabric.ip(&format!(
            "addr add {}/24 dev {interface}\naddr add {}/64 dev {interface} nodad",
            addresses.router_v4, addresses.router_v6
        ))
    }
}

fn give_address(host: &Host) -> Result<()> {
    let Addresses {
        v4,
        v6,
        router_v4,
        router_v6,
    } = host.addresses();
    host.ip(&format!(
        "addr add {v4}/24 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         route add default via {router_v4}\n\
         route add default via {router_v6}"
    ))
}

/// The addresses of the host at `position` in subnet `number`; the router is always first.
fn subnet(number: u8, position: u8) -> Addresses {
    let host = 2 + position;
    let v6 = |last| Ipv6Addr::new(0xfd00, 0, 0, number.into(), 0, 0, 0, last);
    Addresses {
        v4: Ipv4Addr::new(10, 0, number, host),
        v6: v6(host.into()),
        router_v4: Ipv4Addr::new(10, 0, number, 1),
        router_v6: v6(1),
    }
}

/// A name nobody else has: our pid is in it, and `label` differs between our test beds.
fn unique_name(label: &str, name: &str) -> String {
    let separator = if label.is_empty() { "" } else { "-" };
    format!(
        "{NAME_PREFIX}{}-{label}{separator}{name}",
        std::process::id()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_a_subnet_share_its_router() {
        let (first, second) = (subnet(7, 0), subnet(7, 1));
        assert_eq!(first.v4.to_string(), "10.0.7.2");
        assert_eq!(second.v4.to_string(), "10.0.7.3");
        assert_eq!(second.v6.to_string(), "fd00:0:0:7::3");
        assert_eq!(
            (first.router_v4, first.router_v6),
            (second.router_v4, second.router_v6)
        );
        assert_eq!(first.router_v6.to_string(), "fd00:0:0:7::1");
    }

    #[test]
    fn names_carry_the_pid_and_the_label() {
        let pid = std::process::id();
        assert_eq!(unique_name("", "client"), format!("weir-{pid}-client"));
        assert_eq!(
            unique_name("drain", "client"),
            format!("weir-{pid}-drain-client")
        );
    }
}
