//! `cargo xtask ebpf`: the BPF objects, built by the one compiler on this host that can.
//!
//! The workspace is built by rustup's stable Rust, which has neither a BPF `core` nor the sources
//! to make one. So the programs of `lb-ebpf` are compiled by another compiler: see [`plan`] for
//! the order of choice, [`compile`] for the build.
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use self::plan::{Install, LinkerBuild, Plan, Tools};
use crate::{install, output, process, workspace};

mod compile;
mod plan;
mod probe;

/// The version of bpf-linker that is built where none fits.
const LINKER_VERSION: &str = "0.13.0";
/// Installing the compiler may show that another LLVM is needed than foreseen; once more is normal.
const INSTALL_ROUNDS_MAX: usize = 3;

/// The choice that every task which builds the BPF objects offers.
#[derive(clap::Args)]
pub(crate) struct Toolchain {
    /// The rustc for the BPF programs, with rust-src beside it (else: a rustup nightly that has
    /// rust-src, else Debian's rustc-web)
    #[arg(long, env = "WEIR_BPF_RUSTC", value_name = "PATH")]
    bpf_rustc: Option<PathBuf>,
}

/// What a build left.
pub(crate) struct Built {
    pub(crate) objects: Vec<PathBuf>,
    /// The compiler complained, and was shown to.
    pub(crate) has_warnings: bool,
}

/// `cargo xtask ebpf`.
pub(crate) fn run(toolchain: &Toolchain) -> Result<ExitCode> {
    for object in build(toolchain)?.objects {
        output::result(&object.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the objects, installing what is missing for it.
pub(crate) fn build(toolchain: &Toolchain) -> Result<Built> {
    let tools = tools(toolchain)?;
    output::say(&format!("BPF toolchain: {tools}"));
    compile::build(&tools)
}

/// Looks, plans, installs and looks again, until everything is there.
fn tools(toolchain: &Toolchain) -> Result<Tools> {
    for _ in 0..INSTALL_ROUNDS_MAX {
        match plan::plan(&probe::probe(toolchain.bpf_rustc.as_deref()))? {
            Plan::Ready(tools) => return Ok(tools),
            Plan::Install(missing) => install_missing(&missing)?,
        }
    }
    bail!("the BPF toolchain is still incomplete after installing {INSTALL_ROUNDS_MAX} times");
}

fn install_missing(missing: &Install) -> Result<()> {
    output::say(&missing.to_string());
    if !missing.packages.is_empty() {
        install::packages(&missing.packages)?;
    }
    match &missing.linker {
        Some(build) => install_linker(build),
        None => Ok(()),
    }
}

fn install_linker(build: &LinkerBuild) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.env("LLVM_PREFIX", probe::llvm_prefix(build.llvm));
    cargo.args([
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
        "--force",
    ]);
    cargo.args([
        "--no-default-features",
        "--features",
        &format!("llvm-{}", build.llvm),
    ]);
    if build.beside {
        cargo.arg("--root").arg(probe::own_linker_root(build.llvm));
    }
    process::run("build bpf-linker", cargo)?;
    Ok(())
}

/// A command with `program`'s path resolved by nobody but us.
fn tool(path: &std::path::Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir(workspace::root());
    command
}
