//! What the tests below share: a client, a balancer and echo backends on a network of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use tests::backend::serve_vip;
use tests::balancer::{Balancer, Vip, VipBackend, WEIGHT};
use tests::binaries;
use tests::bpffs::Bpffs;
use tests::host::Host;
use tests::network::{MTU_EDGE_BYTES, MTU_TUNNEL_BYTES, Network};
use tests::process::Process;
use tests::wait;

pub(crate) const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(crate) const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10);

/// The port the VIPs are about.
pub(crate) const PORT: u16 = 7000;

/// Further ports on which the backends answer, for the VIP of every port.
pub(crate) const OTHER_PORTS: [u16; 2] = [7001, 40_000];

/// How long health checks and neighbour resolution may take until all backends are used.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// The echo servers answer on their own address too, where the balancer probes them. Patient: a
/// busy machine must not look like a dead backend.
const HEALTH: &str =
    "{ tcp = true, port = 7100, every = \"1s\", timeout = \"1s\", fall = 3, rise = 1 }";
pub(crate) const HEALTH_PORT: u16 = 7100;

/// How packets reach the backends, and so where these stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The backends share the balancer's link.
    L2,
    /// The backends are elsewhere and open tunnels.
    Ipip,
}

/// Programs are dropped before the network they live in.
pub(crate) struct Stage {
    pub(crate) backends: Vec<Backend>,
    pub(crate) balancer: Balancer,
    pub(crate) client: Host,
    _bpffs: Bpffs,
    pub(crate) network: Network,
}

pub(crate) struct Backend {
    pub(crate) host: Host,
    pub(crate) process: Process,
}

impl Stage {
    /// Builds the hosts and starts the echo servers; the balancer is still without a program.
    pub(crate) fn new(label: &str, mode: Mode, backends: usize) -> Self {
        let mut network = Network::new(label).unwrap();
        let bpffs = Bpffs::new(network.directory()).unwrap();
        let client = network.attach("client", MTU_EDGE_BYTES).unwrap();
        let names: Vec<String> = (1..=backends)
            .map(|number| format!("backend-{number}"))
            .collect();
        let (balancer, hosts) = match mode {
            Mode::L2 => shared_link(&mut network, &names),
            Mode::Ipip => apart(&mut network, &names),
        };
        network.expect_returned_frames(&balancer, &bpffs).unwrap();
        network.route_vip(VIP_V4, VIP_V6, &balancer).unwrap();
        let backends = hosts
            .into_iter()
            .map(|host| Backend::new(host, mode, &bpffs))
            .collect();
        let balancer = Balancer::new(balancer, network.directory(), &bpffs).unwrap();
        Self {
            backends,
            balancer,
            client,
            _bpffs: bpffs,
            network,
        }
    }

    /// Writes the configuration, starts the agent and waits until every backend is used.
    pub(crate) fn start(&mut self, vips: &[Vip]) {
        self.balancer.configure(vips).unwrap();
        self.balancer.start().unwrap();
        for vip in vips {
            self.balancer
                .wait_for_owners(vip.name, SETTLE_LIMIT, |_| true)
                .unwrap();
        }
    }

    /// A VIP with all backends, forwarded to by their addresses of the `outer` family.
    pub(crate) fn vip(
        &self,
        name: &'static str,
        address: SocketAddr,
        protocol: &'static str,
        forward: &'static str,
        outer: Family,
    ) -> Vip {
        let backends = self.backends.iter().map(|backend| VipBackend {
            name: backend.host.name().to_owned(),
            address: outer.of(&backend.host),
            weight: WEIGHT,
        });
        Vip {
            name,
            address,
            protocol,
            forward,
            health: Some(HEALTH),
            backends: backends.collect(),
        }
    }

    /// The commonest VIP: IPv4 through IPv4 tunnels.
    pub(crate) fn tunnel_vip(&self, name: &'static str, protocol: &'static str) -> Vip {
        self.vip(
            name,
            SocketAddr::new(VIP_V4.into(), PORT),
            protocol,
            "ipip",
            Family::V4,
        )
    }

    pub(crate) fn backend(&mut self, name: &str) -> &mut Backend {
        self.backends
            .iter_mut()
            .find(|backend| backend.host.name() == name)
            .unwrap()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn vip(self) -> IpAddr {
        match self {
            Self::V4 => VIP_V4.into(),
            Self::V6 => VIP_V6.into(),
        }
    }

    pub(crate) fn of(self, host: &Host) -> IpAddr {
        match self {
            Self::V4 => host.addresses().v4.into(),
            Self::V6 => host.addresses().v6.into(),
        }
    }
}

impl Backend {
    fn new(host: Host, mode: Mode, bpffs: &Bpffs) -> Self {
        match mode {
            Mode::L2 => host.hold_vip(VIP_V4, VIP_V6).unwrap(),
            Mode::Ipip => serve_vip(&host, bpffs, VIP_V4, VIP_V6).unwrap(),
        }
        let process = start_echo(&host);
        Self { host, process }
    }

    /// Starts the echo server again after it has ended.
    pub(crate) fn restart(&mut self) {
        self.process = start_echo(&self.host);
    }
}

/// Starts an echo server on the VIPs, and on the host's own addresses for health checks.
pub(crate) fn start_echo(host: &Host) -> Process {
    let mut command = Command::new(binaries::path("weir-service").unwrap());
    command.args(["echo", "--instance", host.name()]);
    let ports = [PORT].into_iter().chain(OTHER_PORTS);
    let vips = ports.flat_map(|port| {
        [VIP_V4.into(), VIP_V6.into()].map(|vip: IpAddr| SocketAddr::new(vip, port))
    });
    let own = [Family::V4, Family::V6].map(|family| SocketAddr::new(family.of(host), HEALTH_PORT));
    for address in vips.chain(own) {
        command.arg("--listen").arg(address.to_string());
    }
    host.start("weir-service", command).unwrap()
}

fn shared_link(network: &mut Network, backends: &[String]) -> (Host, Vec<Host>) {
    let mut names = vec!["balancer"];
    names.extend(backends.iter().map(String::as_str));
    let mut hosts = network.attach_lan(&names, MTU_EDGE_BYTES).unwrap();
    (hosts.remove(0), hosts)
}

fn apart(network: &mut Network, backends: &[String]) -> (Host, Vec<Host>) {
    let balancer = network.attach("balancer", MTU_TUNNEL_BYTES).unwrap();
    let attach = |name: &String| network.attach(name, MTU_TUNNEL_BYTES).unwrap();
    (balancer, backends.iter().map(attach).collect())
}

/// Lets time pass: what is measured is what happens in it, or that nothing does.
pub(crate) fn pass(time: Duration) {
    let started = Instant::now();
    wait::until("time to pass", 2 * time + SETTLE_LIMIT, || {
        (started.elapsed() >= time).then_some(())
    })
    .unwrap();
}
