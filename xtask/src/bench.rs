//! `cargo xtask bench`: builds with optimisation, then becomes the benchmarks of `bench`.
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};

use self::options::{Options, Suite};
use crate::release::profile;
use crate::{ebpf, process};

// One command line, wherever it is typed. A dependency on `bench` would build all of Weir first.
#[path = "../../bench/src/options.rs"]
mod options;
mod peers;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
    #[command(flatten)]
    profile: profile::Wish,
    #[command(flatten)]
    bench: HandedOn,
}

/// The command line of `bench`.
struct HandedOn {
    options: Options,
    /// As it was typed.
    typed: Vec<OsString>,
}

impl clap::Args for HandedOn {
    fn augment_args(command: clap::Command) -> clap::Command {
        Options::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Options::augment_args_for_update(command)
    }
}

impl FromArgMatches for HandedOn {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            options: Options::from_arg_matches(matches)?,
            typed: typed(matches),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What was typed of the options of `bench`, as arguments again.
fn typed(matches: &ArgMatches) -> Vec<OsString> {
    let known = <Options as clap::Args>::augment_args(clap::Command::new("bench"));
    let mut typed = Vec::new();
    for argument in known.get_arguments() {
        let id = argument.get_id().as_str();
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let name = argument.get_long().map(|name| format!("--{name}"));
        if !argument.get_action().takes_values() {
            typed.extend(name.map(OsString::from));
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            typed.extend(name.as_ref().map(OsString::from));
            typed.push(value.to_owned());
        }
    }
    typed
}

/// Builds, then becomes `bench`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let HandedOn { options, typed } = &args.bench;
    options.check()?;
    if options.suite != Some(Suite::Gateway) {
        ebpf::build(&args.toolchain)?;
    }
    let program = profile::BENCH.build("build the benchmarks")?;
    let mut bench = Command::new(&program);
    bench.args(typed);
    if options.runs(Suite::Gateway) {
        let gateway = profile::gateway(&args.profile, || Ok(program))?;
        bench.arg("--weir").arg(gateway.path);
        let built = if gateway.profiled {
            "by-profile"
        } else {
            "plain"
        };
        bench.args(["--weir-built", built]);
        bench.args(peers::arguments(&options.gateway.proxies));
    }
    match process::exec(bench)? {}
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_is_typed_is_handed_on() {
        // Where arguments are handed on in another way than they were typed, that way.
        let table: [(&str, Option<&str>); 7] = [
            ("", None),
            ("maglev --json rows.json", None),
            ("gateway --quick", None),
            ("datapath --only ipip", None),
            ("--bpf-rustc path datapath", Some("datapath")),
            (
                "--rounds 5 gateway --only=h1 --seconds 0.5",
                Some("gateway --only h1 --rounds 5 --seconds 0.5"),
            ),
            (
                "gateway --proxies weir,nginx --binary b",
                Some("gateway --binary b --proxies weir --proxies nginx"),
            ),
        ];
        for (line, expected) in table {
            let words = |line: &str| -> Vec<OsString> {
                line.split_whitespace().map(OsString::from).collect()
            };
            let parsed = [vec!["bench".into()], words(line)].concat();
            let parsed = Line::try_parse_from(parsed).unwrap().args.bench;
            assert_eq!(parsed.typed, words(expected.unwrap_or(line)), "{line}");
            let again = [vec!["bench".into()], parsed.typed].concat();
            let again = Line::try_parse_from(again).unwrap().args.bench;
            let (one, other) = (parsed.options, again.options);
            assert_eq!(format!("{one:?}"), format!("{other:?}"), "{line}");
        }
    }

    #[test]
    fn options_go_with_their_suites() {
        let table = [
            ("--quick --only veth", true),
            ("gateway --quick --only h1", true),
            ("datapath --only veth", true),
            ("datapath --quick", false),
            ("maglev --rounds 3", false),
            ("routes --only 10", false),
            ("routes --json rows.json", true),
            ("routes --json /nowhere/rows.json", false),
        ];
        for (line, expected) in table {
            let line_of = ["bench"].into_iter().chain(line.split(' '));
            let options = Line::try_parse_from(line_of).unwrap().args.bench.options;
            assert_eq!(options.check().is_ok(), expected, "{line}");
        }
    }
}
