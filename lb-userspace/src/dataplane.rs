//! The data plane as the agent sees it: programs, maps and links in the kernel.
//!
//! The only module that knows aya, and the only one with unsafe code (one mapping, see `mmap`).
//! Everything lives in the kernel under pinned names ([`Pins`]), so a [`Dataplane`] is a set of
//! handles: dropping it, or dying, leaves packets flowing. The next agent finds the names again and
//! goes on with the same maps, counters and hash key ("adoption"), and swaps the program inside the
//! pinned link without a gap.
#![expect(
    unsafe_code,
    reason = "mapping the ring array, waiting for a grace period and watching a descriptor have no \
              safe form"
)]

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub mod backend;
pub mod clock;
pub mod decap;
mod flows;
pub mod grace;
mod link;
mod load;
mod log;
mod maps;
mod mmap;
mod pin;
mod ring;
mod stats;
mod vips;

pub use link::{Attached, check_interfaces};
pub use load::{Dataplane, objects_present, pinned_version};
pub use log::KernelLog;
pub use maps::{LiveTables, Maps, Sizes};
pub use pin::Pins;
pub use stats::Totals;

/// Detaches the balancer from every interface and removes its maps, with all counters. Works with no
/// agent running, and refuses while one holds the data plane.
///
/// # Errors
///
/// [`Error::InUse`] while an agent runs; [`Error::Io`] when a pin cannot be removed.
pub fn detach(bpffs: &Path) -> Result<Vec<String>, Error> {
    let pins = Pins::new(bpffs);
    if !pins.exist() && pins.linked_interfaces().is_empty() {
        return Ok(Vec::new());
    }
    let _owner = pins.lock()?;
    pins.remove()
}

/// Why the data plane could not be made, adopted or changed.
#[derive(Debug, Error)]
pub enum Error {
    /// Built without BPF objects.
    #[error("this build has no BPF object `{0}`")]
    NoObject(&'static str),
    /// An object named by `WEIR_BPF_DIR` cannot be read.
    #[error("cannot read the BPF object {path}")]
    Object {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Maps and links can only be pinned in a bpffs.
    #[error("{0} is not on a bpf file system")]
    NotBpffs(PathBuf),
    /// Another process owns the data plane.
    #[error("another agent uses the data plane under {0}")]
    InUse(PathBuf),
    /// The process may not use BPF.
    #[error("the kernel refused {0}: permission denied")]
    Permission(&'static str),
    /// Pinned maps of another build.
    #[error("the pinned maps have layout version {found}, this build needs {wanted}")]
    Version {
        /// What [`lb_ebpf::abi::Settings::version`] says.
        found: u32,
        /// [`lb_ebpf::abi::VERSION`].
        wanted: u32,
    },
    /// A pinned map of another shape or size.
    #[error("the pinned map {map} has {found} {what}, this build and configuration need {wanted}")]
    Size {
        /// Name of the map.
        map: &'static str,
        /// Which size differs.
        what: &'static str,
        /// As pinned.
        found: u32,
        /// As wanted.
        wanted: u32,
    },
    /// The host has no such interface.
    #[error("there is no interface `{0}`")]
    InterfaceUnknown(String),
    /// Another XDP program sits on the interface.
    #[error("interface `{0}` already has an XDP program of someone else")]
    InterfaceBusy(String),
    /// The driver has no native XDP.
    #[error("interface `{interface}` cannot run XDP in its driver: {source}")]
    NativeUnsupported {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's verifier or loader refused a program.
    #[error("the kernel refuses the BPF program `{name}`: {errno}{verdict}")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// What the kernel said.
        errno: io::Error,
        /// The end of what the verifier said, on lines of its own.
        verdict: String,
    },
    /// A program could not be loaded for another reason.
    #[error("cannot load the BPF program `{name}`")]
    ProgramLoad {
        /// Name of the program.
        name: &'static str,
        /// What aya said.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object does not hold what this build expects.
    #[error("the BPF object has no {kind} `{name}`")]
    Missing {
        /// `map` or `program`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// The object could not be parsed or its maps could not be made.
    #[error("cannot load the BPF object")]
    Load(#[from] Box<aya::EbpfError>),
    /// A map could not be read or written.
    #[error("cannot {verb} the map {map}")]
    Map {
        /// What was tried.
        verb: &'static str,
        /// Name of the map.
        map: &'static str,
        /// What aya said.
        source: Box<aya::maps::MapError>,
    },
    /// Every cell of the VIP table that the key may lie in is taken.
    #[error("the VIP table has no free cell for the VIP")]
    VipTableFull,
    /// A ring does not fit where it was to be written: the allocator and the map disagree.
    #[error("slots {start}+{len} are not in the ring map")]
    RingBounds {
        /// First slot.
        start: u32,
        /// Number of slots.
        len: usize,
    },
    /// A file operation failed.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link could not be pinned, opened or changed.
    #[error("cannot {verb} the link of interface `{interface}`: {reason}")]
    Link {
        /// What was tried.
        verb: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    fn io(verb: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::Permission("access to the bpf file system");
        }
        Self::Io {
            verb,
            path: path.to_owned(),
            source,
        }
    }

    fn map(verb: &'static str, map: &'static str, source: aya::maps::MapError) -> Self {
        use aya::maps::MapError;
        if is_permission(&source) {
            return Self::Permission("access to BPF maps");
        }
        // For aya, what the map has is what is expected of us.
        let (what, found, wanted) = match source {
            MapError::InvalidKeySize { size, expected } => ("bytes to a key", expected, size),
            MapError::InvalidValueSize { size, expected } => ("bytes to a value", expected, size),
            source => {
                return Self::Map {
                    verb,
                    map,
                    source: Box::new(source),
                };
            }
        };
        Self::Size {
            map,
            what,
            found: found as u32,
            wanted: wanted as u32,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoObject(_) => "run `cargo xtask ebpf`, then build `weir` again",
            Self::Object { .. } => {
                "WEIR_BPF_DIR must name the directory that `cargo xtask ebpf` printed"
            }
            Self::NotBpffs(_) => {
                "mount one with `mount -t bpf bpf /sys/fs/bpf`, or set agent.bpffs to a directory in \
                 a mounted bpffs"
            }
            Self::InUse(_) => "stop the other agent, or give this one its own agent.bpffs",
            Self::Permission(_) => "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
            Self::Version { .. } | Self::Size { .. } => {
                "`weir detach` removes the pinned maps (forwarding stops); then start the agent again"
            }
            Self::VipTableFull => "raise limits.vips_max, which makes the table larger",
            Self::InterfaceUnknown(_) => "`ip link` lists the interfaces; see agent.interfaces",
            Self::InterfaceBusy(_) => "`ip link show` names the program; detach it first",
            Self::NativeUnsupported { .. } => {
                "set agent.xdp_mode to \"auto\" or \"generic\", or use another interface"
            }
            Self::Program { .. } | Self::ProgramLoad { .. } | Self::Load(_) => {
                "Linux 5.15 or newer with BPF is needed; `weir doctor` checks the host"
            }
            _ => return None,
        })
    }
}

/// Whether a kernel refusal somewhere down the chain of causes was EPERM or EACCES.
fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let denied = error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        if denied {
            return true;
        }
        cause = error.source();
    }
    false
}
