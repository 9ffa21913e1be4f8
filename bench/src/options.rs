//! The command line of the benchmarks. `cargo xtask bench` reads it too, from this same file: for
//! its help, and to refuse what makes no sense before it builds. It hands on what was typed.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

/// What is measured, and how.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// One suite; all of them by default
    pub(crate) suite: Option<Suite>,
    /// Only cases of the data path or of the gateway whose name contains this
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) only: String,
    /// Write the rows to this file too: a JSON array, or an object of arrays when all are run
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Options of the gateway's suite")]
    pub(crate) gateway: Gateway,
}

/// A suite of benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// What packets cost: nanoseconds above bare encapsulation, live frames per second, and what
    /// packets see of tables that are published meanwhile
    Datapath,
    /// Tables: milliseconds to build and to publish them, and what moves in them
    Maglev,
    /// The gateway's routes: nanoseconds to look one up among few and among many
    Routes,
    /// The gateway's steps beside forwarding: nanoseconds each, and what a scrape costs
    Filters,
    /// The gateway beside nginx, HAProxy, Envoy and Caddy: requests per CPU-second, latency, memory
    Gateway,
}

/// What only the suite `gateway` understands.
#[derive(Args, Debug)]
pub(crate) struct Gateway {
    /// Another build of weir-gateway, measured beside this one as `weir-b`
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    /// Only these proxies: weir, weir-b, nginx, haproxy, envoy, caddy
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) proxies: Vec<String>,
    /// Turns of each proxy in each case; the median counts
    #[arg(long, value_name = "COUNT")]
    pub(crate) rounds: Option<usize>,
    /// Seconds of each turn that count
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<f64>,
    /// A short run: fewer and shorter turns
    #[arg(long)]
    pub(crate) quick: bool,
}

impl Options {
    /// Whether the suite is run.
    pub(crate) fn runs(&self, suite: Suite) -> bool {
        self.suite.is_none_or(|wanted| wanted == suite)
    }

    /// Refuses options that the suites which are run do not understand, and rows that could not be
    /// written in the end.
    pub(crate) fn check(&self) -> Result<()> {
        let gateway = &self.gateway;
        let of_gateway = gateway.binary.is_some()
            || !gateway.proxies.is_empty()
            || gateway.rounds.is_some()
            || gateway.seconds.is_some()
            || gateway.quick;
        ensure!(
            !of_gateway || self.runs(Suite::Gateway),
            "--binary, --proxies, --rounds, --seconds and --quick are for the suite `gateway`"
        );
        ensure!(
            self.only.is_empty() || self.runs(Suite::Datapath) || self.runs(Suite::Gateway),
            "--only is for the suites `datapath` and `gateway`"
        );
        let folder = self.json.as_deref().and_then(Path::parent);
        let there = |folder: &Path| folder.as_os_str().is_empty() || folder.is_dir();
        ensure!(folder.is_none_or(there), "--json: there is no such folder");
        Ok(())
    }
}
