//! Configuration of the agent: as typed (`file`) → checked (`check`) → as meant (`model`) → list of
//! changes (`diff`).
//!
//! Text enters through [`Config::load`] or [`Config::parse`] and is either accepted whole or refused
//! whole, with every mistake's place, reason and hint. Changes through the control API enter through
//! `edit` and obey the same rules. After this border nobody checks again: a [`Config`] in hand is valid.

use std::fs::File;
use std::io::Read;
use std::path::Path;

mod check;
pub mod diff;
mod edit;
mod error;
mod file;
mod health;
mod model;
mod rules;
mod secret;
mod units;

pub use edit::EditError;
pub use error::{Error, Mistake, PROBLEMS_MAX, Problem, Refused};
pub use model::{
    Agent, BPFFS_DEFAULT, Backend, Config, Forward, HashBy, HealthCheck, Limits, Probe, Protocol,
    SOCKET_DEFAULT, Secret, Tracking, Vip, VipAddress, WEIGHT_DEFAULT, XdpMode, flow_table_bytes,
};
pub use secret::{HashKey, SecretError};

/// Bytes of a configuration file, at most.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is longer than [`FILE_BYTES_MAX`], or is refused.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = File::open(path).map_err(read)?;
        file.take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(read)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::TooLong {
                path: path.to_owned(),
            });
        }
        Ok(Self::parse(&text, path)?)
    }

    /// Checks the text of a file at `path`, which is named in errors and is where relative paths start.
    ///
    /// # Errors
    ///
    /// Every problem found, each at its place.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Refused> {
        let directory = path.parent().unwrap_or(Path::new(""));
        file::parse(text)
            .map_err(|mistake| vec![mistake])
            .and_then(|typed| check::check(&typed, directory))
            .map_err(|found| Refused::new(&path.display().to_string(), text, found))
    }
}

#[cfg(test)]
mod tests;
