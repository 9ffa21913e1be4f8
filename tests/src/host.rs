//! A host: a network namespace with addresses, settings and processes.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::netns::Namespace;
use crate::process::Process;

/// A host of the test bed.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    directory: PathBuf,
    addresses: Addresses,
}

/// The addresses of a host on its `eth0`, and of the router on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The host's own IPv4 address.
    pub v4: Ipv4Addr,
    /// The host's own IPv6 address.
    pub v6: Ipv6Addr,
    /// The router's IPv4 address in the same subnet.
    pub router_v4: Ipv4Addr,
    /// The router's IPv6 address in the same subnet.
    pub router_v6: Ipv6Addr,
}

impl Host {
    /// A host in a new namespace called `namespace`, still without a network; the logs of its
    /// processes go to `directory`.
    ///
    /// # Errors
    ///
    /// As [`Namespace::new`].
    pub fn new(
        name: &str,
        namespace: &str,
        directory: &Path,
        addresses: Addresses,
    ) -> Result<Self> {
        let host = Self {
            name: name.to_owned(),
            namespace: Namespace::new(namespace)?,
            directory: directory.to_owned(),
            addresses,
        };
        host.ip("link set lo up")?;
        host.settle_quickly()?;
        Ok(host)
    }

    /// The short name, such as `gateway-1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace, for work inside the host.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The host's addresses on `eth0`.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Runs `ip` commands inside the host, one per line.
    ///
    /// # Errors
    ///
    /// With the number of the line that failed and what `ip` said.
    pub fn ip(&self, commands: &str) -> Result<()> {
        self.namespace
            .enter(|| command::run_with_input("ip", &["-batch", "-"], commands))
            .with_context(|| format!("ip on host {}", self.name))?;
        Ok(())
    }

    /// Runs any tool inside the host and returns what it printed.
    ///
    /// # Errors
    ///
    /// As [`command::run`].
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.namespace
            .enter(|| command::run(program, arguments))
            .with_context(|| format!("on host {}", self.name))
    }

    /// Sets a network setting, such as `net.ipv4.ip_forward`.
    ///
    /// # Errors
    ///
    /// When the kernel does not know the key or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.namespace
            .enter(|| std::fs::write(&path, value))
            .with_context(|| format!("setting {key}={value} on host {}", self.name))
    }

    /// Makes the host a router that takes packets from anywhere.
    ///
    /// # Errors
    ///
    /// As [`Host::sysctl`].
    pub fn forward_packets(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Adds VIP addresses to `lo`, as on a backend that answers clients directly. The host answers
    /// no ARP request for them: several backends hold the same address.
    ///
    /// # Errors
    ///
    /// As [`Host::ip`] and [`Host::sysctl`].
    pub fn hold_vip(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
        self.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        self.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
        self.ip(&format!(
            "addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad"
        ))
    }

    /// Switches the segmentation and checksum offloads of an interface off. A veth pair would
    /// otherwise carry packets with unfinished checksums, which are lost on the way through XDP.
    ///
    /// # Errors
    ///
    /// When `ethtool` refuses.
    pub fn finish_packets(&self, interface: &str) -> Result<()> {
        self.run(
            "ethtool",
            &["-K", interface, "tx", "off", "tso", "off", "gso", "off"],
        )?;
        Ok(())
    }

    /// Starts a program inside the host. What it prints goes to `<host>-<label>.log`.
    ///
    /// # Errors
    ///
    /// When the program or its log file cannot be opened.
    pub fn start(&self, label: &str, mut command: Command) -> Result<Process> {
        let label = format!("{}-{label}", self.name);
        let log = self.directory.join(format!("{label}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        command
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let spawn = || self.namespace.enter(|| command.spawn());
        let started = Process::start(&label, spawn, log);
        started.with_context(|| format!("starting {command:?} on host {}", self.name))
    }

    /// Addresses are usable at once, and a packet may arrive on another way than its answer goes.
    /// Both must be set before the first interface comes up.
    fn settle_quickly(&self) -> Result<()> {
        for scope in ["all", "default"] {
            self.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            self.sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), "0")?;
            self.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
        }
        Ok(())
    }
}
