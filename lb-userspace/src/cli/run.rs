//! `weir run`: the agent, in the foreground. Its log goes to stderr.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use lb_userspace::agent;
use lb_userspace::config::Config;
use tracing_subscriber::EnvFilter;

use super::failure::Failure;

/// Environment variable that selects what is logged, for example `info,lb_userspace::health=debug`.
const LOG_VARIABLE: &str = "WEIR_LOG";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(long, value_name = "PATH", env = "WEIR_CONFIG", hide_env = true)]
    config: PathBuf,
    /// How the log is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: LogFormat,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object per line
    Json,
}

/// Runs until a signal or `weir detach`. `--socket` goes before what the file says.
pub(super) async fn run(args: Args, socket: Option<PathBuf>) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    // `weir status` shows it to people in other directories.
    let file = std::path::absolute(&args.config)?;
    log(args.log);
    Ok(agent::run(&file, config, socket).await?)
}

fn log(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var(LOG_VARIABLE)
        .from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}
