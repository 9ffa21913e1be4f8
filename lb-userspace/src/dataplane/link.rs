//! The link between a program and an interface.
//!
//! A `bpf_link` keeps the program attached as long as somebody holds it; pinned, it outlives every
//! process. Replacing the program inside a link (`BPF_LINK_UPDATE`) is one pointer write in the
//! kernel: each packet meets the old program or the new one.

use std::fs;
use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode as AyaMode};
use nix::net::if_::if_nametoindex;
use tracing::{info, warn};

use super::{Error, is_permission};
use crate::config::XdpMode;

/// An interface with the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Whether the link was there already.
    pub adopted: bool,
    /// Kernel id of the program.
    pub program_id: u32,
}

/// Fails at the first of `interfaces` that this host does not have.
///
/// # Errors
///
/// [`Error::InterfaceUnknown`].
pub fn check_interfaces(interfaces: &[String]) -> Result<(), Error> {
    interfaces
        .iter()
        .try_for_each(|name| index_of(name).map(drop))
}

fn index_of(interface: &str) -> Result<u32, Error> {
    if_nametoindex(interface).map_err(|_| Error::InterfaceUnknown(interface.to_owned()))
}

/// Puts `program` into the link pinned at `path`, or makes and pins a new one.
pub(super) fn attach(
    program: &mut Xdp,
    path: &Path,
    interface: &str,
    mode: XdpMode,
) -> Result<Attached, Error> {
    let ifindex = index_of(interface)?;
    let fail = |verb, reason: String| Error::Link {
        verb,
        interface: interface.to_owned(),
        reason,
    };
    let program_id = program
        .info()
        .map_err(|e| fail("examine the program for", e.to_string()))?
        .id();
    let attached = |adopted| Attached {
        interface: interface.to_owned(),
        ifindex,
        adopted,
        program_id,
    };
    if path.exists() {
        if adopt(program, path, ifindex).map_err(|reason| fail("update", reason))? {
            info!(interface, "program replaced in the pinned link");
            return Ok(attached(true));
        }
        // The interface was deleted or renamed since: the link holds nothing, or another device.
        warn!(
            interface,
            "the pinned link belongs to another device; it is replaced"
        );
        fs::remove_file(path).map_err(|source| Error::io("remove", path, source))?;
    }
    let link = create(program, interface, ifindex, mode)?;
    link.pin(path)
        .map_err(|error| fail("pin", error.to_string()))?;
    info!(interface, "program attached");
    Ok(attached(false))
}

/// Replaces the program in the pinned link. False when the link is not of device `ifindex`.
fn adopt(program: &mut Xdp, path: &Path, ifindex: u32) -> Result<bool, String> {
    let link: FdLink = PinnedLink::from_pin(path).map_err(|e| chain(&e))?.into();
    let id = link.info().map_err(|e| chain(&e))?.id();
    if device_of(id) != Some(ifindex) {
        return Ok(false);
    }
    let link = XdpLink::try_from(link).map_err(|e| chain(&e))?;
    program.attach_to_link(link).map_err(|e| chain(&e))?;
    Ok(true)
}

/// The interface index of the XDP link `id`, which this process holds open; 0 when the device is gone.
///
/// aya does not read that part of `bpf_link_info`; `/proc` prints it (`bpf_xdp_link_show_fdinfo`).
fn device_of(id: u32) -> Option<u32> {
    fs::read_dir("/proc/self/fdinfo")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            (number(&text, "link_id:")? == id).then(|| number(&text, "ifindex:"))?
        })
}

fn number(text: &str, key: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().parse().ok()
}

/// Attaches in the driver, or in the stack where `mode` allows it.
fn create(
    program: &mut Xdp,
    interface: &str,
    ifindex: u32,
    mode: XdpMode,
) -> Result<FdLink, Error> {
    let first = if mode == XdpMode::Generic {
        AyaMode::Skb
    } else {
        AyaMode::Driver
    };
    let id = match (program.attach_to_if_index(ifindex, first), mode) {
        (Err(error), XdpMode::Auto) if is_unsupported(&error) => {
            warn!(
                interface,
                error = chain(&error),
                "no native XDP, attaching in generic mode"
            );
            program.attach_to_if_index(ifindex, AyaMode::Skb)
        }
        (result, _) => result,
    };
    let id = id.map_err(|error| explain(error, interface))?;
    program
        .take_link(id)
        .map_err(|error| chain(&error))
        .and_then(|link| FdLink::try_from(link).map_err(|error| chain(&error)))
        .map_err(|reason| Error::Link {
            verb: "hold",
            interface: interface.to_owned(),
            reason,
        })
}

fn explain(error: ProgramError, interface: &str) -> Error {
    let interface = interface.to_owned();
    match errno(&error) {
        Some(libc::EBUSY | libc::EEXIST) => Error::InterfaceBusy(interface),
        Some(libc::ENODEV) => Error::InterfaceUnknown(interface),
        Some(code) if is_unsupported(&error) => Error::NativeUnsupported {
            interface,
            source: io::Error::from_raw_os_error(code),
        },
        _ if is_permission(&error) => Error::Permission("attaching an XDP program"),
        _ => Error::Link {
            verb: "create",
            interface,
            reason: chain(&error),
        },
    }
}

/// What drivers without (or unwilling to do) native XDP answer: no support, a too large MTU, too few
/// queues.
fn is_unsupported(error: &ProgramError) -> bool {
    matches!(
        errno(error),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE | libc::ENOSPC)
    )
}

/// The kernel's error number, wherever in the chain of causes it stands.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(code);
        }
        if let Some(error) = error.downcast_ref::<aya::sys::NetlinkError>() {
            return error.raw_os_error();
        }
        cause = error.source();
    }
    None
}

/// An error with its causes, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_read_from_the_kernels_text() {
        let text = "pos:\t0\nflags:\t02000000\nlink_type:\txdp\nlink_id:\t12\nifindex:\t7\n";
        assert_eq!(number(text, "link_id:"), Some(12));
        assert_eq!(number(text, "ifindex:"), Some(7));
        assert_eq!(number(text, "prog_id:"), None);
    }
}
