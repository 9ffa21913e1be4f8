//! The command line: arguments, one file per subcommand, and `output`, the only printer.
//!
//! Apart from `run`, `check` and `decap` every subcommand asks the running agent and holds no logic
//! of its own: what it prints is what the agent answered.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use lb_userspace::api::client::Client;
use lb_userspace::config::{BPFFS_DEFAULT, SOCKET_DEFAULT};

use failure::Failure;
use output::Output;

mod backend;
mod check;
mod decap;
mod detach;
mod doctor;
mod explain;
mod failure;
pub(crate) mod output;
mod reload;
mod run;
mod stats;
mod status;
mod vip;

/// The layer-4 load balancer of Weir: agent and command line
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 refused configuration.")]
pub(crate) struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(Debug, clap::Args)]
struct Common {
    /// Print JSON for programs instead of tables for people
    #[arg(long, global = true)]
    json: bool,
    /// Control socket of the agent [default: /run/weir.sock]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "WEIR_SOCKET",
        hide_env = true
    )]
    socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground
    Run(run::Args),
    /// Check a configuration file and say what it means
    Check(check::Args),
    /// Show the agent at a glance
    Status,
    /// Show VIPs
    #[command(subcommand)]
    Vip(vip::Command),
    /// Show and change the backends of a VIP
    #[command(subcommand)]
    Backend(backend::Command),
    /// Show the counters of the data plane
    Stats(stats::Args),
    /// Say which backend a packet goes to, and why
    Explain(explain::Args),
    /// Examine the agent and its host, and say what to do
    Doctor(doctor::Args),
    /// Let the agent read its configuration file again
    Reload,
    /// Take the balancer from all interfaces, with its maps and counters
    Detach(detach::Args),
    /// Open tunnels on a backend host
    #[command(subcommand)]
    Decap(decap::Command),
}

/// Where the data plane is pinned, for subcommands that work without an agent.
#[derive(Debug, clap::Args)]
struct Bpffs {
    /// Directory of pinned maps and links
    #[arg(long, value_name = "PATH", default_value = BPFFS_DEFAULT)]
    bpffs: PathBuf,
}

impl Cli {
    /// Runs the subcommand to its end.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.command.run(&self.common))
    }
}

impl Command {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        let socket = common
            .socket
            .as_deref()
            .unwrap_or(Path::new(SOCKET_DEFAULT));
        let client = Client::new(socket);
        let output = Output { json: common.json };
        match self {
            Self::Run(args) => run::run(args, common.socket.clone()).await,
            Self::Check(args) => check::run(&args, output),
            Self::Status => status::run(&client, output).await,
            Self::Vip(command) => vip::run(command, &client, output).await,
            Self::Backend(command) => backend::run(command, &client, output).await,
            Self::Stats(args) => stats::run(&args, &client, output).await,
            Self::Explain(args) => explain::run(&args, &client, output).await,
            Self::Doctor(args) => doctor::run(&args, &client, output).await,
            Self::Reload => reload::run(&client, output).await,
            Self::Detach(args) => detach::run(&args, &client, output).await,
            Self::Decap(command) => decap::run(command, output),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
