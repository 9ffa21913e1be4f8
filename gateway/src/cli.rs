//! The command line: arguments, one file per subcommand, and `output`, the only printer.
//!
//! Data goes to stdout and talk to stderr. Exit codes: 0 ok, 1 failed, 2 usage, 3 refused
//! configuration.

mod check;
mod effective;
mod explain;
mod hash_key;
mod operate;
mod output;
mod run;
mod schema;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config;

/// Where the configuration lies when no other place is named.
const CONFIG_DEFAULT: &str = "/etc/weir/gateway.toml";

/// The API gateway of Weir: authenticates, limits and routes API requests to services.
#[derive(Debug, Parser)]
#[command(name = "weir-gateway", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 refused configuration.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM, then drain
    Run(run::Arguments),
    /// Check a configuration and say what it means
    Check(ConfigFile),
    /// Say which route a request takes, what it must pass, and why other routes do not match
    Explain(explain::Arguments),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print the configuration as TOML
    Config(effective::Arguments),
    /// Read an API key from stdin and print the hash to configure
    HashKey,
    /// Say how a running gateway is
    Status(operate::StatusArguments),
    /// Make a running gateway load its configuration again
    Reload(operate::Socket),
    /// Make a running gateway hand over to the binary that now stands in its place
    Upgrade(operate::Socket),
    /// Make a running gateway finish what is under way and end
    Drain(operate::Socket),
    /// Open the access logs of a running gateway again, after they were moved (as SIGUSR1)
    ReopenLogs(operate::Socket),
    /// Change what a running gateway says in its error log
    LogLevel(operate::LevelArguments),
}

/// The option all subcommands share that read the configuration.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", env = "WEIR_GATEWAY_CONFIG")]
    #[arg(default_value = CONFIG_DEFAULT)]
    config: PathBuf,
}

impl ConfigFile {
    fn path(&self) -> &Path {
        &self.config
    }
}

/// Why a subcommand failed.
#[derive(Debug)]
enum Failure {
    /// The configuration was refused, exit code 3, or could not be read, exit code 1.
    Refused(config::Error),
    /// A running gateway refused the configuration, and says why; exit code 3.
    RefusedByGateway(String),
    /// Anything else, with its causes and perhaps a hint; exit code 1.
    Other(anyhow::Error, Option<&'static str>),
    /// The answer is no, and stdout has said so; exit code 1.
    Negative,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::RefusedByGateway(reason) => f.write_str(reason),
            Self::Other(error, _) => write!(f, "{error:#}"),
            Self::Negative => Ok(()),
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::Refused(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error, None)
    }
}

impl Cli {
    /// Runs the subcommand to its end.
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Run(arguments) => run::run(&arguments),
            Command::Check(file) => check::run(file.path()),
            Command::Explain(arguments) => explain::run(&arguments),
            Command::Schema => schema::run(),
            Command::Config(arguments) => effective::run(&arguments),
            Command::HashKey => hash_key::run(),
            Command::Status(arguments) => operate::status(&arguments),
            Command::Reload(socket) => operate::reload(&socket),
            Command::Upgrade(socket) => operate::upgrade(&socket),
            Command::Drain(socket) => operate::drain(&socket),
            Command::ReopenLogs(socket) => operate::reopen_logs(&socket),
            Command::LogLevel(arguments) => operate::log_level(&arguments),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => output::failure(&failure),
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
