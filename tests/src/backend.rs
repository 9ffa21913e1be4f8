//! A host behind the balancer: it holds the VIP, opens the tunnel and answers clients directly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use crate::binaries;
use crate::bpffs::Bpffs;
use crate::host::{Addresses, Host};

/// Attaches the decapsulation program to the `eth0` of `host`, for tunnels to its own addresses.
///
/// # Errors
///
/// When the program does not load or attach.
pub fn open_tunnels(host: &Host, bpffs: &Bpffs) -> Result<()> {
    let Addresses { v4, v6, .. } = host.addresses();
    attach_decapsulation(host, "eth0", &[v4.into(), v6.into()], bpffs)
}

/// Makes `interface` take the frames that an XDP program on the other end of its veth pair sends
/// back with `XDP_TX`.
///
/// The kernel wakes the receiving end only if that has an XDP program too (`veth_xdp_flush` in
/// drivers/net/veth.c); with GRO alone frames wait in the ring until some other packet comes by.
/// Any program will do: this one passes all packets but tunnels to `unused`, which nobody sends.
///
/// # Errors
///
/// When the program does not load or attach.
pub fn accept_returned_frames(
    host: &Host,
    interface: &str,
    unused: IpAddr,
    bpffs: &Bpffs,
) -> Result<()> {
    attach_decapsulation(host, interface, &[unused], bpffs)
}

fn attach_decapsulation(
    host: &Host,
    interface: &str,
    addresses: &[IpAddr],
    bpffs: &Bpffs,
) -> Result<()> {
    let program = binaries::path("weir")?;
    let program = program.to_str().context("the path of weir is UTF-8")?;
    let pins = bpffs.directory(host.name())?;
    let pins = pins.to_str().context("the path of the bpffs is UTF-8")?;
    let mut arguments = vec![
        "decap",
        "attach",
        "--interface",
        interface,
        "--mode",
        "native",
    ];
    arguments.extend(["--bpffs", pins]);
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    for address in &addresses {
        arguments.extend(["--address", address]);
    }
    host.run(program, &arguments)?;
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
