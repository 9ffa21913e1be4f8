//! Configuration as meant: what is left after every check has passed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lb_ebpf::abi;
use lb_ebpf::flow_table::{self, FlowBucket};
use serde::{Deserialize, Serialize};

use crate::table::Table;

/// Unix socket of the control API, unless configured.
pub const SOCKET_DEFAULT: &str = "/run/weir.sock";

/// Directory of pinned maps and links, unless configured.
pub const BPFFS_DEFAULT: &str = "/sys/fs/bpf/weir";

/// Weight of a backend, unless configured: a middle that leaves room on both sides.
pub const WEIGHT_DEFAULT: u16 = 100;

/// The whole configuration of one agent. Names of VIPs and backends are keys, so they are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Settings of the agent process and its data plane.
    pub agent: Agent,
    /// VIPs by name.
    pub vips: BTreeMap<String, Vip>,
}

/// Settings of the agent process and its data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Names of the interfaces the XDP program is attached to; at least one, no repeats.
    pub interfaces: Vec<String>,
    /// Where Prometheus metrics are served; `None` serves none.
    pub metrics: Option<SocketAddr>,
    /// Unix socket of the control API.
    pub socket: PathBuf,
    /// Directory in a mounted bpffs where maps and links are pinned.
    pub bpffs: PathBuf,
    /// How the program is attached.
    pub xdp_mode: XdpMode,
    /// Source of outer IPv4 headers; `None` means the interface's own address.
    pub source_v4: Option<IpAddr>,
    /// Source of outer IPv6 headers; `None` means the interface's own address.
    pub source_v6: Option<IpAddr>,
    /// Where the key of the flow hash comes from. Balancers that stand side by side need the same
    /// one; `None` lets the agent keep a random key of its own.
    pub hash_secret: Option<Secret>,
    /// A slot that moves settles when its previous owner had no packet for so long. Unknown UDP
    /// flows go to the previous owner for so long after the move began.
    pub settle_after: Duration,
    /// A slot settles after so long even if its previous owner still has flows; they are cut.
    pub settle_deadline: Duration,
    /// Sizes of everything that could grow.
    pub limits: Limits,
}

/// How the XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver; refused where the driver cannot.
    Native,
    /// In the network stack: works everywhere, several times slower.
    Generic,
    /// Native where the driver can, generic elsewhere (said in the log and by `weir doctor`).
    Auto,
}

/// A reference to a secret: secrets themselves never stand in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The first line of this file.
    File(PathBuf),
    /// The value of this environment variable.
    Env(String),
}

/// Upper bounds, fixed when the data plane is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// VIPs, at most.
    pub vips_max: u32,
    /// Backends of all VIPs together, at most.
    pub backends_max: u32,
    /// Ring slots of all VIPs together, at most.
    pub ring_slots_max: u32,
    /// Flows on moving slots whose backend is remembered, at most. Memory: see
    /// [`flow_table_bytes`].
    pub exceptions_max: u32,
    /// Flows of VIPs with full tracking whose backend is remembered, at most.
    pub flows_max: u32,
    /// Flows on moving slots that one CPU may begin to remember in a second.
    pub inserts_per_second_max: u32,
}

/// Bytes of the table that remembers `flows` flows. An entry takes 16 bytes, and half of the entries
/// stay free so that nobody is evicted early; the number of buckets is a power of two. So a flow
/// costs 32 to 64 bytes.
pub const fn flow_table_bytes(flows: u32) -> u64 {
    flow_table::buckets(flows) as u64 * size_of::<FlowBucket>() as u64
}

/// One virtual service: an address, and the backends that answer for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Its key in the file.
    pub name: String,
    /// The address packets are sent to.
    pub address: IpAddr,
    /// The port packets are sent to; 0 stands for every port that no other VIP names.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How packets reach a backend.
    pub forward: Forward,
    /// Slots of the ring: a prime of [`crate::table::SIZES`].
    pub ring_size: u32,
    /// Which part of a packet decides its backend.
    pub hash: HashBy,
    /// How the owners of the ring's slots are found.
    pub table: Table,
    /// What is remembered of its flows.
    pub tracking: Tracking,
    /// How backends are probed; `None` holds them all for healthy.
    pub health: Option<HealthCheck>,
    /// Backends by name.
    pub backends: BTreeMap<String, Backend>,
}

