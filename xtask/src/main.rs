//! `cargo xtask`: build, test, demo and benchmark tasks. One file per task; this one lists them.
//!
//! Data goes to standard output, talk to standard error. Exit codes: 0 all held, 1 something
//! failed, 2 wrong usage.
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod check;
mod demo;
mod disasm;
mod ebpf;
mod install;
mod load;
mod output;
mod process;
mod release;
mod rights;
mod test;
mod tidy;
mod workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Weir's own tasks"
)]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the BPF objects and print their paths
    Ebpf(ebpf::Toolchain),
    /// Format, lints, licences, our own rules and the instruction budget
    Check(check::Args),
    /// Our own rules alone
    Tidy,
    /// Every test, privileged ones included; nothing may be skipped
    Test(test::Args),
    /// The whole system in network namespaces, with real requests and failures
    Demo(demo::Args),
    /// Build, then run the agent on this host's interfaces
    Load(load::Args),
    /// Take the programs off this host's interfaces
    Unload,
    /// How many instructions the BPF programs have, and execute for each kind of packet
    Disasm(disasm::Args),
    /// Both programs as they are to be installed, the gateway by a profile of its work
    Release(release::Args),
    /// Benchmarks: datapath, maglev or gateway; all of them by default
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let outcome = match Options::parse().task {
        Task::Ebpf(toolchain) => ebpf::run(&toolchain),
        Task::Check(args) => check::run(&args),
        Task::Tidy => tidy::run(),
        Task::Test(args) => test::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Load(args) => load::run(&args),
        Task::Unload => load::unload(),
        Task::Disasm(args) => disasm::run(&args),
        Task::Release(args) => release::run(&args),
        Task::Bench(args) => bench::run(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn command_lines() {
        let cases = [
            (&["demo"][..], true),
            (&["demo", "--check", "--seconds", "5"], true),
            (&["bench", "datapath", "--json", "rows.json"], true),
            (&["disasm", "--json", "rows.json", "--write-budget"], true),
            (&["disasm", "--row", "v4", "--json", "rows.json"], false),
            (&["bench", "gateway", "--quick", "--only", "h1"], true),
            (
                &[
                    "bench",
                    "gateway",
                    "--binary",
                    "b",
                    "--proxies",
                    "weir,weir-b",
                ],
                true,
            ),
            (&["release"], true),
            (&["release", "--no-profile"], true),
            (&["bench", "nothing"], false),
            (&["load"], false),
        ];
        for (arguments, expected) in cases {
            let line = std::iter::once(&"xtask").chain(arguments);
            assert_eq!(
                Options::try_parse_from(line).is_ok(),
                expected,
                "{arguments:?}"
            );
        }
    }
}
