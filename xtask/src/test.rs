//! `cargo xtask test`: every test, and proof that none was skipped. The command CI runs.
use std::process::{Command, ExitCode};

use anyhow::Result;

use self::totals::Totals;
use crate::{ebpf, install, output, process, rights, workspace};

mod totals;

/// Set for the suites: lacking a right is then a failure, not a reason to pass quietly.
const REQUIRE_PRIVILEGED: &str = "WEIR_REQUIRE_PRIVILEGED";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
}

/// The last line on standard output is `N passed, N failed, N skipped`, whatever happens after
/// the tests began.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    rights::require(
        "the full test run",
        ", or run `cargo test --workspace` for what needs no rights",
    )?;
    install::ensure_programs(install::NETWORK_PROGRAMS)?;
    install::ensure_programs(install::ORIGIN_PROGRAMS)?;
    ebpf::build(&args.toolchain)?;
    // The network suites start the programs as processes. Built as part of all targets, they
    // share every dependency with the tests.
    process::show("build all targets", cargo("build", &["--all-targets"]))?;
    let mut totals = Totals::default();
    let tests = cargo("test", &["--no-fail-fast"]);
    let status = process::stream("run all tests", tests, |line| totals.add(line))?;
    let complaint = totals.complaint(status.success());
    if let Some(complaint) = &complaint {
        output::say(&format!("error: {complaint}"));
    }
    output::result(&totals.to_string());
    Ok(if complaint.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn cargo(verb: &str, options: &[&str]) -> Command {
    let mut cargo = workspace::cargo();
    cargo
        .args([verb, "--workspace", "--all-features", "--locked"])
        .args(options);
    cargo.env(REQUIRE_PRIVILEGED, "1");
    cargo.env(
        workspace::PROGRAMS_VARIABLE,
        workspace::target_dir().join("debug"),
    );
    cargo
}
