//! What travels over the control socket, as JSON.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/vips` | | list of [`Vip`] |
//! | `GET /v1/vips/{vip}` | | [`Vip`] |
//! | `POST /v1/vips/{vip}/backends/{backend}` | [`BackendSpec`] | [`Backend`] |
//! | `DELETE /v1/vips/{vip}/backends/{backend}` | | [`Vip`] |
//! | `PUT /v1/vips/{vip}/backends/{backend}/weight` | [`Weight`] | [`Backend`] |
//! | `PUT /v1/vips/{vip}/backends/{backend}/drain` | | [`Backend`] |
//! | `DELETE /v1/vips/{vip}/backends/{backend}/drain` | | [`Backend`] |
//! | `GET /v1/stats` | | [`Stats`] |
//! | `POST /v1/explain` | [`ExplainQuery`] | [`Explanation`] |
//! | `GET /v1/doctor` | | [`Doctor`] |
//! | `POST /v1/reload` | | [`Reloaded`] |
//! | `POST /v1/detach` | | [`Detached`] |
//!
//! Every refusal is a [`Problem`] with content type `application/problem+json` (RFC 9457).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::diff::Change;
use crate::config::{Forward, HashBy, Protocol, Tracking, XdpMode};
use crate::table::Table;

/// Content type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// [`Problem::reason`] of a configuration (of the file at a reload, or as it would be after the request)
/// that breaks a rule. The command line then exits with 3. Goes with status 422.
pub const CONFIGURATION_REFUSED: &str = "configuration-refused";

/// Why a request was refused (RFC 9457, with `reason` and `hint` as extension members).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable machine-readable name, for example `unknown-vip`.
    pub reason: String,
    /// The same for people, without particulars.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What was wrong this time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The agent at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Path of the configuration file.
    pub config: String,
    /// Whether the last start took over pinned maps (true) or created them (false).
    pub adopted: bool,
    /// Interfaces the program is attached to.
    pub interfaces: Vec<Interface>,
    /// Backends that take new flows now.
    pub backends_serving: usize,
    /// All backends.
    pub backends_total: usize,
    /// VIPs, with their backends.
    pub vips: Vec<Vip>,
    /// Frames the program saw since it was first loaded.
    pub packets: u64,
}

/// One interface with the XDP program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name, for example `eth0`.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// How the program really is attached: `native` or `generic`, never `auto`.
    pub mode: XdpMode,
    /// Kernel id of the attached program.
    pub program_id: u32,
}

/// One VIP as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// Name in the configuration.
    pub name: String,
    /// Destination address.
    pub address: IpAddr,
    /// Destination port; 0 is every port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How packets reach a backend.
    pub forward: Forward,
    /// Which part of a packet decides its backend.
    pub hash: HashBy,
    /// How the owners of the slots are found.
    #[serde(default)]
    pub table: Table,
    /// What is remembered of its flows.
    #[serde(default)]
    pub tracking: Tracking,
    /// Slots of the ring.
    pub ring_size: u32,
    /// Times the ring was published.
    pub generation: u64,
    /// Slots whose live flows still belong to an earlier owner.
    #[serde(default)]
    pub slots_moving: u32,
    /// Those of them that wait for their next owner until they have settled.
    #[serde(default)]
    pub slots_deferred: u32,
    /// Backends, by name.
    pub backends: Vec<Backend>,
}

/// One backend as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Name in the configuration.
    pub name: String,
    /// Where packets are forwarded to.
    pub address: IpAddr,
    /// Configured weight, 0..=65535.
    pub weight: u16,
    /// Slots of the ring it owns now.
    pub slots: u32,
    /// What the health check says.
    pub health: Health,
    /// Why, in the words of the last probe that changed it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub health_reason: String,
    /// Takes no new flows by an operator's wish.
    pub draining: bool,
    /// Where its packets leave, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
}

/// What a health check says about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The last probes succeeded, or none are configured.
    Up,
    /// The last probes failed.
    Down,
    /// No probe has finished yet; takes flows if it did in the last published ring.
    Unknown,
}

