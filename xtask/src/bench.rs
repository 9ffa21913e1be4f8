//! `cargo xtask bench`: builds with optimisation, then becomes the benchmarks of `bench`.
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::{ebpf, process, workspace};

mod peers;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
    /// One suite; all of them by default
    suite: Option<Suite>,
    /// Only cases of the data path or of the gateway whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write the rows to this file too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Options of the gateway's suite")]
    gateway: GatewayArgs,
}

/// What only the suite `gateway` understands.
#[derive(clap::Args)]
struct GatewayArgs {
    /// Another build of weir-gateway, measured beside this one as `weir-b`
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Only these proxies: weir, weir-b, nginx, haproxy, envoy, caddy
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    proxies: Vec<String>,
    /// Turns of each proxy in each case; the median counts
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Seconds of each turn that count
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// A short run: fewer and shorter turns
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    Datapath,
    Maglev,
    Routes,
    Filters,
    Gateway,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Maglev => "maglev",
            Self::Routes => "routes",
            Self::Filters => "filters",
            Self::Gateway => "gateway",
        }
    }
}

/// Builds, then becomes `bench`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let with_gateway = matches!(args.suite, None | Some(Suite::Gateway));
    ensure!(
        args.suite == Some(Suite::Gateway) || args.gateway.is_empty(),
        "these options are for `cargo xtask bench gateway`"
    );
    if args.suite != Some(Suite::Gateway) {
        ebpf::build(&args.toolchain)?;
    }
    build(with_gateway)?;
    let programs = workspace::target_dir().join("release");
    let mut bench = Command::new(programs.join("bench"));
    bench.args(args.suite.map(Suite::name));
    if let Some(only) = &args.only {
        bench.arg("--only").arg(only);
    }
    if let Some(json) = &args.json {
        bench.arg("--json").arg(json);
    }
    if with_gateway {
        bench.arg("--weir").arg(programs.join("weir-gateway"));
        bench.args(peers::arguments(&args.gateway.proxies));
    }
    args.gateway.pass_on(&mut bench);
    match process::exec(bench)? {}
}

fn build(with_gateway: bool) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--locked"]);
    cargo.args(["--package", "bench", "--bin", "bench"]);
    if with_gateway {
        cargo.args(["--package", "gateway", "--bin", "weir-gateway"]);
    }
    process::show("build the benchmarks", cargo)
}

impl GatewayArgs {
    fn is_empty(&self) -> bool {
        let options = self.binary.is_some() || self.rounds.is_some() || self.seconds.is_some();
        !options && self.proxies.is_empty() && !self.quick
    }

    fn pass_on(&self, bench: &mut Command) {
        if let Some(binary) = &self.binary {
            bench.arg("--binary").arg(binary);
        }
        if !self.proxies.is_empty() {
            bench.arg("--proxies").arg(self.proxies.join(","));
        }
        if let Some(rounds) = self.rounds {
            bench.arg("--rounds").arg(rounds.to_string());
        }
        if let Some(seconds) = self.seconds {
            bench.arg("--seconds").arg(seconds.to_string());
        }
        if self.quick {
            bench.arg("--quick");
        }
    }
}
