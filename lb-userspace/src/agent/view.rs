//! The agent's state in the words of the control API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_ebpf::abi::VipKey;
use lb_ebpf::reason::Reason;
use lb_ebpf::track::{Event, FlowTable};

use super::Agent;
use crate::api::types::{
    Backend, BackendStats, FlowTableStats, Health, Interface, NextHop, ReasonStats, Stats, Status,
    TrackStats, Vip, VipStats,
};
use crate::config::{self, XdpMode, flow_table_bytes};
use crate::control::state::{Health as Known, key};
use crate::dataplane::Totals;
use crate::explain::Names;
use crate::net::{Link, Unknown, display_mac};

impl Agent {
    pub(super) fn status(&self, totals: &Totals, links: &BTreeMap<u32, Link>) -> Status {
        let vips = self.vips();
        let backends = || vips.iter().flat_map(|vip| &vip.backends);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            config: self.file.display().to_string(),
            adopted: self.dataplane.adopted(),
            interfaces: self.interfaces(links),
            backends_serving: backends().filter(|backend| backend.slots > 0).count(),
            backends_total: backends().count(),
            packets: totals.packets(),
            vips,
        }
    }

    fn interfaces(&self, links: &BTreeMap<u32, Link>) -> Vec<Interface> {
        let view = |attached: &crate::dataplane::Attached| {
            let xdp = links.get(&attached.ifindex).and_then(|link| link.xdp);
            Interface {
                name: attached.interface.clone(),
                index: attached.ifindex,
                mode: match xdp {
                    Some(xdp) if !xdp.native => XdpMode::Generic,
                    _ => XdpMode::Native,
                },
                program_id: xdp.map_or(0, |xdp| xdp.program_id),
            }
        };
        self.attached.iter().map(view).collect()
    }

    pub(super) fn vips(&self) -> Vec<Vip> {
        self.desired
            .effective
            .config
            .vips
            .values()
            .map(|vip| self.vip(vip))
            .collect()
    }

    pub(super) fn vip(&self, vip: &config::Vip) -> Vip {
        let ring = self.published.vips.get(&key(vip));
        let owners = self.published.owners(&key(vip));
        Vip {
            name: vip.name.clone(),
            address: vip.address,
            port: vip.port,
            protocol: vip.protocol,
            forward: vip.forward,
            hash: vip.hash,
            table: vip.table,
            tracking: vip.tracking,
            ring_size: vip.ring_size,
            generation: ring.map_or(0, |ring| ring.generation),
            slots_moving: ring.map_or(0, |ring| ring.moving),
            slots_deferred: ring.map_or(0, |ring| ring.deferred),
            backends: vip
                .backends
                .values()
                .map(|b| self.backend(vip, b, &owners))
                .collect(),
        }
    }

    pub(super) fn backend(
        &self,
        vip: &config::Vip,
        backend: &config::Backend,
        owners: &BTreeMap<IpAddr, u32>,
    ) -> Backend {
        let health = self.desired.healths.of(&vip.name, &backend.name);
        let name = (vip.name.clone(), backend.name.clone());
        Backend {
            name: backend.name.clone(),
            address: backend.address,
            weight: backend.weight,
            slots: owners.get(&backend.address).copied().unwrap_or(0),
            health: health.map_or(Health::Unknown, |health| health.verdict),
            health_reason: health
                .map(|health| health.reason.clone())
                .unwrap_or_default(),
            draining: self.desired.effective.draining.contains(&name),
            next_hop: self.next_hop(backend.address),
        }
    }

    fn next_hop(&self, address: IpAddr) -> Option<NextHop> {
        match self.net.ways.borrow().ways.get(&address)? {
            Ok(known) => Some(NextHop {
                interface: known.interface.clone(),
                address: known.neighbour,
                mac: Some(display_mac(known.hop.destination())),
            }),
            Err(Unknown::Neighbour {
                interface, address, ..
            }) => Some(NextHop {
                interface: interface.clone(),
                address: *address,
                mac: None,
            }),
            Err(_) => None,
        }
    }

    pub(super) fn stats(&self, totals: &Totals) -> Stats {
        let reasons = Reason::ALL.iter().map(|&reason| ReasonStats {
            name: reason.name().to_owned(),
            action: reason.action().name().to_owned(),
            packets: totals.reason(reason),
            description: reason.describe().to_owned(),
        });
        let tracking = Event::ALL.iter().map(|&event| TrackStats {
            name: event.name().to_owned(),
            count: totals.event(event),
            description: event.describe().to_owned(),
        });
        let vips = self.desired.effective.config.vips.values();
        Stats {
            packets: totals.packets(),
            vips: vips.map(|vip| self.vip_stats(vip, totals)).collect(),
            reasons: reasons.collect(),
            tracking: tracking.collect(),
            flow_tables: self.flow_tables(totals),
        }
    }

    /// How full the flow tables are. Looking takes milliseconds, so those that nothing was ever put
    /// into are not looked at.
    fn flow_tables(&self, totals: &Totals) -> Vec<FlowTableStats> {
        let agent = &self.desired.config.agent;
        let quiet_s = u32::try_from(agent.settle_after.as_secs()).unwrap_or(u32::MAX);
        let maps = self.dataplane.maps();
        let table = |name: &str, table, insert, limit| FlowTableStats {
            name: name.to_owned(),
            live: match totals.event(insert) {
                0 => 0,
                _ => maps.live_flows(table, quiet_s),
            },
            limit,
            bytes: flow_table_bytes(limit),
        };
        let (exceptions, flows) = (agent.limits.exceptions_max, agent.limits.flows_max);
        vec![
            table(
                "exceptions",
                FlowTable::Exceptions,
                Event::Insert,
                exceptions,
            ),
            table("flows", FlowTable::Flows, Event::FlowInsert, flows),
        ]
    }

    fn vip_stats(&self, vip: &config::Vip, totals: &Totals) -> VipStats {
        let owners = self.published.owners(&key(vip));
        let ring = self.published.vips.get(&key(vip));
        let counts = ring.map(|ring| totals.vip(ring.vip.id)).unwrap_or_default();
        let backend = |backend: &config::Backend| {
            let id = self.published.backend_id(backend.address);
            let counts = id.map(|id| totals.backend(id)).unwrap_or_default();
            let health = self.desired.healths.of(&vip.name, &backend.name);
            BackendStats {
                name: backend.name.clone(),
                address: backend.address,
                healthy: health.is_some_and(|health: &Known| health.serves),
                weight: backend.weight,
                slots: owners.get(&backend.address).copied().unwrap_or(0),
                packets: counts.packets,
                bytes: counts.bytes,
            }
        };
        VipStats {
            name: vip.name.clone(),
            address: vip.vip_address().to_string(),
            packets: counts.packets,
            bytes: counts.bytes,
            slots_moving: ring.map_or(0, |ring| ring.moving),
            slots_deferred: ring.map_or(0, |ring| ring.deferred),
            backends: vip.backends.values().map(backend).collect(),
        }
    }

    pub(super) fn vip_by_key(&self, wanted: &VipKey) -> Option<&config::Vip> {
        self.desired
            .effective
            .config
            .vips
            .values()
            .find(|vip| key(vip) == *wanted)
    }
}

impl Names for Agent {
    fn vip(&self, key: &VipKey) -> Option<(String, u64)> {
        let generation = self.published.vips.get(key)?.generation;
        Some((self.vip_by_key(key)?.name.clone(), generation))
    }

    fn backend(&self, vip: &str, id: u16) -> Option<String> {
        let address = self.published.backends.get(&id)?.address;
        let vip = self.desired.effective.config.vips.get(vip)?;
        let named = vip
            .backends
            .values()
            .find(|backend| backend.address == address);
        // A backend that was removed has no name any more, but its flows may go on.
        Some(named.map_or_else(|| address.to_string(), |backend| backend.name.clone()))
    }
}
