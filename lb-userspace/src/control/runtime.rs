//! Changes made while the agent runs (`weir backend …`), laid over the configuration. Pure, but for
//! [`load`] and [`save`].
//!
//! They are kept in a file beside the control socket, so that an agent that dies and comes back does
//! not, say, send users to a backend that was drained for repair. The file lives under `/run`: a
//! reboot forgets it, as it forgets the maps. A reload keeps them, except where the configuration has
//! caught up: a backend that the file now names, or no longer names, is as the file says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{Backend, Config, Forward, Vip};

/// Weight of a backend that is added without one.
const WEIGHT_DEFAULT: u16 = 100;

/// Characters of a backend's name, at most.
const NAME_CHARS_MAX: usize = 63;

/// Bytes of the file, at most: what 65 535 backends could come to.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// All changes, by VIP and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    vips: BTreeMap<String, BTreeMap<String, Override>>,
}

/// What differs from the configuration for one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Override {
    /// It is not in the configuration; this is its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<IpAddr>,
    /// It is in the configuration, and shall not be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    /// Its weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    /// It takes no new flows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    draining: bool,
}

/// One change to one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A backend that is not there yet.
    Add {
        /// Where packets go.
        address: IpAddr,
        /// `None` is 100.
        weight: Option<u16>,
    },
    /// Take it away.
    Remove,
    /// Give it this weight.
    Weight(u16),
    /// Send it no new flows, or send it some again.
    Drain(bool),
}

/// Why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// No VIP of that name.
    #[error("there is no vip `{0}`")]
    UnknownVip(String),
    /// No backend of that name.
    #[error("vip {vip} has no backend `{backend}`")]
    UnknownBackend {
        /// The VIP.
        vip: String,
        /// The name asked for.
        backend: String,
    },
    /// The name or the address is taken.
    #[error("vip {vip} already has backend `{backend}` at {address}")]
    Exists {
        /// The VIP.
        vip: String,
        /// The backend that has it.
        backend: String,
        /// Its address.
        address: IpAddr,
    },
    /// Not usable as a name.
    #[error("`{0}` is no name: use 1 to {NAME_CHARS_MAX} letters, digits, `-`, `_` or `.`")]
    Name(String),
    /// Not usable as a backend of this VIP.
    #[error("{address} cannot be a backend of vip {vip}: {reason}")]
    Address {
        /// The VIP.
        vip: String,
        /// The address asked for.
        address: IpAddr,
        /// Why not.
        reason: &'static str,
    },
    /// The limit of the configuration.
    #[error("all {0} backends of agent.limits are in use")]
    Full(u32),
}

/// The configuration with the changes applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// As if it had been configured so.
    pub config: Config,
    /// VIP and backend names of those that take no new flows.
    pub draining: BTreeSet<(String, String)>,
}

impl Runtime {
    /// These changes without those that `config` has overtaken.
    pub fn pruned(&self, config: &Config) -> Self {
        let mut pruned = Self::default();
        for (name, overrides) in &self.vips {
            let Some(vip) = config.vips.get(name) else {
                continue;
            };
            let kept: BTreeMap<_, _> = overrides
                .iter()
                .filter(|(backend, change)| {
                    let clash = |address| vip.backends.values().any(|b| b.address == address);
                    match change.added {
                        Some(address) => !vip.backends.contains_key(*backend) && !clash(address),
                        None => vip.backends.contains_key(*backend),
                    }
                })
                .map(|(backend, change)| (backend.clone(), change.clone()))
                .collect();
            if !kept.is_empty() {
                pruned.vips.insert(name.clone(), kept);
            }
        }
        pruned
    }

    /// The configuration with these changes applied; they must be [`pruned`](Self::pruned) for it.
    pub fn over(&self, config: &Config) -> Effective {
        let mut effective = Effective {
            config: config.clone(),
            draining: BTreeSet::new(),
        };
        for (name, overrides) in &self.vips {
            let Some(vip) = effective.config.vips.get_mut(name) else {
                continue;
            };
            for (backend, change) in overrides {
                change.apply(backend, vip);
                if change.draining && vip.backends.contains_key(backend) {
                    effective.draining.insert((name.clone(), backend.clone()));
                }
            }
        }
        effective
    }

