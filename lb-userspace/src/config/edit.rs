//! Changes to a configuration in hand, one at a time: what the control API asks for.
//!
//! Each obeys the rules of the file, and leaves the configuration as it was when it is refused.

use std::net::IpAddr;

use thiserror::Error;

use super::error::Mistake;
use super::{Backend, Config, Vip, rules, units};

/// Why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EditError {
    /// No VIP of this name.
    #[error("there is no VIP `{0}`")]
    UnknownVip(String),
    /// No backend of this name.
    #[error("VIP `{vip}` has no backend `{backend}`")]
    UnknownBackend {
        /// Name of the VIP.
        vip: String,
        /// Name of the backend.
        backend: String,
    },
    /// A backend of this name is there already.
    #[error("VIP `{vip}` already has a backend `{backend}`")]
    BackendExists {
        /// Name of the VIP.
        vip: String,
        /// Name of the backend.
        backend: String,
    },
    /// The configuration would break a rule.
    #[error("{}", .0.reason)]
    Rule(Mistake),
}

impl EditError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::UnknownVip(_) => Some("`weir vip list` shows the names"),
            Self::UnknownBackend { .. } => Some("`weir backend list` shows the names"),
            Self::BackendExists { .. } => {
                Some("choose another name, or change its weight with `weir backend weight`")
            }
            Self::Rule(mistake) => mistake.hint.as_deref(),
        }
    }
}

impl From<Mistake> for EditError {
    fn from(mistake: Mistake) -> Self {
        Self::Rule(mistake)
    }
}

impl Config {
    /// Adds a backend to a VIP.
    ///
    /// # Errors
    ///
    /// When the VIP is unknown, the name is taken or no name, or a rule of the file would be broken.
    pub fn add_backend(
        &mut self,
        vip: &str,
        backend: &str,
        address: IpAddr,
        weight: u16,
    ) -> Result<(), EditError> {
        units::name("backend", backend)?;
        units::unicast(address)?;
        self.try_edit(vip, |vip| {
            if vip.backends.contains_key(backend) {
                return Err(EditError::BackendExists {
                    vip: vip.name.clone(),
                    backend: backend.to_owned(),
                });
            }
            let added = Backend {
                name: backend.to_owned(),
                address,
                weight,
            };
            rules::forwardable(vip, &added)?;
            if let Some(other) = vip.backends.values().find(|other| other.address == address) {
                return Err(rules::same_address(&added, &other.name).into());
            }
            vip.backends.insert(backend.to_owned(), added);
            Ok(())
        })
    }

    /// Takes a backend from a VIP.
    ///
    /// # Errors
    ///
    /// When there is no such VIP or backend.
    pub fn remove_backend(&mut self, vip: &str, backend: &str) -> Result<Backend, EditError> {
        self.try_edit(vip, |vip| {
            vip.backends
                .remove(backend)
                .ok_or_else(|| unknown_backend(vip, backend))
        })
    }

    /// Changes the weight of a backend.
    ///
    /// # Errors
    ///
    /// When there is no such VIP or backend, or somebody would be left with less than one slot.
    pub fn set_weight(&mut self, vip: &str, backend: &str, weight: u16) -> Result<(), EditError> {
        self.try_edit(vip, |vip| match vip.backends.get_mut(backend) {
            Some(backend) => {
                backend.weight = weight;
                Ok(())
            }
            None => Err(unknown_backend(vip, backend)),
        })
    }

    /// Edits a copy of one VIP, and keeps it if everything still holds.
    fn try_edit<T>(
        &mut self,
        name: &str,
        edit: impl FnOnce(&mut Vip) -> Result<T, EditError>,
    ) -> Result<T, EditError> {
        let unknown = || EditError::UnknownVip(name.to_owned());
        let mut edited = self.vips.get(name).cloned().ok_or_else(unknown)?;
        let result = edit(&mut edited)?;
        rules::shares_fit(&edited)?;
        let others = self.vips.values().filter(|vip| vip.name != name);
        rules::Totals::of(others.chain([&edited])).within(&self.agent.limits)?;
        self.vips.insert(name.to_owned(), edited);
        Ok(result)
    }
}

fn unknown_backend(vip: &Vip, backend: &str) -> EditError {
    EditError::UnknownBackend {
        vip: vip.name.clone(),
        backend: backend.to_owned(),
    }
}
