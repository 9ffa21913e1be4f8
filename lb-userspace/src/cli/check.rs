//! `weir check`: whether a configuration would be accepted, and what it means.

use std::path::PathBuf;

use lb_userspace::config::{Config, Vip};
use serde::Serialize;

use super::failure::Failure;
use super::output::{Column, Output, count, sections, table};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(long, value_name = "PATH", env = "WEIR_CONFIG")]
    config: PathBuf,
}

/// What `--json` says of an accepted file.
#[derive(Debug, Serialize)]
struct Accepted {
    config: PathBuf,
    interfaces: Vec<String>,
    vips: Vec<Meaning>,
}

/// One VIP, as text.
#[derive(Debug, Serialize)]
struct Meaning {
    name: String,
    address: String,
    forward: String,
    hash: String,
    table: String,
    tracking: String,
    ring_size: u32,
    backends: usize,
    health: Option<String>,
}

pub(super) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let accepted = Accepted {
        config: args.config.clone(),
        interfaces: config.agent.interfaces,
        vips: config.vips.values().map(Meaning::of).collect(),
    };
    output.show(&accepted, text)
}

impl Meaning {
    fn of(vip: &Vip) -> Self {
        Self {
            name: vip.name.clone(),
            address: vip.vip_address().to_string(),
            forward: vip.forward.to_string(),
            hash: vip.hash.to_string(),
            table: vip.table.to_string(),
            tracking: vip.tracking.to_string(),
            ring_size: vip.ring_size,
            backends: vip.backends.len(),
            health: vip.health.as_ref().map(ToString::to_string),
        }
    }
}

fn text(accepted: &Accepted) -> String {
    let backends = accepted.vips.iter().map(|vip| vip.backends).sum();
    let summary = format!(
        "{} is valid: {}, {} on {}",
        accepted.config.display(),
        count(accepted.vips.len(), "VIP"),
        count(backends, "backend"),
        accepted.interfaces.join(", "),
    );
    if accepted.vips.is_empty() {
        return summary;
    }
    let columns = [
        Column::Text("VIP"),
        Column::Text("ADDRESS"),
        Column::Text("FORWARD"),
        Column::Text("HASH"),
        Column::Text("TABLE"),
        Column::Text("TRACKING"),
        Column::Number("SLOTS"),
        Column::Number("BACKENDS"),
        Column::Text("HEALTH"),
    ];
    let rows = accepted.vips.iter().map(|vip| {
        [
            vip.name.clone(),
            vip.address.clone(),
            vip.forward.clone(),
            vip.hash.clone(),
            vip.table.clone(),
            vip.tracking.clone(),
            vip.ring_size.to_string(),
            vip.backends.to_string(),
            vip.health.clone().unwrap_or_default(),
        ]
    });
    sections([summary, table(columns, rows)])
}
