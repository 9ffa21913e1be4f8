//! Metrics for Prometheus, in the OpenMetrics text format.
//!
//! What the kernel and the agent count anyway is read when somebody asks; only what would be lost
//! otherwise is kept, in [`Meters`]. Labels come from the configuration, so their number is bounded.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::api::types::{Health, Stats, Status};

/// Content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the publish durations, in seconds.
const PUBLISH_BUCKETS: [f64; 8] = [0.000_25, 0.000_5, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0];

/// What the agent counts itself.
#[derive(Clone, Debug)]
pub struct Meters {
    /// Changes written to the data plane.
    pub publishes: Counter,
    /// Changes that failed and were taken back.
    pub publish_failures: Counter,
    /// Time for one change, waiting for packets in flight included.
    publish_seconds: Histogram,
    /// Backends that went up or down.
    pub health_transitions: Counter,
    /// Reloads that were applied.
    pub reloads: Counter,
    /// Reloads that were refused.
    pub reload_failures: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            publishes: Counter::default(),
            publish_failures: Counter::default(),
            publish_seconds: Histogram::new(PUBLISH_BUCKETS),
            health_transitions: Counter::default(),
            reloads: Counter::default(),
            reload_failures: Counter::default(),
        }
    }
}

impl Meters {
    /// Notes how long a change took.
    pub fn published(&self, took: Duration) {
        self.publishes.inc();
        self.publish_seconds.observe(took.as_secs_f64());
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "publishes",
            "Changes written to the data plane",
            self.publishes.clone(),
        );
        registry.register(
            "publish_failures",
            "Changes that failed and were taken back",
            self.publish_failures.clone(),
        );
        registry.register_with_unit(
            "publish_duration",
            "Time for one change, waiting for packets in flight included",
            Unit::Seconds,
            self.publish_seconds.clone(),
        );
        registry.register(
            "health_transitions",
            "Backends that went up or down",
            self.health_transitions.clone(),
        );
        registry.register("reloads", "Reloads that were applied", self.reloads.clone());
        registry.register(
            "reload_failures",
            "Reloads that were refused",
            self.reload_failures.clone(),
        );
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
    action: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlowTableLabels {
    table: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VipLabels {
    vip: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    vip: String,
    backend: String,
    address: String,
}

/// Counters of the data plane are by address: a backend of several VIPs is counted once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AddressLabels {
    address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InterfaceLabels {
    interface: String,
    mode: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    version: String,
}

/// One moment of the agent.
pub struct Scene<'a> {
    /// What the agent counts itself.
    pub meters: &'a Meters,
    /// The agent at a glance.
    pub status: &'a Status,
    /// Counters of the data plane.
    pub stats: &'a Stats,
    /// Names of VIPs whose backends are all down, so that all are used.
    pub panics: Vec<&'a str>,
    /// Messages received from the kernel about its network state.
    pub netlink_events: u64,
}

/// The metrics as text.
///
/// # Errors
///
/// Never in practice: writing to memory does not fail.
pub fn render(scene: &Scene<'_>) -> Result<Vec<u8>, std::fmt::Error> {
    let mut registry = Registry::with_prefix("weir");
    register_agent(&mut registry, scene);
    register_counters(&mut registry, scene.stats);
    register_vips(&mut registry, scene);
    register_backends(&mut registry, scene.status);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text.into_bytes())
}

fn register_agent(registry: &mut Registry, scene: &Scene<'_>) {
    let Scene { meters, status, .. } = scene;
    meters.register(registry);
    let version = Family::<VersionLabels, Gauge>::default();
    let labels = VersionLabels {
        version: status.version.clone(),
    };
    version.get_or_create(&labels).set(1);
    registry.register("agent", "The running agent; always 1", version);
    register_gauge(
        registry,
        "agent_uptime_seconds",
        "Time since the start",
        status.uptime_s,
    );
    let adopted = u64::from(status.adopted);
    register_gauge(
        registry,
        "agent_adopted",
        "1: this agent took over an earlier one's maps",
        adopted,
    );
    let events = Counter::<u64>::default();
    events.inc_by(scene.netlink_events);
    registry.register(
        "netlink_events",
        "Messages about the kernel's network state",
        events,
    );
    let interfaces = Family::<InterfaceLabels, Gauge>::default();
    for interface in &status.interfaces {
        let labels = InterfaceLabels {
            interface: interface.name.clone(),
            mode: interface.mode.to_string(),
        };
        interfaces.get_or_create(&labels).set(1);
    }
    registry.register(
        "interface_attached",
        "1: the program is on the interface",
        interfaces,
    );
}

