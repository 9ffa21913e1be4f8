//! What changes from one configuration to the next, as a list a person can read.
//!
//! Pure: the reload computes it before it applies anything, prints it afterwards, and applies
//! nothing when it is empty.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Backend, Config, Vip};

/// One difference between two configurations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A VIP that was not there before.
    VipAdded {
        /// Name of the VIP.
        vip: String,
        /// Its address, port and protocol.
        address: String,
        /// How many backends it has.
        backends: usize,
    },
    /// A VIP that is gone: its packets are no longer ours.
    VipRemoved {
        /// Name of the VIP.
        vip: String,
        /// Its address, port and protocol.
        address: String,
    },
    /// A property of a VIP (`address`, `forward`, `ring_size`, `hash`, `table`, `tracking`, `health`).
    VipChanged {
        /// Name of the VIP.
        vip: String,
        /// The key in the configuration.
        key: String,
        /// Value before.
        from: String,
        /// Value after.
        to: String,
    },
    /// A backend that was not there before.
    BackendAdded {
        /// Name of the VIP.
        vip: String,
        /// Name of the backend.
        backend: String,
        /// Its address.
        address: String,
        /// Its weight.
        weight: u16,
    },
    /// A backend that is gone.
    BackendRemoved {
        /// Name of the VIP.
        vip: String,
        /// Name of the backend.
        backend: String,
        /// Its address.
        address: String,
    },
    /// A property of a backend (`address`, `weight`).
    BackendChanged {
        /// Name of the VIP.
        vip: String,
        /// Name of the backend.
        backend: String,
        /// The key in the configuration.
        key: String,
        /// Value before.
        from: String,
        /// Value after.
        to: String,
    },
    /// A setting of the agent (`interfaces`, `metrics`, …).
    AgentChanged {
        /// The key in the configuration.
        key: String,
        /// Value before.
        from: String,
        /// Value after.
        to: String,
        /// The running agent keeps the old value until it is started again.
        needs_restart: bool,
    },
}

/// Everything that differs from `old` to `new`: the agent's settings first, then VIPs by name, each
/// followed by its backends by name.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = agent(old, new);
    for (name, before) in &old.vips {
        match new.vips.get(name) {
            Some(after) => vip(before, after, &mut changes),
            None => changes.push(Change::VipRemoved {
                vip: name.clone(),
                address: before.vip_address().to_string(),
            }),
        }
    }
    for after in new
        .vips
        .values()
        .filter(|vip| !old.vips.contains_key(&vip.name))
    {
        changes.push(Change::VipAdded {
            vip: after.name.clone(),
            address: after.vip_address().to_string(),
            backends: after.backends.len(),
        });
    }
    changes
}

/// The agent's settings. What the data plane was created with cannot change under it.
fn agent(old: &Config, new: &Config) -> Vec<Change> {
    let (old, new) = (&old.agent, &new.agent);
    // Key, before, after. Every one of them is fixed for the life of the process.
    let settings = [
        (
            "interfaces",
            old.interfaces.join(", "),
            new.interfaces.join(", "),
        ),
        ("metrics", or_none(&old.metrics), or_none(&new.metrics)),
        (
            "socket",
            old.socket.display().to_string(),
            new.socket.display().to_string(),
        ),
        (
            "bpffs",
            old.bpffs.display().to_string(),
            new.bpffs.display().to_string(),
        ),
        (
            "xdp_mode",
            old.xdp_mode.to_string(),
            new.xdp_mode.to_string(),
        ),
        (
            "source_v4",
            or_none(&old.source_v4),
            or_none(&new.source_v4),
        ),
        (
            "source_v6",
            or_none(&old.source_v6),
            or_none(&new.source_v6),
        ),
        (
            "hash_secret",
            or_none(&old.hash_secret),
            or_none(&new.hash_secret),
        ),
        (
            "settle_after",
            format!("{:?}", old.settle_after),
            format!("{:?}", new.settle_after),
        ),
        (
            "settle_deadline",
            format!("{:?}", old.settle_deadline),
            format!("{:?}", new.settle_deadline),
        ),
        ("limits", old.limits.to_string(), new.limits.to_string()),
    ];
    settings
        .into_iter()
        .filter(|(_, from, to)| from != to)
        .map(|(key, from, to)| Change::AgentChanged {
            key: key.to_owned(),
            from,
            to,
            needs_restart: true,
        })
        .collect()
}

