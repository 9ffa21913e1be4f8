//! What a world is made of: sizes, times, clients, and the configuration of its balancer.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use lb_userspace::config::Config;
use lb_userspace::dataplane::Sizes;

use crate::client::Door;

/// What a world is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    /// Clients of each VIP.
    pub(crate) clients: u32,
    /// Clients of live flows send something every so many seconds, or in half that time.
    pub(crate) every_s: u32,
    pub(crate) settle_after_s: u16,
    pub(crate) settle_deadline_s: u16,
    /// Flows that the table of exceptions has room for.
    pub(crate) exceptions: u32,
    /// The same with full tracking.
    pub(crate) flows: u32,
    pub(crate) inserts_per_second: u32,
    /// Of so many writes to the flow tables, one is lost; 0 loses none.
    pub(crate) lost_of: u32,
    /// Packets before each of the agent's writes, at most.
    pub(crate) packets: u32,
    /// SYNs are sent again and forged at any moment.
    pub(crate) syns_again: bool,
}

impl Setup {
    /// Room for everything, and clients who behave.
    pub(crate) fn calm(seed: u64) -> Self {
        Self {
            seed,
            clients: 60,
            every_s: 5,
            settle_after_s: 12,
            settle_deadline_s: 40_000,
            exceptions: 4_096,
            flows: 4_096,
            inserts_per_second: 100_000,
            lost_of: 0,
            packets: 3,
            syns_again: false,
        }
    }
}

/// VIPs: name, address and protocol, tracking.
pub(crate) const VIPS: [(&str, &str, &str); 5] = [
    ("web", "203.0.113.10:443/tcp", "moving"),
    ("shop", "[2001:db8::10]:443/tcp", "moving"),
    ("dns", "203.0.113.53:53/udp", "moving"),
    ("chat", "203.0.113.20:5222/tcp", "full"),
    ("bulk", "203.0.113.30:80/tcp", "none"),
];

/// Backends of a VIP at the beginning, and the most that it may have.
const BACKENDS: u8 = 5;
pub(crate) const BACKENDS_MAX: u8 = 9;

pub(crate) const RING_SIZES: [u32; 2] = [251, 509];

pub(crate) const SIZES: Sizes = Sizes {
    vips: 8,
    backends: 64,
    ring_slots: 16 * 1_022,
    exceptions: 0,
    flows: 0,
    inserts_per_second: 0,
};

/// What the configuration says of a VIP, beside its backends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VipKind {
    pub(crate) ring_size: u32,
    pub(crate) tracking: &'static str,
}

pub(crate) fn doors() -> Vec<Door> {
    let door = |(_, door, _): (&str, &str, &str)| {
        let (address, protocol) = door.split_once('/').expect("a protocol");
        let address: SocketAddr = address.parse().expect("an address and a port");
        Door {
            address: address.ip(),
            port: address.port(),
            udp: protocol == "udp",
        }
    };
    VIPS.map(door).to_vec()
}

/// VIP and backend name.
pub(crate) fn name(vip: usize, backend: u8) -> (&'static str, String) {
    (VIPS[vip].0, format!("b{backend}"))
}

/// Backends of the same number share an address, whatever the VIP; those of `shop` alternate between
/// the versions of IP.
pub(crate) fn address(vip: usize, backend: u8) -> IpAddr {
    if vip == 1 && backend % 2 == 1 {
        IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, u16::from(backend)])
    } else {
        IpAddr::from([10, 0, 0, backend])
    }
}

/// The configuration file.
pub(crate) fn config(setup: &Setup, kinds: &[VipKind]) -> Config {
    let mut text = format!(
        "[agent]\ninterfaces = [\"eth0\"]\nsettle_after = \"{}s\"\nsettle_deadline = \"{}s\"\n",
        setup.settle_after_s, setup.settle_deadline_s
    );
    for (vip, ((vip_name, door, _), kind)) in VIPS.iter().zip(kinds).enumerate() {
        let VipKind {
            ring_size,
            tracking,
        } = kind;
        text += &format!(
            "[vips.{vip_name}]\naddress = \"{door}\"\nring_size = {ring_size}\n\
             tracking = \"{tracking}\"\nhealth = {{ tcp = true, port = 80 }}\n\
             [vips.{vip_name}.backends]\n"
        );
        for backend in 1..=BACKENDS {
            let (_, backend_name) = name(vip, backend);
            let address = address(vip, backend);
            text += &format!("{backend_name} = {{ address = \"{address}\" }}\n");
        }
    }
    Config::parse(&text, Path::new("model.toml")).expect("the model's configuration is valid")
}