fn register_gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn register_counters(registry: &mut Registry, stats: &Stats) {
    let reasons = Family::<ReasonLabels, Counter>::default();
    for reason in &stats.reasons {
        let labels = ReasonLabels {
            reason: reason.name.clone(),
            action: reason.action.clone(),
        };
        reasons.get_or_create(&labels).inc_by(reason.packets);
    }
    registry.register(
        "packets",
        "Packets received, by what became of them and why",
        reasons,
    );
    let tracking = Family::<EventLabels, Counter>::default();
    for event in &stats.tracking {
        let labels = EventLabels {
            event: event.name.clone(),
        };
        tracking.get_or_create(&labels).inc_by(event.count);
    }
    registry.register(
        "tracking_events",
        "What happened where flows are told apart: on ring slots that move, and with full tracking",
        tracking,
    );
    let live = Family::<FlowTableLabels, Gauge>::default();
    let limit = Family::<FlowTableLabels, Gauge>::default();
    for table in &stats.flow_tables {
        let labels = FlowTableLabels {
            table: table.name.clone(),
        };
        let flows = i64::try_from(table.live).unwrap_or(i64::MAX);
        live.get_or_create(&labels).set(flows);
        limit.get_or_create(&labels).set(i64::from(table.limit));
    }
    registry.register(
        "flow_table_live_flows",
        "Flows in the table that had a packet within settle_after",
        live,
    );
    registry.register(
        "flow_table_limit_flows",
        "Flows that the table is made for",
        limit,
    );
    register_packets(registry, stats);
}

fn register_packets(registry: &mut Registry, stats: &Stats) {
    let vip_packets = Family::<VipLabels, Counter>::default();
    let vip_bytes = Family::<VipLabels, Counter>::default();
    let packets = Family::<AddressLabels, Counter>::default();
    let bytes = Family::<AddressLabels, Counter>::default();
    for vip in &stats.vips {
        let labels = VipLabels {
            vip: vip.name.clone(),
        };
        vip_packets.get_or_create(&labels).inc_by(vip.packets);
        vip_bytes.get_or_create(&labels).inc_by(vip.bytes);
        for backend in &vip.backends {
            let labels = AddressLabels {
                address: backend.address.to_string(),
            };
            set(&packets.get_or_create(&labels), backend.packets);
            set(&bytes.get_or_create(&labels), backend.bytes);
        }
    }
    registry.register("vip_packets", "Packets forwarded, by VIP", vip_packets);
    registry.register("vip_bytes", "Bytes of these packets as received", vip_bytes);
    registry.register(
        "backend_packets",
        "Packets forwarded, by backend address",
        packets,
    );
    registry.register("backend_bytes", "Bytes of these packets as received", bytes);
}

