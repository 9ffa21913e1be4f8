//! The benchmarks of Weir; `cargo xtask bench` builds and runs them.
//!
//! Every figure stands beside a floor or a peer from the same run; `bench/README.md` has the
//! method.

mod datapath;
mod harness;
mod maglev;
mod report;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Benchmarks of Weir.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
    /// Also write the rows as a JSON array to this file.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Bench {
    /// Nanoseconds per packet of the XDP program, above bare encapsulation.
    Datapath {
        /// Only cases whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Milliseconds to build and to publish a Maglev table.
    Maglev,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json.as_deref();
    let result = match arguments.bench {
        Bench::Datapath { only } => datapath::run(json, &only),
        Bench::Maglev => maglev::run(json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
