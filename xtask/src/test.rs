//! `cargo xtask test`: every test, and proof that none was skipped. The command CI runs.
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use self::totals::Totals;
use crate::{ebpf, install, output, process, workspace};

mod totals;

/// Set for the suites: lacking a right is then a failure, not a reason to pass quietly.
const REQUIRE_PRIVILEGED: &str = "WEIR_REQUIRE_PRIVILEGED";
/// Bits of the capabilities that the kernel and network suites use (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
}

/// The last line on standard output is `N passed, N failed, N skipped`, whatever happens after
/// the tests began.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    check_rights()?;
    install::ensure_programs(install::NETWORK_PROGRAMS)?;
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

fn check_rights() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let missing = missing_rights(&status);
    if !missing.is_empty() {
        bail!(
            "the kernel and network tests need root with {}; run as root, or run `cargo test \
             --workspace` for the tests that need no rights",
            missing.join(", ")
        );
    }
    Ok(())
}

/// The capabilities that the `CapEff` line of a process status lacks.
fn missing_rights(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let needed = [
        ("CAP_NET_ADMIN", CAP_NET_ADMIN),
        ("CAP_SYS_ADMIN", CAP_SYS_ADMIN),
        ("CAP_BPF", CAP_BPF),
    ];
    let lacking = needed
        .into_iter()
        .filter(|(_, bit)| effective & (1 << bit) == 0);
    lacking.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_from_the_effective_set() {
        let all = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"];
        let cases = [
            ("root", "CapPrm:\t0\nCapEff:\t000001ffffffffff\n", vec![]),
            (
                "user",
                "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n",
                all.to_vec(),
            ),
            (
                "container root",
                "CapEff:\t00000000a80425fb\n",
                all.to_vec(),
            ),
            ("no line", "", all.to_vec()),
            (
                "all but BPF",
                "CapEff:\t0000007fffffffff\n",
                vec!["CAP_BPF"],
            ),
        ];
        for (description, status, expected) in cases {
            assert_eq!(missing_rights(status), expected, "{description}");
        }
    }
}