/// Sets a fresh counter; an address that stands under several VIPs comes by more than once.
fn set(counter: &Counter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

fn register_vips(registry: &mut Registry, scene: &Scene<'_>) {
    let panic = Family::<VipLabels, Gauge>::default();
    let moving = Family::<VipLabels, Gauge>::default();
    let deferred = Family::<VipLabels, Gauge>::default();
    for vip in &scene.status.vips {
        let labels = VipLabels {
            vip: vip.name.clone(),
        };
        let panics = i64::from(scene.panics.contains(&&*vip.name));
        panic.get_or_create(&labels).set(panics);
        let slots = i64::from(vip.slots_moving);
        moving.get_or_create(&labels).set(slots);
        let slots = i64::from(vip.slots_deferred);
        deferred.get_or_create(&labels).set(slots);
    }
    registry.register(
        "vip_panic",
        "1: all backends are down, so all are used",
        panic,
    );
    registry.register(
        "vip_slots_moving",
        "Ring slots whose live flows still belong to an earlier owner",
        moving,
    );
    registry.register(
        "vip_slots_deferred",
        "Moving ring slots that wait for their next owner until they have settled",
        deferred,
    );
}

fn register_backends(registry: &mut Registry, status: &Status) {
    let up = Family::<BackendLabels, Gauge>::default();
    let draining = Family::<BackendLabels, Gauge>::default();
    let weight = Family::<BackendLabels, Gauge>::default();
    let slots = Family::<BackendLabels, Gauge>::default();
    let hop = Family::<BackendLabels, Gauge>::default();
    let backends = status.vips.iter().flat_map(|vip| {
        let backends = vip.backends.iter();
        backends.map(move |backend| (&vip.name, backend))
    });
    for (vip, backend) in backends {
        let labels = BackendLabels {
            vip: vip.clone(),
            backend: backend.name.clone(),
            address: backend.address.to_string(),
        };
        let hop_known = backend
            .next_hop
            .as_ref()
            .is_some_and(|hop| hop.mac.is_some());
        up.get_or_create(&labels)
            .set(i64::from(backend.health == Health::Up));
        draining
            .get_or_create(&labels)
            .set(i64::from(backend.draining));
        weight.get_or_create(&labels).set(i64::from(backend.weight));
        slots.get_or_create(&labels).set(i64::from(backend.slots));
        hop.get_or_create(&labels).set(i64::from(hop_known));
    }
    registry.register("backend_up", "1: the health check says up", up);
    registry.register(
        "backend_draining",
        "1: takes no new flows by an operator's wish",
        draining,
    );
    registry.register(
        "backend_weight",
        "Share of new flows, relative to the others",
        weight,
    );
    registry.register("backend_slots", "Slots of the ring", slots);
    registry.register(
        "backend_next_hop_known",
        "1: the next hop's MAC address is known",
        hop,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{FlowTableStats, ReasonStats, TrackStats};

    #[test]
    fn counters_gauges_and_histograms_are_rendered() {
        let meters = Meters::default();
        meters.published(Duration::from_micros(300));
        let status = Status {
            version: "0.1.0".into(),
            pid: 1,
            uptime_s: 60,
            config: "weir.toml".into(),
            adopted: true,
            interfaces: Vec::new(),
            backends_serving: 0,
            backends_total: 0,
            vips: Vec::new(),
            packets: 7,
        };
        let reason = ReasonStats {
            name: "not_ip".into(),
            action: "pass".into(),
            packets: 7,
            description: String::new(),
        };
        let hit = TrackStats {
            name: "hit".into(),
            count: 3,
            description: String::new(),
        };
        let flows = FlowTableStats {
            name: "flows".into(),
            live: 12,
            limit: 1024,
            bytes: 32_768,
        };
        let stats = Stats {
            packets: 7,
            vips: Vec::new(),
            reasons: vec![reason],
            tracking: vec![hit],
            flow_tables: vec![flows],
        };
        let scene = Scene {
            meters: &meters,
            status: &status,
            stats: &stats,
            panics: vec![],
            netlink_events: 5,
        };
        let text = String::from_utf8(render(&scene).unwrap()).unwrap();
        for line in [
            "weir_packets_total{reason=\"not_ip\",action=\"pass\"} 7",
            "weir_agent{version=\"0.1.0\"} 1",
            "weir_tracking_events_total{event=\"hit\"} 3",
            "weir_flow_table_live_flows{table=\"flows\"} 12",
            "weir_flow_table_limit_flows{table=\"flows\"} 1024",
            "weir_agent_adopted 1",
            "weir_netlink_events_total 5",
            "weir_publishes_total 1",
            "weir_publish_duration_seconds_bucket{le=\"0.0005\"} 1",
            "# EOF",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
