//! `weir-gateway`: Weir's API gateway. Parses arguments, runs the subcommand, and turns its
//! outcome into an exit code: 0 ok, 1 failed, 2 usage, 3 refused configuration.

use std::process::ExitCode;

use clap::Parser;
use gateway::cli::Cli;
use mimalloc::MiMalloc;

/// A proxied request allocates some dozens of times, many of them more than glibc's thread cache
/// takes; `bench/README.md` says what this gains.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Leaves by itself for usage errors (exit code 2), --help and --version (0).
    Cli::parse().run()
}
