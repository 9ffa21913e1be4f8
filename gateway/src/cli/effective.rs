//! `weir-gateway config --effective`: the configuration with every default written out. Secrets
//! stay the references they are.

use super::{ConfigFile, Failure, output};
use crate::config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Write out every default
    #[arg(long)]
    effective: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (file, _) = config::read(arguments.file.path())?;
    let file = if arguments.effective {
        file.complete()
    } else {
        file
    };
    output::text(&toml::to_string(&file).map_err(anyhow::Error::from)?)
}
