//! `cargo xtask check`: format, lints, licences and our own rules, in the order of how fast they
//! answer. All steps run, so that one call shows everything there is to mend.
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::{output, process, tidy, workspace};

mod licences;

struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        run: format,
    },
    Step {
        name: "our own rules",
        run: tidy::check,
    },
    Step {
        name: "licences and sources",
        run: licences::check,
    },
    Step {
        name: "lints",
        run: lints,
    },
];

pub(crate) fn run() -> Result<ExitCode> {
    let mut failed = Vec::new();
    for step in STEPS {
        let started = Instant::now();
        let outcome = (step.run)();
        let elapsed = process::seconds(started.elapsed());
        match outcome {
            Ok(()) => output::say(&format!("ok      {} ({elapsed})", step.name)),
            Err(error) => {
                output::say(&format!("error: {error:#}"));
                output::say(&format!("FAILED  {} ({elapsed})", step.name));
                failed.push(step.name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
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
    process::run(&format!("rustup component add {component}"), rustup)
}
