//! Where the instances of a service are found, as meant.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where the instances of a service are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverConfig {
    /// Who is asked.
    pub source: DiscoverSource,
    /// From one question to the next at least, however short answers are valid.
    pub refresh_min: Duration,
    /// From one question to the next at most, however long answers are valid.
    pub refresh_max: Duration,
    /// How long it must be said that there are no instances until the known ones are given up.
    pub hold: Duration,
}

/// Who knows the instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoverSource {
    /// The addresses of a name (A and AAAA), with one port.
    Dns {
        /// The name.
        name: String,
        /// The port of all instances.
        port: u16,
        /// Who is asked; empty: as the system is configured.
        servers: Vec<SocketAddr>,
    },
    /// A service name (SRV, RFC 2782), with priorities, weights and ports.
    Srv {
        /// The name.
        name: String,
        /// Who is asked; empty: as the system is configured.
        servers: Vec<SocketAddr>,
    },
    /// A file that lists them.
    File(PathBuf),
}

/// For people: what is asked.
impl fmt::Display for DiscoverSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { name, port, .. } => write!(f, "dns {name}:{port}"),
            Self::Srv { name, .. } => write!(f, "srv {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}
