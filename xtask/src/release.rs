//! `cargo xtask release`: both programs as they are installed, the gateway laid out by a profile.
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::Program;
use crate::{ebpf, output, workspace};

pub(crate) mod profile;

/// Options of `cargo xtask release`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
    #[command(flatten)]
    profile: profile::Wish,
}

/// Builds both programs and prints where they are.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ebpf::build(&args.toolchain)?;
    let weir = weir()?;
    let gateway = profile::gateway(&args.profile, profile::trainer)?;
    for program in [weir, gateway.path] {
        output::result(&placed(&program)?.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the agent.
pub(crate) fn weir() -> Result<PathBuf> {
    Program::release("lb-userspace", "weir").build("build the agent")
}

/// A copy of a program where the other one is too.
fn placed(program: &Path) -> Result<PathBuf> {
    let directory = workspace::target_dir().join("dist");
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let name = program.file_name().expect("cargo's programs have names");
    let copy = directory.join(name);
    // Written beside it and renamed: the copy that was there may be running.
    let fresh = directory.join(format!(".{}", name.display()));
    std::fs::copy(program, &fresh)
        .and_then(|_| std::fs::rename(&fresh, &copy))
        .with_context(|| format!("copying {} to {}", program.display(), copy.display()))?;
    Ok(copy)
}
