//! `weir decap`: the program on backend hosts that takes packets out of their tunnels. Works on this
//! host without an agent; what is attached stays when the command ends.

use std::net::IpAddr;

use lb_userspace::config::XdpMode;
use lb_userspace::dataplane::decap;
use serde::Serialize;

use super::Bpffs;
use super::failure::Failure;
use super::output::{Column, Output, pairs, sections, table};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Open tunnels that arrive on an interface
    Attach {
        /// Interface that tunnels arrive on
        #[arg(long, value_name = "NAME")]
        interface: String,
        /// Address of this host that tunnels end at; may be given several times
        #[arg(long = "address", value_name = "ADDRESS", required = true)]
        addresses: Vec<IpAddr>,
        /// How the program is attached
        #[arg(long, default_value = "auto")]
        mode: Mode,
        #[command(flatten)]
        bpffs: Bpffs,
    },
    /// Stop opening tunnels that arrive on an interface
    Detach {
        /// Interface that tunnels arrive on
        #[arg(long, value_name = "NAME")]
        interface: String,
        #[command(flatten)]
        bpffs: Bpffs,
    },
    /// Show where tunnels are opened, and how many packets came through
    Status {
        #[command(flatten)]
        bpffs: Bpffs,
    },
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Mode {
    /// In the driver
    Native,
    /// In the network stack
    Generic,
    /// In the driver where that works
    Auto,
}

/// What `attach` says.
#[derive(Debug, Serialize)]
struct Attached {
    interface: String,
    program_id: u32,
    addresses: Vec<IpAddr>,
}

/// What `detach` says.
#[derive(Debug, Serialize)]
struct Detached {
    interface: String,
    was_attached: bool,
}

/// What `status` says.
#[derive(Debug, Serialize)]
struct Status {
    interfaces: Vec<String>,
    addresses: Vec<IpAddr>,
    reasons: Vec<Reason>,
}

/// Packets of one reason.
#[derive(Debug, Serialize)]
struct Reason {
    name: &'static str,
    packets: u64,
    description: &'static str,
}

pub(super) fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Attach {
            interface,
            addresses,
            mode,
            bpffs,
        } => {
            let link = decap::attach(&interface, &addresses, mode.into(), &bpffs.bpffs)?;
            let attached = Attached {
                interface,
                program_id: link.program_id,
                addresses,
            };
            output.show(&attached, |attached| {
                let addresses: Vec<String> =
                    attached.addresses.iter().map(IpAddr::to_string).collect();
                format!(
                    "{}: opens tunnels to {}",
                    attached.interface,
                    addresses.join(", ")
                )
            })
        }
        Command::Detach { interface, bpffs } => {
            let was_attached = decap::detach(&interface, &bpffs.bpffs)?;
            output.show(
                &Detached {
                    interface,
                    was_attached,
                },
                |detached| {
                    let what = if detached.was_attached {
                        "detached"
                    } else {
                        "was not attached"
                    };
                    format!("{}: {what}", detached.interface)
                },
            )
        }
        Command::Status { bpffs } => {
            let status = Status::from(decap::status(&bpffs.bpffs)?);
            output.show(&status, text)
        }
    }
}

fn text(status: &Status) -> String {
    if status.interfaces.is_empty() {
        return "no tunnels are opened on this host".to_owned();
    }
    let addresses: Vec<String> = status.addresses.iter().map(IpAddr::to_string).collect();
    let head = pairs(&[
        ("interfaces", status.interfaces.join(", ")),
        ("addresses", addresses.join(", ")),
    ]);
    let columns = [
        Column::Text("REASON"),
        Column::Number("PACKETS"),
        Column::Text("MEANING"),
    ];
    let rows = status.reasons.iter().map(|reason| {
        [
            reason.name.to_owned(),
            reason.packets.to_string(),
            reason.description.to_owned(),
        ]
    });
    sections([head, table(columns, rows)])
}

impl From<decap::Status> for Status {
    fn from(status: decap::Status) -> Self {
        let reason = |(reason, packets): (lb_ebpf::decap::DecapReason, u64)| Reason {
            name: reason.name(),
            packets,
            description: reason.describe(),
        };
        Self {
            interfaces: status.interfaces,
            addresses: status.addresses,
            reasons: status.packets.into_iter().map(reason).collect(),
        }
    }
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
            Mode::Auto => Self::Auto,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_attached_is_said_in_a_sentence() {
        let status = Status {
            interfaces: vec![],
            addresses: vec![],
            reasons: vec![],
        };
        assert_eq!(text(&status), "no tunnels are opened on this host");
    }

    #[test]
    fn counters_read_as_a_table() {
        let status = Status {
            interfaces: vec!["eth0".to_owned()],
            addresses: vec!["10.0.0.11".parse().unwrap()],
            reasons: vec![Reason {
                name: "decapsulated",
                packets: 7,
                description: "The outer header was taken off.",
            }],
        };
        insta::assert_snapshot!(text(&status), @r"
        interfaces  eth0
        addresses   10.0.0.11

        REASON        PACKETS  MEANING
        decapsulated        7  The outer header was taken off.
        ");
    }
}
