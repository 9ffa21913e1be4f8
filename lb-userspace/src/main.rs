//! `weir`: agent and command line. Parses arguments, runs the subcommand, and turns its outcome into
//! an exit code: 0 ok, 1 failed, 2 usage, 3 refused configuration.

use std::process::ExitCode;

use clap::Parser;

mod cli;

fn main() -> ExitCode {
    // Asks clap for usage errors (exit code 2), --help and --version (0).
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cli::output::failure(&failure);
            failure.exit_code()
        }
    }
}
