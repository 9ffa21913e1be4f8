//! The other end of the tunnel: the program that takes the outer header off on backend hosts.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use lb_ebpf::abi::{AddressKey, map, program};
use lb_ebpf::decap::DecapReason;

use super::link::{self, Attached};
use super::maps::{open_map, typed};
use super::pin::Pins;
use super::{Error, load, stats};
use crate::config::XdpMode;

/// Attaches the decapsulation program to `interface`: tunnels addressed to one of `addresses` are
/// opened, everything else passes.
///
/// Maps and the link are pinned under `bpffs`, so the program stays when this process ends. Doing it
/// again replaces program and addresses, and keeps the counters.
///
/// # Errors
///
/// As [`super::Dataplane::open`] and [`super::Dataplane::attach`].
pub fn attach(
    interface: &str,
    addresses: &[IpAddr],
    mode: XdpMode,
    bpffs: &Path,
) -> Result<Attached, Error> {
    let object = load::decap()?;
    let pins = Pins::new(&root(bpffs));
    let _owner = pins.prepare()?;
    let mut loader = EbpfLoader::new();
    for name in [map::TUNNELS, map::DECAP_COUNTS] {
        loader.map_pin_path(name, pins.map(name));
    }
    let level = 0_u8;
    loader.override_global(aya_log::LEVEL, &level, false);
    let mut ebpf = loader.load(&object).map_err(load::load_error)?;
    load::load_program(&mut ebpf, program::DECAP)?;
    set_addresses(&pins, addresses)?;
    let path = pins.link(interface);
    link::attach(
        load::program_of(&mut ebpf, program::DECAP)?,
        &path,
        interface,
        mode,
    )
}

/// Takes the decapsulation program off `interface`; with the last interface its maps go too. False
/// when it was not attached there.
///
/// # Errors
///
/// [`Error::Io`] when a pin cannot be removed.
pub fn detach(interface: &str, bpffs: &Path) -> Result<bool, Error> {
    let pins = Pins::new(&root(bpffs));
    let path = pins.link(interface);
    if !path.exists() {
        return Ok(false);
    }
    let _owner = pins.lock()?;
    fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
    if pins.linked_interfaces().is_empty() {
        pins.remove()?;
    }
    Ok(true)
}

/// What the decapsulation program of a host has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Interfaces it is attached to.
    pub interfaces: Vec<String>,
    /// Tunnel addresses it answers for.
    pub addresses: Vec<IpAddr>,
    /// Packets by reason, in the order of [`DecapReason::ALL`].
    pub packets: Vec<(DecapReason, u64)>,
}

/// Reads addresses and counters. Where nothing is attached, there are none.
///
/// # Errors
///
/// When the maps cannot be read.
pub fn status(bpffs: &Path) -> Result<Status, Error> {
    let pins = Pins::new(&root(bpffs));
    if pins.linked_interfaces().is_empty() {
        return Ok(Status {
            interfaces: Vec::new(),
            addresses: Vec::new(),
            packets: Vec::new(),
        });
    }
    let counts: PerCpuArray<MapData, u64> = typed(
        map::DECAP_COUNTS,
        Map::PerCpuArray(open_map(&pins, map::DECAP_COUNTS)?),
    )?;
    let sums = stats::read_all(&counts, map::DECAP_COUNTS, |sum: &mut u64, n| *sum += n)?;
    let mut addresses: Vec<IpAddr> = keys(&tunnels(&pins)?)?
        .into_iter()
        .map(|key| IpAddr::from(key.address))
        .collect();
    addresses.sort_unstable();
    Ok(Status {
        interfaces: pins.linked_interfaces(),
        addresses,
        packets: DecapReason::ALL.iter().copied().zip(sums).collect(),
    })
}

/// A host may be balancer and backend at once: the two keep apart.
fn root(bpffs: &Path) -> PathBuf {
    bpffs.join("decap")
}

fn tunnels(pins: &Pins) -> Result<HashMap<MapData, AddressKey, u32>, Error> {
    typed(map::TUNNELS, Map::HashMap(open_map(pins, map::TUNNELS)?))
}

fn keys(tunnels: &HashMap<MapData, AddressKey, u32>) -> Result<Vec<AddressKey>, Error> {
    tunnels
        .keys()
        .collect::<Result<_, _>>()
        .map_err(|source| Error::map("read", map::TUNNELS, source))
}

/// Adds first and removes afterwards, so that an address in both sets is never missing.
fn set_addresses(pins: &Pins, addresses: &[IpAddr]) -> Result<(), Error> {
    let fail = |source| Error::map("write", map::TUNNELS, source);
    let mut tunnels = tunnels(pins)?;
    let wanted: Vec<AddressKey> = addresses
        .iter()
        .map(|&address| AddressKey {
            address: address.into(),
        })
        .collect();
    for key in &wanted {
        tunnels.insert(key, 1, 0).map_err(fail)?;
    }
    for key in keys(&tunnels)?.iter().filter(|key| !wanted.contains(key)) {
        tunnels.remove(key).map_err(fail)?;
    }
    Ok(())
}
