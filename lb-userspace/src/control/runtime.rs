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
use tracing::info;

use super::state::BackendName;
use crate::config::{Config, EditError, WEIGHT_DEFAULT};

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
        /// `None` is the configuration's default.
        weight: Option<u16>,
    },
    /// Take it away.
    Remove,
    /// Give it this weight.
    Weight(u16),
    /// Send it no new flows, or send it some again.
    Drain(bool),
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
    /// The configuration with these changes applied, and the changes that still make sense over it: the
    /// others the configuration has overtaken.
    pub fn over(&self, config: &Config) -> (Effective, Self) {
        let mut effective = Effective {
            config: config.clone(),
            draining: BTreeSet::new(),
        };
        let mut kept = Self::default();
        // What is taken away first makes room for what is added.
        let (removals, others): (Vec<_>, Vec<_>) = self.iter().partition(|(_, over)| over.removed);
        for (name, over) in removals.into_iter().chain(others) {
            match over.apply(&name, &mut effective) {
                Ok(()) => kept.set(name, over.clone()),
                Err(error) => {
                    let (vip, backend) = name;
                    info!(vip, backend, %error, "a change of the control API is overtaken");
                }
            }
        }
        (effective, kept)
    }

    /// These changes and one more, which must make sense over `config`.
    ///
    /// # Errors
    ///
    /// When it does not, or would break a rule of the configuration.
    pub fn with(
        &self,
        config: &Config,
        vip: &str,
        backend: &str,
        change: &Change,
    ) -> Result<Self, EditError> {
        let (mut effective, mut next) = self.over(config);
        change.apply(vip, backend, &mut effective.config)?;
        let configured = config
            .vips
            .get(vip)
            .and_then(|vip| vip.backends.get(backend));
        let name = (vip.to_owned(), backend.to_owned());
        let mut over = next.of(&name).cloned().unwrap_or_default();
        match *change {
            Change::Add { address, weight } => {
                // Adding what was removed undoes the removal.
                let added = configured.is_none_or(|b| b.address != address);
                over = Override {
                    added: added.then_some(address),
                    removed: added && configured.is_some(),
                    weight: if added {
                        Some(weight.unwrap_or(WEIGHT_DEFAULT))
                    } else {
                        weight
                    },
                    draining: false,
                };
            }
            Change::Remove => {
                over = Override {
                    removed: configured.is_some(),
                    ..Override::default()
                }
            }
            Change::Weight(weight) => over.weight = Some(weight),
            Change::Drain(draining) => over.draining = draining,
        }
        next.set(name, over);
        Ok(next)
    }

    fn iter(&self) -> impl Iterator<Item = (BackendName, &Override)> {
        self.vips.iter().flat_map(|(vip, overrides)| {
            let name = |backend: &String| (vip.clone(), backend.clone());
            overrides
                .iter()
                .map(move |(backend, over)| (name(backend), over))
        })
    }

    fn of(&self, (vip, backend): &BackendName) -> Option<&Override> {
        self.vips.get(vip)?.get(backend)
    }

    fn set(&mut self, (vip, backend): BackendName, over: Override) {
        let overrides = self.vips.entry(vip).or_default();
        if over == Override::default() {
            overrides.remove(&backend);
        } else {
            overrides.insert(backend, over);
        }
        self.vips.retain(|_, overrides| !overrides.is_empty());
    }
}

impl Override {
    fn apply(&self, name: &BackendName, effective: &mut Effective) -> Result<(), EditError> {
        let (vip, backend) = name;
        let config = &mut effective.config;
        if self.removed {
            Change::Remove.apply(vip, backend, config)?;
        }
        if let Some(address) = self.added {
            let weight = self.weight;
            Change::Add { address, weight }.apply(vip, backend, config)?;
        } else if let Some(weight) = self.weight {
            Change::Weight(weight).apply(vip, backend, config)?;
        }
        if self.draining {
            Change::Drain(true).apply(vip, backend, config)?;
            effective.draining.insert(name.clone());
        }
        Ok(())
    }
}

impl Change {
    /// Changes the configuration; a drain only checks that the backend is there.
    fn apply(&self, vip: &str, backend: &str, config: &mut Config) -> Result<(), EditError> {
        match *self {
            Self::Add { address, weight } => {
                config.add_backend(vip, backend, address, weight.unwrap_or(WEIGHT_DEFAULT))
            }
            Self::Remove => config.remove_backend(vip, backend).map(drop),
            Self::Weight(weight) => config.set_weight(vip, backend, weight),
            Self::Drain(_) => {
                let found = config.vips.get(vip);
                let found = found.ok_or_else(|| EditError::UnknownVip(vip.to_owned()))?;
                if found.backends.contains_key(backend) {
                    return Ok(());
                }
                Err(EditError::UnknownBackend {
                    vip: vip.to_owned(),
                    backend: backend.to_owned(),
                })
            }
        }
    }
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
