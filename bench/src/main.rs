//! The benchmarks of Weir; `cargo xtask bench` builds and runs them.
//!
//! Every figure stands beside a floor or a peer from the same run; `bench/README.md` has the
//! method.

mod datapath;
mod harness;
mod maglev;
mod report;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Benchmarks of Weir.
#[derive(Parser)]
struct Arguments {
    /// One of them; all by default.
    #[command(subcommand)]
    bench: Option<Bench>,
    /// Also write the rows to this file: a JSON array, or an object of arrays when all are run.
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
    let written =
        rows(arguments.bench).and_then(|rows| report::write_json(arguments.json.as_deref(), &rows));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn rows(bench: Option<Bench>) -> Result<Value> {
    Ok(match bench {
        Some(Bench::Datapath { only }) => json!(datapath::run(&only)?),
        Some(Bench::Maglev) => json!(maglev::run()?),
        None => json!({ "datapath": datapath::run("")?, "maglev": maglev::run()? }),
    })
}