    /// These changes and one more, which must make sense over `config`.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn with(
        &self,
        config: &Config,
        vip: &str,
        backend: &str,
        change: &Change,
    ) -> Result<Self, Refused> {
        let effective = self.over(config).config;
        let current = effective
            .vips
            .get(vip)
            .ok_or_else(|| Refused::UnknownVip(vip.to_owned()))?;
        if let Change::Add { address, .. } = change {
            check_new(&effective, current, backend, *address)?;
        } else if !current.backends.contains_key(backend) {
            return Err(Refused::UnknownBackend {
                vip: vip.to_owned(),
                backend: backend.to_owned(),
            });
        }
        let configured = config
            .vips
            .get(vip)
            .and_then(|vip| vip.backends.get(backend));
        let mut next = self.clone();
        let entry = next.vips.entry(vip.to_owned()).or_default();
        let over = entry.entry(backend.to_owned()).or_default();
        match change {
            Change::Add { address, weight } => {
                let same = configured.is_some_and(|configured| configured.address == *address);
                let weight = weight.or((!same).then_some(WEIGHT_DEFAULT));
                *over = Override {
                    added: (!same).then_some(*address),
                    weight,
                    ..Default::default()
                };
            }
            Change::Remove => {
                *over = Override {
                    removed: configured.is_some(),
                    ..Default::default()
                }
            }
            Change::Weight(weight) => over.weight = Some(*weight),
            Change::Drain(draining) => over.draining = *draining,
        }
        if *over == Override::default() {
            entry.remove(backend);
        }
        next.vips.retain(|_, overrides| !overrides.is_empty());
        Ok(next)
    }
}

impl Override {
    fn apply(&self, name: &str, vip: &mut Vip) {
        if self.removed {
            vip.backends.remove(name);
        }
        if let Some(address) = self.added {
            let backend = Backend {
                name: name.to_owned(),
                address,
                weight: WEIGHT_DEFAULT,
            };
            vip.backends.insert(name.to_owned(), backend);
        }
        if let (Some(weight), Some(backend)) = (self.weight, vip.backends.get_mut(name)) {
            backend.weight = weight;
        }
    }
}

fn check_new(effective: &Config, vip: &Vip, name: &str, address: IpAddr) -> Result<(), Refused> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(legal) {
        return Err(Refused::Name(name.to_owned()));
    }
    let taken = vip
        .backends
        .values()
        .find(|b| b.name == name || b.address == address);
    if let Some(taken) = taken {
        let (vip, backend) = (vip.name.clone(), taken.name.clone());
        return Err(Refused::Exists {
            vip,
            backend,
            address: taken.address,
        });
    }
    let reason = if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        Some("no packet can be sent there")
    } else if vip.forward == Forward::L2 && address.is_ipv4() != vip.address.is_ipv4() {
        Some("with forward = \"l2\" it must have the VIP's IP version")
    } else {
        None
    };
    if let Some(reason) = reason {
        return Err(Refused::Address {
            vip: vip.name.clone(),
            address,
            reason,
        });
    }
    let limit = effective.agent.limits.backends_max;
    if effective.backend_count() >= limit as usize {
        return Err(Refused::Full(limit));
    }
    Ok(())
}

/// The file that belongs to the control socket `socket`.
pub fn path(socket: &Path) -> PathBuf {
    socket.with_extension("runtime.json")
}

/// Reads the changes of the agent before; none when there is no file.
///
/// # Errors
///
/// When the file cannot be read or is not what [`save`] writes.
pub fn load(path: &Path) -> io::Result<Runtime> {
    let text = match fs::metadata(path) {
        Ok(file) if file.len() > FILE_BYTES_MAX => return Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => fs::read_to_string(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Runtime::default()),
        Err(error) => return Err(error),
    };
    serde_json::from_str(&text).map_err(io::Error::from)
}

/// Writes the changes, whole or not at all.
///
/// # Errors
///
/// When the directory cannot be written.
pub fn save(path: &Path, runtime: &Runtime) -> io::Result<()> {
    let draft = path.with_extension("json.new");
    let mut file = fs::File::create(&draft)?;
    file.write_all(&serde_json::to_vec_pretty(runtime)?)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests;
