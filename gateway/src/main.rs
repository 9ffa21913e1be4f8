//! `weir-gateway`: Weir's API gateway. Parses arguments, runs the subcommand, and turns its
//! outcome into an exit code: 0 ok, 1 failed, 2 usage, 3 refused configuration.

use std::process::ExitCode;

use clap::Parser;
use gateway::cli::Cli;

fn main() -> ExitCode {
    // Leaves by itself for usage errors (exit code 2), --help and --version (0).
    Cli::parse().run()
}
