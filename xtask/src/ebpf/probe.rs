//! What of a BPF toolchain is on this host: questions to compilers, linkers and dpkg, no decisions.
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::plan::{self, Candidate, Compiler, Linker, Origin, Probe, Version};
use crate::{install, process, workspace};

/// The oldest rustc that compiles the workspace: its `rust-version`.
const RUSTC_MIN: &str = env!("CARGO_PKG_RUST_VERSION");
/// What tells sources that `-Z build-std` can use from a directory that merely exists.
const SOURCE_MARK: &str = "lib/rustlib/src/rust/library/Cargo.lock";

/// Looks at everything that [`plan::plan`] decides on.
pub(super) fn probe(explicit: Option<&Path>) -> Probe {
    Probe {
        explicit: explicit.map(|rustc| candidate(Origin::Explicit, rustc)),
        nightlies: nightlies(),
        debian: candidate(Origin::Debian, Path::new("/usr/bin/rustc")),
        linkers: linkers(),
        installed: install::installed(&plan::packages_of_interest()),
        is_root: install::is_root(),
        has_apt: install::has_apt(),
    }
}

/// Where Debian keeps LLVM number `major`.
pub(super) fn llvm_prefix(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

/// Where a linker for LLVM number `major` is put if the user's own is for another one.
pub(super) fn own_linker_root(major: u32) -> PathBuf {
    workspace::target_dir().join(format!("xtask/tools/llvm-{major}"))
}

fn candidate(origin: Origin, rustc: &Path) -> Candidate {
    let usable = inspect(rustc).map_err(|error| format!("{error:#}"));
    Candidate { origin, usable }
}

/// Asks a compiler for its version, LLVM and sources. The paths in the answer are those inside
/// its sysroot: a rustup shim would choose another toolchain for each caller.
fn inspect(rustc: &Path) -> Result<Compiler> {
    ensure!(rustc.is_file(), "{} is not there", rustc.display());
    let mut verbose = clean(rustc);
    verbose.arg("-vV");
    let (version, llvm) = versions(&process::ask(verbose)?)
        .with_context(|| format!("{} -vV names no release or LLVM", rustc.display()))?;
    let mut print = clean(rustc);
    print.args(["--print", "sysroot"]);
    let sysroot = PathBuf::from(process::ask(print)?.trim());
    let [rustc, cargo] = ["bin/rustc", "bin/cargo"].map(|program| sysroot.join(program));
    let min = Version::parse(RUSTC_MIN).expect("the workspace's rust-version is a version");
    ensure!(
        version >= min,
        "{} is {version}, older than {min}",
        rustc.display()
    );
    ensure!(
        cargo.is_file(),
        "{} has no cargo beside it",
        rustc.display()
    );
    let source = sysroot.join(SOURCE_MARK);
    ensure!(source.is_file(), "{} has no rust-src", rustc.display());
    Ok(Compiler {
        rustc,
        cargo,
        version,
        llvm,
    })
}

/// A compiler started without the toolchain choice that rustup made for us.
fn clean(program: &Path) -> Command {
    let mut command = super::tool(program);
    command.env_remove("RUSTUP_TOOLCHAIN");
    command
}

/// Release and LLVM major of `rustc -vV`.
fn versions(verbose: &str) -> Option<(Version, u32)> {
    let value = |key: &str| verbose.lines().find_map(|line| line.strip_prefix(key));
    let release = Version::parse(value("release: ")?)?;
    Some((release, Version::parse(value("LLVM version: ")?)?.major))
}

fn nightlies() -> Vec<Candidate> {
    let Some(rustup) = workspace::which("rustup") else {
        return Vec::new();
    };
    let mut list = clean(&rustup);
    list.args(["toolchain", "list"]);
    let listed = process::ask(list).unwrap_or_default();
    let names = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| name.starts_with("nightly"))
        .map(|name| nightly(&rustup, name))
        .collect()
}

fn nightly(rustup: &Path, name: &str) -> Candidate {
    let mut which = clean(rustup);
    which.args(["which", "--toolchain", name, "rustc"]);
    let origin = Origin::Nightly(name.to_owned());
    match process::ask(which) {
        Ok(rustc) => candidate(origin, Path::new(rustc.trim())),
        Err(error) => Candidate {
            origin,
            usable: Err(format!("{error:#}")),
        },
    }
}

/// The linkers on this host, the user's own first, then those that we built beside it.
fn linkers() -> Vec<Linker> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let users = workspace::which("bpf-linker")
        .or_else(|| cargo_home.map(|home| home.join("bin/bpf-linker")));
    let own = plan::LINKER_LLVMS.map(|major| own_linker_root(major).join("bin/bpf-linker"));
    users
        .into_iter()
        .chain(own)
        .filter(|path| path.is_file())
        .filter_map(linker)
        .collect()
}

/// A linker that does not even start (its libLLVM is gone) is as good as none.
fn linker(path: PathBuf) -> Option<Linker> {
    let mut ask = super::tool(&path);
    ask.arg("--version");
    let answer = process::ask(ask).ok()?;
    let version = answer.split_whitespace().find_map(Version::parse)?;
    let mut libraries = Command::new("ldd");
    libraries.arg(&path);
    let llvm = process::ask(libraries)
        .ok()
        .and_then(|listed| linked_llvm(&listed));
    Some(Linker {
        path,
        version,
        llvm,
    })
}

/// The LLVM major among the shared libraries that ldd lists; nothing if LLVM is linked statically.
fn linked_llvm(listed: &str) -> Option<u32> {
    let (_, after) = listed.split_once("libLLVM")?;
    let digits = after.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

impl Version {
    /// The two leading numbers of `1.96.0`, `1.97.0-nightly` or `22.1.8`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(['.', '-']);
        let mut next = || numbers.next()?.parse().ok();
        Some(Self {
            major: next()?,
            minor: next()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_versions() {
        let debian = "rustc 1.96.0 (ac68faa20 2026-05-25)\nhost: x86_64-unknown-linux-gnu\n\
                      release: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(
            versions(debian),
            Some((
                Version {
                    major: 1,
                    minor: 96
                },
                22
            ))
        );
        let nightly = "release: 1.97.0-nightly\nLLVM version: 22.1.2\n";
        assert_eq!(
            versions(nightly),
            Some((
                Version {
                    major: 1,
                    minor: 97
                },
                22
            ))
        );
        assert_eq!(versions("release: 1.96.0\n"), None);
    }

    #[test]
    fn llvm_of_a_linker() {
        let cases = [
            (
                "shared",
                "\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)",
                Some(22),
            ),
            (
                "old name",
                "\tlibLLVM-19.so.1 => /usr/lib/llvm-19/lib/libLLVM-19.so.1",
                Some(19),
            ),
            (
                "static",
                "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0)",
                None,
            ),
        ];
        for (description, listed, expected) in cases {
            assert_eq!(linked_llvm(listed), expected, "{description}");
        }
    }

    #[test]
    fn a_compiler_that_is_not_there_says_so() {
        let error = inspect(Path::new("/nowhere/rustc"))
            .expect_err("no such file")
            .to_string();
        assert_eq!(error, "/nowhere/rustc is not there");
    }
}
