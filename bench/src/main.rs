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
mod options;
mod publish;
mod report;
mod routes;

use std::process::ExitCode;

use ::tests::object;
use anyhow::Result;
use clap::Parser;
use serde_json::{Value, json};

use self::options::{Options, Suite};

/// Benchmarks of Weir.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    programs: gateway::Programs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.options.json.as_deref();
    match run(&arguments).and_then(|rows| report::write_json(json, &rows)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The rows of one suite, or of all by name.
fn run(arguments: &Arguments) -> Result<Value> {
    let Arguments { options, programs } = arguments;
    options.check()?;
    let one = |suite| match suite {
        Suite::Datapath => datapath(&options.only),
        Suite::Maglev => maglev(),
        Suite::Routes => Ok(json!(routes::run()?)),
        Suite::Filters => Ok(json!(filters::run()?)),
        Suite::Gateway => Ok(json!(gateway::run(options, programs)?)),
    };
    match options.suite {
        Some(suite) => one(suite),
        None => Ok(json!({
            "datapath": one(Suite::Datapath)?, "maglev": one(Suite::Maglev)?,
            "routes": one(Suite::Routes)?, "filters": one(Suite::Filters)?,
            "gateway": one(Suite::Gateway)?,
        })),
    }
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