/// One VIP that stands in both configurations.
fn vip(old: &Vip, new: &Vip, changes: &mut Vec<Change>) {
    let properties = [
        (
            "address",
            old.vip_address().to_string(),
            new.vip_address().to_string(),
        ),
        ("forward", old.forward.to_string(), new.forward.to_string()),
        (
            "ring_size",
            old.ring_size.to_string(),
            new.ring_size.to_string(),
        ),
        ("hash", old.hash.to_string(), new.hash.to_string()),
        ("table", old.table.to_string(), new.table.to_string()),
        (
            "tracking",
            old.tracking.to_string(),
            new.tracking.to_string(),
        ),
        ("health", or_none(&old.health), or_none(&new.health)),
    ];
    for (key, from, to) in properties.into_iter().filter(|(_, from, to)| from != to) {
        changes.push(Change::VipChanged {
            vip: old.name.clone(),
            key: key.to_owned(),
            from,
            to,
        });
    }
    backends(&old.name, &old.backends, &new.backends, changes);
}

/// The backends of one VIP.
fn backends(
    vip: &str,
    old: &BTreeMap<String, Backend>,
    new: &BTreeMap<String, Backend>,
    changes: &mut Vec<Change>,
) {
    for before in old.values() {
        let Some(after) = new.get(&before.name) else {
            changes.push(Change::BackendRemoved {
                vip: vip.to_owned(),
                backend: before.name.clone(),
                address: before.address.to_string(),
            });
            continue;
        };
        let properties = [
            (
                "address",
                before.address.to_string(),
                after.address.to_string(),
            ),
            (
                "weight",
                before.weight.to_string(),
                after.weight.to_string(),
            ),
        ];
        for (key, from, to) in properties.into_iter().filter(|(_, from, to)| from != to) {
            changes.push(Change::BackendChanged {
                vip: vip.to_owned(),
                backend: before.name.clone(),
                key: key.to_owned(),
                from,
                to,
            });
        }
    }
    for after in new
        .values()
        .filter(|backend| !old.contains_key(&backend.name))
    {
        changes.push(Change::BackendAdded {
            vip: vip.to_owned(),
            backend: after.name.clone(),
            address: after.address.to_string(),
            weight: after.weight,
        });
    }
}

impl Change {
    /// What it does to live connections, when that is more than people might expect.
    pub fn warning(&self) -> Option<&'static str> {
        let Self::VipChanged { key, from, to, .. } = self else {
            return None;
        };
        match (key.as_str(), from.as_str(), to.as_str()) {
            ("ring_size" | "hash", ..) => Some(
                "moves the VIP's flows to other slots: live connections are cut, but for those that \
                 full tracking knows",
            ),
            ("tracking", "full", _) => Some(
                "what full tracking knew is forgotten: flows that earlier changes moved are cut",
            ),
            ("tracking", _, "none") => Some("slots that move settle at once"),
            _ => None,
        }
    }
}

fn or_none<T: fmt::Display>(value: &Option<T>) -> String {
    value
        .as_ref()
        .map_or_else(|| "none".to_owned(), T::to_string)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VipAdded {
                vip,
                address,
                backends,
            } => {
                write!(f, "+ vip {vip}: {address}, backends: {backends}")
            }
            Self::VipRemoved { vip, address } => write!(f, "- vip {vip}: {address}"),
            Self::VipChanged { vip, key, from, to } => {
                write!(f, "~ vip {vip}: {key} {from} -> {to}")?;
                match self.warning() {
                    Some(warning) => write!(f, " ({warning})"),
                    None => Ok(()),
                }
            }
            Self::BackendAdded {
                vip,
                backend,
                address,
                weight,
            } => {
                write!(f, "+ backend {vip}/{backend}: {address}, weight {weight}")
            }
            Self::BackendRemoved {
                vip,
                backend,
                address,
            } => {
                write!(f, "- backend {vip}/{backend}: {address}")
            }
            Self::BackendChanged {
                vip,
                backend,
                key,
                from,
                to,
            } => {
                write!(f, "~ backend {vip}/{backend}: {key} {from} -> {to}")
            }
            Self::AgentChanged {
                key,
                from,
                to,
                needs_restart,
            } => {
                let note = if *needs_restart {
                    " (takes effect at the next start)"
                } else {
                    ""
                };
                write!(f, "~ agent: {key} {from} -> {to}{note}")
            }
        }
    }
}
