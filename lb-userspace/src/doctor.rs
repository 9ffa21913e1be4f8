//! What is wrong with this host, and what to do. Each check gives a [`Finding`]; none changes anything.
//!
//! [`host`] needs no agent, so `weir doctor` can say why one does not start.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use lb_ebpf::reason::Reason;
use lb_ebpf::track::Event;
use nix::ifaddrs::getifaddrs;
use nix::sys::utsname::uname;

use crate::api::types::{Finding, Verdict};
use crate::config::{Agent, Forward, Vip, XdpMode};
use crate::dataplane::{self, Pins, Totals, decap};
use crate::net::{Link, Resolution, Unknown, display_mac};

/// The oldest kernel that the program is made for.
const KERNEL_MIN: (u32, u32) = (5, 15);

/// Largest packet that clients on Ethernet send, in bytes.
const CLIENT_MTU: u32 = 1500;

/// Capabilities that are needed: name and bit (linux/capability.h). Root has them all.
const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// `CAP_SYS_ADMIN` includes `CAP_BPF` and `CAP_PERFMON`, which came later.
const CAP_SYS_ADMIN: u32 = 21;

fn finding(check: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Finding {
    Finding {
        check: check.into(),
        verdict,
        detail: detail.into(),
        hint: None,
    }
}

impl Finding {
    fn or_do(mut self, hint: impl Into<String>) -> Self {
        if self.verdict != Verdict::Ok {
            self.hint = Some(hint.into());
        }
        self
    }
}

/// The checks that need no agent; `bpffs` is where its data plane is pinned.
pub fn host(bpffs: &Path) -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    let mut findings = vec![
        capabilities(&status),
        kernel(&release.unwrap_or_default()),
        just_in_time(jit.ok().as_deref()),
        btf(Path::new("/sys/kernel/btf/vmlinux").exists()),
        objects(dataplane::objects_present()),
        file_system(bpffs),
    ];
    findings.extend(pinned(dataplane::pinned_version(bpffs)));
    if decap::status(bpffs).is_ok_and(|status| !status.interfaces.is_empty()) {
        findings.push(reverse_path(
            fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter").ok(),
        ));
    }
    findings
}

fn capabilities(status: &str) -> Finding {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| held >> bit & 1 == 1;
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(_, bit)| !(has(*bit) || *bit > CAP_SYS_ADMIN && has(CAP_SYS_ADMIN)))
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        return finding("capabilities", Verdict::Ok, "all that is needed");
    }
    finding(
        "capabilities",
        Verdict::Failure,
        format!("missing: {}", missing.join(", ")),
    )
    .or_do("run as root, or give the service these capabilities")
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    let verdict = match version {
        Some(version) if version >= KERNEL_MIN => Verdict::Ok,
        _ => Verdict::Failure,
    };
    let (major, minor) = KERNEL_MIN;
    finding("kernel", verdict, format!("Linux {release}"))
        .or_do(format!("Linux {major}.{minor} or newer is needed"))
}

fn just_in_time(setting: Option<&str>) -> Finding {
    match setting.map(str::trim) {
        Some("0") => finding(
            "BPF compiler",
            Verdict::Warning,
            "off: the program is interpreted",
        )
        .or_do("sysctl -w net.core.bpf_jit_enable=1"),
        Some(_) => finding("BPF compiler", Verdict::Ok, "on"),
        None => finding("BPF compiler", Verdict::Ok, "always on in this kernel"),
    }
}

fn btf(present: bool) -> Finding {
    if present {
        return finding("kernel BTF", Verdict::Ok, "present");
    }
    finding(
        "kernel BTF",
        Verdict::Warning,
        "absent: `bpftool` shows maps as plain bytes",
    )
    .or_do("use a kernel with CONFIG_DEBUG_INFO_BTF")
}

fn objects(present: bool) -> Finding {
    if present {
        return finding("BPF objects", Verdict::Ok, "present");
    }
    finding("BPF objects", Verdict::Failure, "this build has none")
        .or_do("run `cargo xtask ebpf`, then build `weir` again")
}

fn file_system(bpffs: &Path) -> Finding {
    let path = bpffs.display();
    match Pins::new(bpffs).check_file_system() {
        Ok(()) => finding(
            "bpffs",
            Verdict::Ok,
            format!("{path} is on a bpf file system"),
        ),
        Err(error) => finding("bpffs", Verdict::Failure, error.to_string())
            .or_do(error.hint().unwrap_or_default()),
    }
}

