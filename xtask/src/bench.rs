//! `cargo xtask bench`: builds with optimisation, then becomes the benchmarks of `bench`.
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::ValueEnum;

use crate::{ebpf, process, workspace};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
    /// One suite; all of them by default
    suite: Option<Suite>,
    /// Only cases of the data path whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write the rows to this file too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Suite {
    Datapath,
    Maglev,
    Routes,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Maglev => "maglev",
            Self::Routes => "routes",
        }
    }
}

/// Builds, then becomes `bench`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ebpf::build(&args.toolchain)?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--locked"]);
    cargo.args(["--package", "bench"]);
    process::show("build the benchmarks", cargo)?;

    let programs = workspace::target_dir().join("release");
    let mut bench = Command::new(programs.join("bench"));
    bench.args(args.suite.map(Suite::name));
    if let Some(only) = &args.only {
        bench.arg("--only").arg(only);
    }
    if let Some(json) = &args.json {
        bench.arg("--json").arg(json);
    }
    match process::exec(bench)? {}
}
