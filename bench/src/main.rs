//! The benchmarks of Weir; `cargo xtask bench` builds and runs them.
//!
//! Every figure stands beside a floor or a peer from the same run; `bench/README.md` has the
//! method.

mod datapath;
mod filters;
mod gateway;
mod harness;
mod live;
mod maglev;
mod mixed;
mod publish;
mod report;
mod routes;

use std::{path::PathBuf, process::ExitCode};

use ::tests::object;
use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Benchmarks of Weir.
#[derive(Parser)]
struct Arguments {
    /// One of them; all by default.
    #[command(subcommand)]
    bench: Option<Bench>,
    /// With all of them: where the gateway and its peers are.
    #[command(flatten)]
    gateway: gateway::Args,
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
    /// The gateway's steps beside forwarding: nanoseconds each, and what a scrape costs.
    Filters,
    /// The gateway beside nginx, HAProxy, Envoy and Caddy: requests per CPU-second, latency, memory.
    Gateway(Box<gateway::Args>),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let rows = match arguments.bench {
        Some(bench) => one(bench),
        None => all(&arguments.gateway),
    };
    match rows.and_then(|rows| report::write_json(arguments.json.as_deref(), &rows)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn one(bench: Bench) -> Result<Value> {
    match bench {
        Bench::Datapath { only } => datapath(&only),
        Bench::Maglev => maglev(),
        Bench::Routes => Ok(json!(routes::run()?)),
        Bench::Filters => Ok(json!(filters::run()?)),
        Bench::Gateway(args) => Ok(json!(gateway::run(&args)?)),
    }
}

fn all(gateway: &gateway::Args) -> Result<Value> {
    Ok(json!({
        "datapath": datapath("")?, "maglev": maglev()?,
        "routes": routes::run()?, "filters": filters::run()?, "gateway": gateway::run(gateway)?,
    }))
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        let parse = |line: &[&str]| Arguments::try_parse_from(line);
        for line in [
            &["bench", "--weir", "w"][..],
            &["bench", "gateway", "--weir", "w", "--json", "f"],
            &["bench", "maglev"],
            &["bench", "filters", "--json", "f"],
        ] {
            assert!(parse(line).is_ok(), "{line:?}");
        }
    }
}
