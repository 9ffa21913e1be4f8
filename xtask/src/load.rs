//! `cargo xtask load` and `unload`: the agent on this host's own interfaces.
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{ebpf, process, release, rights};

/// Options of `cargo xtask load`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
    /// The agent's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Builds, then becomes `weir run`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    rights::require("the agent", "")?;
    // Before minutes of building, and while a relative path still means the caller's directory.
    let config =
        std::fs::canonicalize(&args.config).with_context(|| args.config.display().to_string())?;
    ebpf::build(&args.toolchain)?;
    let mut agent = weir()?;
    agent.arg("run").arg("--config").arg(config);
    match process::exec(agent)? {}
}

/// Becomes `weir detach`, which takes programs and pins away.
pub(crate) fn unload() -> Result<ExitCode> {
    let mut agent = weir()?;
    agent.arg("detach");
    match process::exec(agent)? {}
}

fn weir() -> Result<Command> {
    release::weir().map(Command::new)
}