/// Maps that an agent left, or uses.
fn pinned(version: Result<Option<u32>, dataplane::Error>) -> Option<Finding> {
    let check = "pinned maps";
    let wanted = lb_ebpf::abi::VERSION;
    Some(match version {
        Ok(None) => return None,
        Ok(Some(found)) if found == wanted => finding(
            check,
            Verdict::Ok,
            format!("layout version {found}, as in this build"),
        ),
        Ok(Some(found)) => {
            let error = dataplane::Error::Version { found, wanted };
            finding(check, Verdict::Failure, error.to_string())
                .or_do(error.hint().unwrap_or_default())
        }
        Err(error) => finding(check, Verdict::Failure, error.to_string())
            .or_do(error.hint().unwrap_or("`weir detach` removes them")),
    })
}

/// A backend host sees packets from clients arrive where it would not send the answers.
fn reverse_path(setting: Option<String>) -> Finding {
    let strict = setting.as_deref().map(str::trim) == Some("1");
    let verdict = if strict {
        Verdict::Warning
    } else {
        Verdict::Ok
    };
    let detail = if strict {
        "strict: unwrapped packets may be dropped"
    } else {
        "not strict"
    };
    finding("reverse path filter", verdict, detail).or_do("sysctl -w net.ipv4.conf.all.rp_filter=2")
}

/// The configured interfaces, and how the program sits on them.
pub fn interfaces(settings: &Agent, links: &BTreeMap<u32, Link>) -> Vec<Finding> {
    let check = |name: &String| {
        let check = format!("interface {name}");
        let Some(link) = links.values().find(|link| link.name == *name) else {
            return finding(check, Verdict::Failure, "does not exist")
                .or_do("`ip link` lists the interfaces; see agent.interfaces");
        };
        match link.xdp {
            _ if !link.up => {
                finding(check, Verdict::Failure, "is down").or_do(format!("ip link set {name} up"))
            }
            None => finding(check, Verdict::Failure, "has no XDP program")
                .or_do("somebody took it off: restart the agent"),
            Some(xdp) if xdp.native && link.veth => finding(
                check,
                Verdict::Ok,
                "program attached, native; as a veth it sends only if the other end has an XDP \
                 program or NAPI (`ethtool -K … gro on`)",
            ),
            Some(xdp) if xdp.native => finding(check, Verdict::Ok, "program attached, native"),
            Some(_) if settings.xdp_mode == XdpMode::Generic => finding(
                check,
                Verdict::Ok,
                "program attached, generic, as configured",
            ),
            Some(_) => finding(
                check,
                Verdict::Warning,
                "program attached in generic mode: slow",
            )
            .or_do("use a driver with native XDP; after a change, `weir detach` and restart"),
        }
    };
    settings.interfaces.iter().map(check).collect()
}

/// One VIP: its address, its backends' next hops, room for the tunnel header, and its ring.
pub fn vip(vip: &Vip, ways: &BTreeMap<IpAddr, Resolution>, serving: usize) -> Vec<Finding> {
    let mut findings = vec![bound(vip, &host_addresses())];
    for backend in vip.backends.values() {
        let name = format!("{}/{}", vip.name, backend.name);
        if let Some(way) = ways.get(&backend.address) {
            findings.push(next_hop(&name, backend.address, vip.forward, way));
            findings.extend(tunnel_room(&name, vip, backend.address, way));
        }
    }
    if serving == 0 {
        let check = format!("ring of {}", vip.name);
        let finding = finding(
            check,
            Verdict::Failure,
            "no backend takes new flows: they are dropped",
        );
        findings.push(finding.or_do("add a backend, raise a weight, or end a drain"));
    }
    findings
}

/// All backends of a VIP are down.
pub fn panic(vip: &Vip) -> Finding {
    finding(
        format!("health of {}", vip.name),
        Verdict::Failure,
        "no backend is healthy and reachable, so all of them are used",
    )
    .or_do("`weir backend list` says why each is down")
}

fn host_addresses() -> Vec<(String, IpAddr)> {
    let Ok(addresses) = getifaddrs() else {
        return Vec::new();
    };
    addresses
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            let v6 = || address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
            Some((entry.interface_name, v4.or_else(v6)?))
        })
        .collect()
}

fn bound(vip: &Vip, host: &[(String, IpAddr)]) -> Finding {
    let holder = host.iter().find(|(_, address)| *address == vip.address);
    let detail = match holder {
        Some((interface, _)) => format!(
            "is on {interface} here: what the program passes on reaches this host's own services"
        ),
        None => "is not an address of this host: the network has to route it here".to_owned(),
    };
    finding(
        format!("address {} of {}", vip.address, vip.name),
        Verdict::Ok,
        detail,
    )
}