/// The identity of a VIP on the wire, written `203.0.113.10:443/tcp` or `[2001:db8::1]:0/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipAddress {
    /// Destination address.
    pub address: IpAddr,
    /// Destination port; 0 stands for every port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// Transport protocol of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Rewrite the destination MAC address; the backend shares the network segment and holds the VIP.
    L2,
    /// Wrap the packet in an outer IPv4 or IPv6 header addressed to the backend, which unwraps it.
    Ipip,
}

/// Which part of a packet decides its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashBy {
    /// Addresses, ports and protocol: connections of one client spread over the backends.
    FiveTuple,
    /// The source address alone: all connections of one client share a backend.
    Source,
}

/// What is remembered of a VIP's flows, so that they keep their backend when the ring changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tracking {
    /// Nothing: every change takes effect at once, for live flows too.
    None,
    /// Flows on slots that move, while they move.
    #[default]
    Moving,
    /// Every flow, as long as its table has room.
    Full,
}

/// One server behind a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its key in the file.
    pub name: String,
    /// Where packets are forwarded to. Unique within its VIP: it is the backend's identity in the ring.
    pub address: IpAddr,
    /// Share of new flows relative to the other backends, 0..=65535; 0 takes none.
    pub weight: u16,
}

/// How backends of a VIP are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a probe does.
    pub probe: Probe,
    /// Port of the backend that is probed; never 0.
    pub port: u16,
    /// Time from one probe of a backend to the next.
    pub every: Duration,
    /// A probe that takes longer has failed; at most `every`.
    pub timeout: Duration,
    /// Failures in a row after which a healthy backend is down; at least 1. With 1, the first failure
    /// of our own network can be taken for the backend's: what others answered just before it counts.
    pub fall: u16,
    /// Successes in a row after which a backend that was down is healthy; at least 1.
    pub rise: u16,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Open a TCP connection and close it.
    Tcp,
    /// Send `GET path` over HTTP/1.1 and look at the status code.
    Http {
        /// Path and query, beginning with `/`.
        path: String,
        /// Value of the Host header; `None` sends the backend's address and port.
        host: Option<String>,
        /// Status codes that count as success.
        status: RangeInclusive<u16>,
    },
}

impl Config {
    /// Number of backends of all VIPs together.
    pub fn backend_count(&self) -> usize {
        self.vips.values().map(|vip| vip.backends.len()).sum()
    }
}

impl Vip {
    /// The VIP's identity on the wire.
    pub fn vip_address(&self) -> VipAddress {
        VipAddress {
            address: self.address,
            port: self.port,
            protocol: self.protocol,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            vips_max: 512,
            backends_max: 4096,
            ring_slots_max: 64 * 65_537,
            exceptions_max: abi::EXCEPTIONS_MAX,
            flows_max: abi::FLOWS_MAX,
            inserts_per_second_max: abi::INSERTS_PER_SECOND_MAX,
        }
    }
}

impl fmt::Display for VipAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            SocketAddr::new(self.address, self.port),
            self.protocol
        )
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::L2 => "l2",
            Self::Ipip => "ipip",
        })
    }
}

impl fmt::Display for HashBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FiveTuple => "five-tuple",
            Self::Source => "source",
        })
    }
}

impl fmt::Display for Tracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Moving => "moving",
            Self::Full => "full",
        })
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Auto => "auto",
        })
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(variable) => write!(f, "env {variable}"),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vips_max,
            backends_max,
            ring_slots_max,
            exceptions_max,
            flows_max,
            inserts_per_second_max,
        } = self;
        write!(
            f,
            "{vips_max} vips, {backends_max} backends, {ring_slots_max} ring slots, \
             {exceptions_max} exceptions, {flows_max} flows, {inserts_per_second_max} inserts per second"
        )
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.probe {
            Probe::Tcp => write!(f, "tcp")?,
            Probe::Http { path, host, status } => {
                write!(f, "http {path} {}-{}", status.start(), status.end())?;
                if let Some(host) = host {
                    write!(f, " host {host}")?;
                }
            }
        }
        let Self {
            port,
            every,
            timeout,
            fall,
            rise,
            ..
        } = self;
        write!(
            f,
            " port {port} every {every:?} timeout {timeout:?} fall {fall} rise {rise}"
        )
    }
}
