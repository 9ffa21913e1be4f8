//! `weir backend`: the backends of a VIP, and changing them while packets flow.

use std::net::IpAddr;

use lb_userspace::api::client::Client;
use lb_userspace::api::types::{Backend, BackendSpec, Health, Vip};

use super::failure::Failure;
use super::output::{Column, Output, table};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List backends
    List {
        /// Name of the VIP; all of them when absent
        vip: Option<String>,
    },
    /// Add a backend to a VIP
    Add {
        /// Name of the VIP
        vip: String,
        /// Name of the new backend
        backend: String,
        /// Address that packets are forwarded to
        #[arg(long)]
        address: IpAddr,
        /// Share of new flows relative to the other backends, 0 to 65535 [default: 100]
        #[arg(long)]
        weight: Option<u16>,
    },
    /// Remove a backend at once; drain it first to spare its connections
    Remove(Name),
    /// Send a backend no new flows
    Drain(Name),
    /// Send a drained backend new flows again
    Undrain(Name),
    /// Change the weight of a backend
    Weight {
        #[command(flatten)]
        name: Name,
        /// Share of new flows relative to the other backends, 0 to 65535
        weight: u16,
    },
}

/// A backend by name.
#[derive(Debug, clap::Args)]
pub(super) struct Name {
    /// Name of the VIP
    vip: String,
    /// Name of the backend
    backend: String,
}

pub(super) async fn run(command: Command, client: &Client, output: Output) -> Result<(), Failure> {
    let changed = match command {
        Command::List { vip: Some(vip) } => {
            return show_all(&[client.vip(&vip).await?], output);
        }
        Command::List { vip: None } => return show_all(&client.vips().await?, output),
        Command::Remove(Name { vip, backend }) => {
            let vip = client.remove_backend(&vip, &backend).await?;
            return output.show(&vip, |vip| list(vip.backends.iter().map(|b| (vip, b))));
        }
        Command::Add {
            vip,
            backend,
            address,
            weight,
        } => {
            client
                .add_backend(&vip, &backend, &BackendSpec { address, weight })
                .await?
        }
        Command::Drain(Name { vip, backend }) => client.set_drain(&vip, &backend, true).await?,
        Command::Undrain(Name { vip, backend }) => client.set_drain(&vip, &backend, false).await?,
        Command::Weight {
            name: Name { vip, backend },
            weight,
        } => client.set_weight(&vip, &backend, weight).await?,
    };
    output.show(&changed, one)
}

fn show_all(vips: &[Vip], output: Output) -> Result<(), Failure> {
    output.show(vips, |vips| {
        list(
            vips.iter()
                .flat_map(|vip| vip.backends.iter().map(move |backend| (vip, backend))),
        )
    })
}

/// One line per backend.
pub(super) fn list<'a>(backends: impl Iterator<Item = (&'a Vip, &'a Backend)>) -> String {
    let columns = [
        Column::Text("VIP"),
        Column::Text("BACKEND"),
        Column::Text("ADDRESS"),
        Column::Number("WEIGHT"),
        Column::Number("SHARE"),
        Column::Text("STATE"),
        Column::Text("NEXT HOP"),
        Column::Text("LAST CHANGE"),
    ];
    let rows = backends.map(|(vip, backend)| {
        [
            vip.name.clone(),
            backend.name.clone(),
            backend.address.to_string(),
            backend.weight.to_string(),
            format!(
                "{:.1}%",
                100.0 * f64::from(backend.slots) / f64::from(vip.ring_size)
            ),
            state(backend).to_owned(),
            next_hop(backend),
            backend.health_reason.clone(),
        ]
    });
    table(columns, rows)
}

/// One changed backend, in a line.
fn one(backend: &Backend) -> String {
    let Backend {
        name,
        address,
        weight,
        slots,
        ..
    } = backend;
    format!(
        "{name} at {address}: {}, weight {weight}, {slots} slots",
        state(backend)
    )
}

/// What matters most about a backend, in a word.
pub(super) fn state(backend: &Backend) -> &'static str {
    match backend.health {
        Health::Down => "down",
        Health::Unknown => "unknown",
        Health::Up if backend.draining => "draining",
        Health::Up if backend.slots == 0 => "idle",
        Health::Up => "serving",
    }
}

fn next_hop(backend: &Backend) -> String {
    match &backend.next_hop {
        None => String::new(),
        Some(hop) => match &hop.mac {
            Some(mac) => format!("{mac} on {}", hop.interface),
            None => format!("{} on {}, unresolved", hop.address, hop.interface),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::vip::tests::web;
    use super::*;

    #[test]
    fn a_changed_backend_fits_on_a_line() {
        let web = web();
        assert_eq!(
            one(&web.backends[0]),
            "gateway-1 at 10.0.0.11: serving, weight 100, 65537 slots"
        );
    }

    #[test]
    fn the_state_is_what_matters_most() {
        let mut backend = web().backends.remove(0);
        assert_eq!(state(&backend), "serving");
        backend.slots = 0;
        assert_eq!(state(&backend), "idle");
        backend.draining = true;
        assert_eq!(state(&backend), "draining");
        backend.health = Health::Unknown;
        assert_eq!(state(&backend), "unknown");
        backend.health = Health::Down;
        assert_eq!(state(&backend), "down");
    }
}
