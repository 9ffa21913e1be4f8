//! `cargo xtask demo`: the main job from end to end, on this host alone.
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{ebpf, install, process, rights, workspace};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
    /// End by itself; exit with 0 only if everything held
    #[arg(long)]
    check: bool,
    /// Build the programs with optimisation (takes longer to build)
    #[arg(long)]
    release: bool,
    /// Passed on to the demo
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds everything, then becomes the demo of the `tests` crate.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    rights::require("the demo", "")?;
    install::ensure_programs(install::NETWORK_PROGRAMS)?;
    ebpf::build(&args.toolchain)?;
    let mut cargo = workspace::cargo();
    cargo.args([
        "build",
        "--workspace",
        "--all-features",
        "--locked",
        "--bins",
    ]);
    cargo.args(args.release.then_some("--release"));
    process::show("build the programs", cargo)?;

    let programs = workspace::target_dir().join(if args.release { "release" } else { "debug" });
    let mut demo = Command::new(programs.join("demo"));
    demo.env(workspace::PROGRAMS_VARIABLE, &programs);
    demo.args(args.check.then_some("--check")).args(&args.rest);
    match process::exec(demo)? {}
}
