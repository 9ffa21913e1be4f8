//! A host behind the balancer: it holds the VIP, opens the tunnel and answers clients directly.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::binaries;
use crate::bpffs::Bpffs;
use crate::host::Host;

/// Attaches the decapsulation program to the `eth0` of `host`, for tunnels to its own addresses.
///
/// # Errors
///
/// When the program does not load or attach.
pub fn open_tunnels(host: &Host, bpffs: &Bpffs) -> Result<()> {
    let program = binaries::path("weir")?;
    let pins: PathBuf = bpffs.directory(host.name())?;
    let (v4, v6) = (
        host.addresses().v4.to_string(),
        host.addresses().v6.to_string(),
    );
    let program = program.to_str().context("the path of weir is UTF-8")?;
    let pins = pins.to_str().context("the path of the bpffs is UTF-8")?;
    let attach = ["decap", "attach", "--interface", "eth0", "--mode", "native"];
    let own = ["--address", &v4, "--address", &v6, "--bpffs", pins];
    host.run(program, &[&attach[..], &own[..]].concat())?;
    Ok(())
}

/// Makes `host` a backend of the VIP addresses: it accepts packets to them, in tunnels or bare.
///
/// # Errors
///
/// When a tool refuses.
pub fn serve_vip(host: &Host, bpffs: &Bpffs, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    host.hold_vip(v4, v6)?;
    open_tunnels(host, bpffs)
}
