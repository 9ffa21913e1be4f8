//! The benchmarks of Weir; `cargo xtask bench` builds and runs them.
//!
//! Every figure stands beside a floor or a peer from the same run; `bench/README.md` has the
//! method.

mod datapath;
mod harness;
mod live;
mod maglev;
mod mixed;
mod publish;
mod report;
mod routes;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tests::object;

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
    /// What packets cost: nanoseconds above bare encapsulation, live frames per second, and what
    /// packets see of tables that are published meanwhile.
    Datapath {
        /// Only cases whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Tables: milliseconds to build and to publish them, and what moves in them.
    Maglev,
    /// The gateway's routes: nanoseconds to look one up among few and among many.
    Routes,
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
        Some(Bench::Datapath { only }) => datapath(&only)?,
        Some(Bench::Maglev) => maglev()?,
        Some(Bench::Routes) => json!(routes::run()?),
        None => json!({ "datapath": datapath("")?, "maglev": maglev()?, "routes": routes::run()? }),
    })
}

fn datapath(only: &str) -> Result<Value> {
    let packets = json!(datapath::run(only)?);
    let live = json!(live::run(only)?);
    let mixed = json!(mixed::run(only)?);
    Ok(joined([packets, live, mixed]))
}

fn maglev() -> Result<Value> {
    let tables = json!(maglev::run()?);
    let publish = match object::missing() {
        None => json!(publish::run()?),
        Some(_) => json!([]),
    };
    Ok(joined([tables, publish]))
}

/// One array of the rows of all.
fn joined<const N: usize>(parts: [Value; N]) -> Value {
    let rows = parts.into_iter().filter_map(|part| match part {
        Value::Array(rows) => Some(rows),
        _ => None,
    });
    rows.flatten().collect()
}