/// Where packets to a backend leave this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Interface name.
    pub interface: String,
    /// Address of the neighbour: the backend itself or a router.
    pub address: IpAddr,
    /// MAC address of the neighbour, `aa:bb:cc:dd:ee:ff`; `None` while it is being resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// A backend to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSpec {
    /// Where packets are forwarded to.
    pub address: IpAddr,
    /// Weight, 0..=65535; the configuration's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}

/// A new weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// 0..=65535; 0 takes no new flows.
    pub weight: u16,
}

/// Every counter of the data plane. The packets of `reasons` sum up to `packets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Frames the program saw.
    pub packets: u64,
    /// Counters by VIP.
    pub vips: Vec<VipStats>,
    /// Counters by reason.
    pub reasons: Vec<ReasonStats>,
    /// What happened where flows are told apart.
    #[serde(default)]
    pub tracking: Vec<TrackStats>,
    /// The tables that remember flows.
    #[serde(default)]
    pub flow_tables: Vec<FlowTableStats>,
}

/// One table that remembers flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTableStats {
    /// `exceptions` (flows on slots that move) or `flows` (of VIPs with full tracking).
    pub name: String,
    /// Flows in it that had a packet within `settle_after`; an estimate when the table is large.
    pub live: u64,
    /// Flows that it is made for.
    pub limit: u32,
    /// Bytes of kernel memory.
    pub bytes: u64,
}

/// How often one thing happened where flows are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackStats {
    /// Stable name.
    pub name: String,
    /// How often.
    pub count: u64,
    /// What it means, one sentence.
    pub description: String,
}

/// Counters of one VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStats {
    /// Name of the VIP.
    pub name: String,
    /// Address, port and protocol, `203.0.113.10:443/tcp`.
    pub address: String,
    /// Frames addressed to the VIP.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Slots whose live flows still belong to an earlier owner.
    #[serde(default)]
    pub slots_moving: u32,
    /// Those of them that wait for their next owner until they have settled.
    #[serde(default)]
    pub slots_deferred: u32,
    /// Counters by backend.
    pub backends: Vec<BackendStats>,
}

/// Counters of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStats {
    /// Name of the backend.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Whether it takes new flows as far as health goes.
    pub healthy: bool,
    /// Configured weight.
    pub weight: u16,
    /// Slots of the ring it owns now.
    pub slots: u32,
    /// Frames forwarded to its address, whatever VIP they were for.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on, as received.
    pub bytes: u64,
}

/// Frames that ended for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonStats {
    /// Stable name, for example `forwarded`.
    pub name: String,
    /// What becomes of such a frame: `forward`, `pass`, `drop`, …
    pub action: String,
    /// Frames so far.
    pub packets: u64,
    /// What the reason means, one sentence.
    pub description: String,
}

/// A packet to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub address: IpAddr,
    /// Destination port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// What becomes of a packet, and why: the answer of the kernel's own steering code, run on the host
/// against the live tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What becomes of it: `forward`, `pass`, `drop`, …
    pub action: String,
    /// Stable name of the reason.
    pub reason: String,
    /// What the reason means, one sentence.
    pub description: String,
    /// Name of the VIP it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Where in the ring it landed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// Who gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// How it is forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<Forward>,
    /// The way to the answer, a sentence each, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
}

/// One slot of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Flow hash, 16 hexadecimal digits at most.
    pub hash: String,
    /// Position in the ring.
    pub index: u32,
    /// Slots of the ring.
    pub ring_size: u32,
    /// Generation of the ring.
    pub generation: u64,
    /// Name of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Name of the owner before; the same as `current` when the slot is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// What the agent found when it examined itself and its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// One entry per check, in the order they were made.
    pub findings: Vec<Finding>,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was examined, for example `bpffs` or `next hop of web/gateway-1`.
    pub check: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How one check of the doctor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but worse than it could.
    Warning,
    /// Packets are lost or will be.
    Failure,
}

/// What a reload changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The differences that were applied; empty when the file means the same as before.
    pub changes: Vec<Change>,
}

/// What a detach took away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// Interfaces the program was taken from.
    pub interfaces: Vec<String>,
}
