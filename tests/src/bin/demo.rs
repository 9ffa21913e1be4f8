//! `demo`: the main job from end to end; started by `cargo xtask demo`.

use std::process::ExitCode;

use clap::Parser;

use tests::demo;
use tests::output::complain;

/// Builds hosts out of network namespaces, sends real requests, and shows failover.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// End by itself; exit with 0 only if everything held.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(reason) = demo::missing() {
        complain(&format!("error: the demo cannot run here: {reason}"));
        return ExitCode::FAILURE;
    }
    match demo::run(arguments.check) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