fn next_hop(name: &str, address: IpAddr, forward: Forward, way: &Resolution) -> Finding {
    let check = format!("next hop of {name}");
    match way {
        Ok(known) if forward == Forward::L2 && known.neighbour != address => {
            let detail = format!("{address} is behind the router {}", known.neighbour);
            finding(check, Verdict::Failure, detail)
                .or_do("forward = \"l2\" needs backends on the same link; use \"ipip\"")
        }
        Ok(known) => {
            let mac = display_mac(known.hop.destination());
            finding(
                check,
                Verdict::Ok,
                format!("{} at {mac} on {}", known.neighbour, known.interface),
            )
        }
        Err(unknown) => {
            let hint = match unknown {
                Unknown::NoRoute => format!("ip route get {address}"),
                Unknown::Local => "a backend must be another host".to_owned(),
                Unknown::LinkDown { interface } => format!("ip link set {interface} up"),
                Unknown::NotEthernet { .. } => "reach it through an Ethernet interface".to_owned(),
                Unknown::Neighbour { address, .. } => format!("ping {address}; is it up?"),
            };
            finding(check, Verdict::Failure, unknown.to_string()).or_do(hint)
        }
    }
}

fn tunnel_room(name: &str, vip: &Vip, address: IpAddr, way: &Resolution) -> Option<Finding> {
    let known = way.as_ref().ok().filter(|_| vip.forward == Forward::Ipip)?;
    let overhead = if address.is_ipv4() { 20 } else { 40 };
    let needed = CLIENT_MTU + overhead;
    let check = format!("MTU to {name}");
    let detail = format!("{} bytes, tunnels take {overhead} of them", known.mtu);
    let verdict = if known.mtu >= needed {
        Verdict::Ok
    } else {
        Verdict::Warning
    };
    let largest = known.mtu.saturating_sub(overhead);
    Some(finding(check, verdict, detail).or_do(format!(
        "packets above {largest} bytes are dropped: raise the MTU of the way to {needed}, or have \
         backends announce a smaller MSS (`ip route … advmss {}`)",
        largest.saturating_sub(40)
    )))
}

/// Packets lost for reasons that somebody should do something about.
pub fn drops(totals: &Totals) -> Vec<Finding> {
    let reasons = [
        (Reason::NoBackend, "see the findings about rings"),
        (
            Reason::BackendUnknown,
            "report this: ring and backend table disagree",
        ),
        (Reason::NextHopUnknown, "see the findings about next hops"),
        (
            Reason::FamilyMismatch,
            "use forward = \"ipip\" to cross IP versions",
        ),
        (Reason::PacketTooBig, "see the findings about MTU"),
        (
            Reason::NoHeadroom,
            "the driver leaves no room for tunnel headers; use generic mode",
        ),
        (
            Reason::TableMissing,
            "report this: the program misses a map",
        ),
    ];
    let lost = reasons
        .into_iter()
        .filter(|(reason, _)| totals.reason(*reason) > 0);
    lost.map(|(reason, hint)| {
        let detail = format!(
            "{} since the first start. {}",
            totals.reason(reason),
            reason.describe()
        );
        finding(
            format!("drops: {}", reason.name()),
            Verdict::Warning,
            detail,
        )
        .or_do(hint)
    })
    .collect()
}

