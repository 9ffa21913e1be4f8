//! `weir-gateway run`: serves until SIGTERM, then drains.

use std::path::PathBuf;

use super::{ConfigFile, Failure};
use crate::upgrade::Handover;
use crate::{config, server};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Take over the listening sockets of the gateway behind this control socket, which then
    /// drains and ends
    #[arg(long, value_name = "SOCKET")]
    take_over: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let handover = arguments.take_over.as_deref().map(Handover::from);
    let handover = handover.transpose()?;
    let outcome = serve(arguments, handover.as_ref());
    if let (Some(handover), Err(failure)) = (handover, &outcome) {
        // Once it has drained, the other process hears no more.
        handover.failed(&failure.to_string());
    }
    outcome
}

fn serve(arguments: &Arguments, handover: Option<&Handover>) -> Result<(), Failure> {
    let path = arguments.file.path();
    server::run(config::load(path)?, path, handover)?;
    Ok(())
}
