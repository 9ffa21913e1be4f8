//! `cargo xtask check`: format, our own rules, licences, the BPF programs and their budget, lints, in
//! the order of how fast they answer. All steps run, so that one call shows everything there is to mend.
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::{disasm, ebpf, output, process, tidy, workspace};

mod licences;

/// Options of `cargo xtask check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
}

type Step = (&'static str, fn(&Args) -> Result<()>);

const STEPS: [Step; 6] = [
    ("format", |_| format()),
    ("our own rules", |_| tidy::check()),
    ("licences and sources", |_| licences::check()),
    ("BPF programs without warnings", |args| bpf(&args.toolchain)),
    ("instruction budget", |args| disasm::check(&args.toolchain)),
    ("lints", |_| lints()),
];

/// `cargo xtask check`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        let started = Instant::now();
        let outcome = step(args);
        let elapsed = process::seconds(started.elapsed());
        match outcome {
            Ok(()) => output::say(&format!("ok      {name} ({elapsed})")),
            Err(error) => {
                output::say(&format!("error: {error:#}"));
                output::say(&format!("FAILED  {name} ({elapsed})"));
                failed.push(name);
            }
        }
    }
    ensure!(failed.is_empty(), "check failed: {}", failed.join(", "));
    Ok(ExitCode::SUCCESS)
}

fn format() -> Result<()> {
    ensure_component("rustfmt", "fmt")?;
    let mut cargo = workspace::cargo();
    cargo.args(["fmt", "--all", "--check"]);
    if process::show("cargo fmt --check", cargo).is_err() {
        bail!("some files are not formatted; run `cargo fmt --all`");
    }
    Ok(())
}

/// Clippy sees the host's side of `lb-ebpf` only.
fn bpf(toolchain: &ebpf::Toolchain) -> Result<()> {
    ensure!(
        !ebpf::build(toolchain)?.has_warnings,
        "the BPF programs compile with warnings"
    );
    Ok(())
}

fn lints() -> Result<()> {
    ensure_component("clippy", "clippy")?;
    let mut cargo = workspace::cargo();
    cargo.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
    ]);
    cargo.args(["--", "-D", "warnings"]);
    process::show("cargo clippy", cargo)
}

/// rustup's minimal profile lacks both; they are part of stable and quickly fetched.
fn ensure_component(component: &str, subcommand: &str) -> Result<()> {
    let mut ask = workspace::cargo();
    ask.args([subcommand, "--version"]);
    if process::ask(ask).is_ok() {
        return Ok(());
    }
    output::say(&format!("installing {component} with rustup"));
    let mut rustup = Command::new("rustup");
    rustup
        .current_dir(workspace::root())
        .args(["component", "add", component]);
    process::run(&format!("rustup component add {component}"), rustup)?;
    Ok(())
}