/// Flows that could not be remembered, or not for long enough.
pub fn forgotten(totals: &Totals) -> Vec<Finding> {
    let events = [
        (Event::Evict, "raise limits.exceptions_max"),
        (
            Event::OverBudget,
            "a flood, or more new connections than limits.inserts_per_second_max is made for",
        ),
        (Event::FlowEvict, "raise limits.flows_max"),
    ];
    let happened = events
        .into_iter()
        .filter(|(event, _)| totals.event(*event) > 0);
    happened
        .map(|(event, hint)| {
            let count = totals.event(event);
            let detail = format!("{count} since the first start. {}", event.describe());
            finding(
                format!("tracking: {}", event.name()),
                Verdict::Warning,
                detail,
            )
            .or_do(hint)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use lb_ebpf::abi::Hop;

    use super::*;
    use crate::net::{Known, XdpAttachment};

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let verdict = |mask: u64| capabilities(&format!("Name:\tweir\nCapEff:\t{mask:016x}\n"));
        assert_eq!(verdict(u64::MAX).verdict, Verdict::Ok);
        assert_eq!(verdict(1 << 12 | 1 << 38 | 1 << 39).verdict, Verdict::Ok);
        assert_eq!(
            verdict(1 << 12 | 1 << 21).verdict,
            Verdict::Ok,
            "CAP_SYS_ADMIN does"
        );
        assert_eq!(verdict(1 << 21).detail, "missing: CAP_NET_ADMIN");
        assert_eq!(
            verdict(0).detail,
            "missing: CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF"
        );
        assert_eq!(capabilities("").verdict, Verdict::Failure);
    }

    #[test]
    fn pinned_maps_of_another_version_are_a_failure() {
        let verdict = |version| pinned(Ok(version)).map(|finding| finding.verdict);
        assert_eq!(verdict(None), None);
        assert_eq!(verdict(Some(lb_ebpf::abi::VERSION)), Some(Verdict::Ok));
        assert_eq!(
            verdict(Some(lb_ebpf::abi::VERSION + 1)),
            Some(Verdict::Failure)
        );
        let unreadable = pinned(Err(dataplane::Error::Permission("access to BPF maps")));
        assert_eq!(
            unreadable.map(|finding| finding.verdict),
            Some(Verdict::Failure)
        );
    }

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, verdict) in [
            ("5.15.0-91-generic", Verdict::Ok),
            ("6.1.0", Verdict::Ok),
            ("10.0-rc1", Verdict::Ok),
            ("5.14.21", Verdict::Failure),
            ("5.9", Verdict::Failure),
            ("4.19.0", Verdict::Failure),
            ("strange", Verdict::Failure),
        ] {
            assert_eq!(kernel(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn every_unknown_way_has_a_hint_and_routers_are_no_l2_backends() {
        let address = IpAddr::from([10, 0, 0, 2]);
        let router = IpAddr::from([10, 0, 0, 1]);
        let known = |neighbour| {
            let interface = "eth0".to_owned();
            Ok(Known {
                hop: Hop::default(),
                interface,
                neighbour,
                mtu: 1500,
                source: None,
            })
        };
        let eth0 = || "eth0".to_owned();
        for (way, forward, verdict) in [
            (known(address), Forward::L2, Verdict::Ok),
            (known(router), Forward::L2, Verdict::Failure),
            (known(router), Forward::Ipip, Verdict::Ok),
            (Err(Unknown::NoRoute), Forward::Ipip, Verdict::Failure),
            (Err(Unknown::Local), Forward::Ipip, Verdict::Failure),
            (
                Err(Unknown::LinkDown { interface: eth0() }),
                Forward::L2,
                Verdict::Failure,
            ),
            (
                Err(Unknown::NotEthernet { interface: eth0() }),
                Forward::L2,
                Verdict::Failure,
            ),
            (
                Err(Unknown::Neighbour {
                    interface: eth0(),
                    ifindex: 3,
                    address: router,
                }),
                Forward::L2,
                Verdict::Failure,
            ),
        ] {
            let finding = next_hop("web/a", address, forward, &way);
            assert_eq!(finding.verdict, verdict, "{way:?}");
            assert_eq!(finding.hint.is_some(), verdict != Verdict::Ok, "{way:?}");
        }
    }

    #[test]
    fn drops_are_reported_when_there_are_any() {
        let mut totals = Totals {
            reasons: vec![0; Reason::ALL.len()],
            ..Totals::default()
        };
        totals.reasons[Reason::NotIp as usize] = 5;
        assert!(drops(&totals).is_empty());
        totals.reasons[Reason::PacketTooBig as usize] = 2;
        let found = drops(&totals);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].check, "drops: packet_too_big");
    }

    #[test]
    fn forgotten_flows_are_reported_with_the_limit_to_raise() {
        let mut totals = Totals {
            track: vec![0; Event::ALL.len()],
            ..Totals::default()
        };
        totals.track[Event::Insert as usize] = 5;
        assert!(forgotten(&totals).is_empty());
        totals.track[Event::FlowEvict as usize] = 2;
        let found = forgotten(&totals);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].check, "tracking: flow_evict");
        assert_eq!(found[0].hint.as_deref(), Some("raise limits.flows_max"));
    }

    #[test]
    fn an_interface_is_as_good_as_its_program_sits() {
        let config = "agent.interfaces = ['eth0']";
        let config = crate::config::Config::parse(config, Path::new("weir.toml")).unwrap();
        let link = |up, veth, native: Option<bool>| Link {
            name: "eth0".to_owned(),
            mac: None,
            mtu: 1500,
            up,
            veth,
            xdp: native.map(|native| XdpAttachment {
                program_id: 7,
                native,
            }),
        };
        for (link, verdict, detail) in [
            (link(true, false, Some(true)), Verdict::Ok, "native"),
            (link(true, true, Some(true)), Verdict::Ok, "as a veth"),
            (link(true, false, Some(false)), Verdict::Warning, "generic"),
            (link(true, false, None), Verdict::Failure, "no XDP program"),
            (link(false, false, Some(true)), Verdict::Failure, "is down"),
        ] {
            let found = interfaces(&config.agent, &BTreeMap::from([(3, link)]));
            assert_eq!(found[0].verdict, verdict, "{detail}");
            assert!(found[0].detail.contains(detail), "{}", found[0].detail);
        }
        let missing = interfaces(&config.agent, &BTreeMap::new());
        assert_eq!(missing[0].verdict, Verdict::Failure);
    }
}
