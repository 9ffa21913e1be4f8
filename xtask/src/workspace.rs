//! Where things are in the checkout, and cargo started the way a shell would start it.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// Tells tests, demo and benchmarks where the programs are that they start.
pub(crate) const PROGRAMS_VARIABLE: &str = "WEIR_BIN_DIR";

/// The root of the checkout this xtask was compiled from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask/ lies in the workspace root")
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else `target`.
pub(crate) fn target_dir() -> PathBuf {
    directory("CARGO_TARGET_DIR", "target")
}

/// Where the BPF objects are left for `lb-userspace/build.rs`: `WEIR_BPF_DIR`, else `target/bpf`.
pub(crate) fn bpf_dir() -> PathBuf {
    directory("WEIR_BPF_DIR", "target/bpf")
}

fn directory(variable: &str, default: &str) -> PathBuf {
    root().join(std::env::var_os(variable).unwrap_or_else(|| default.into()))
}

/// The stable cargo that runs us, in the root, without what `cargo run` put into our environment.
///
/// What it put there describes the package `xtask`; left in place it would reach build scripts
/// and the processes they start.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os().filter(|(name, _)| describes_xtask(name)) {
        command.env_remove(name);
    }
    command
}

/// A program of this workspace, and how it is built.
#[derive(Clone, Copy)]
pub(crate) struct Program<'a> {
    package: &'static str,
    name: &'static str,
    /// Of cargo's.
    profile: &'static str,
    /// The platform it is built for, and flags for the compiler that also its libraries get.
    target: Option<(&'a str, &'a str)>,
}

impl<'a> Program<'a> {
    /// As it is released.
    pub(crate) const fn release(package: &'static str, name: &'static str) -> Self {
        Self {
            package,
            name,
            profile: "release",
            target: None,
        }
    }

    /// By another profile of cargo's.
    pub(crate) const fn by(self, profile: &'static str) -> Self {
        Self { profile, ..self }
    }

    /// With more flags. Named as the `target`, the host keeps build scripts and macros of the compiler
    /// free of them.
    pub(crate) const fn with_flags(self, target: &'a str, flags: &'a str) -> Self {
        Self {
            target: Some((target, flags)),
            ..self
        }
    }

    /// Builds it, as a step called `title`. Returns where it is.
    ///
    /// # Errors
    /// When cargo fails.
    pub(crate) fn build(self, title: &str) -> Result<PathBuf> {
        let mut cargo = cargo();
        cargo.args(["build", "--locked", "--profile", self.profile]);
        cargo.args(["--package", self.package, "--bin", self.name]);
        let mut directory = target_dir();
        if let Some((target, more)) = self.target {
            let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
            cargo.env("RUSTFLAGS", format!("{flags} {more}").trim_start());
            cargo.args(["--target", target]);
            directory.push(target);
        }
        process::show(title, cargo)?;
        Ok(directory.join(self.profile).join(self.name))
    }
}

fn describes_xtask(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    ["CARGO_PKG_", "CARGO_MANIFEST_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || [
            "CARGO",
            "CARGO_BIN_NAME",
            "CARGO_CRATE_NAME",
            "CARGO_PRIMARY_PACKAGE",
        ]
        .contains(&name.as_ref())
}

/// What cargo knows of all packages, for every platform and feature.
pub(crate) fn metadata() -> Result<Value> {
    let mut cargo = cargo();
    cargo.args([
        "metadata",
        "--format-version",
        "1",
        "--all-features",
        "--locked",
    ]);
    serde_json::from_str(&process::ask(cargo)?).context("cargo metadata")
}

/// The full path of a program on `PATH` (with the administrator's directories, which an
/// ordinary user's `PATH` leaves out), or nothing.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrator = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(administrator)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_describes_xtask_is_taken_away() {
        let cases = [
            ("CARGO", true),
            ("CARGO_PKG_NAME", true),
            ("CARGO_MANIFEST_DIR", true),
            ("CARGO_BIN_NAME", true),
            ("CARGO_HOME", false),
            ("CARGO_TARGET_DIR", false),
            ("CARGO_TERM_COLOR", false),
            ("PATH", false),
        ];
        for (name, expected) in cases {
            assert_eq!(describes_xtask(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn which_finds_a_shell_and_nothing_else() {
        assert!(which("sh").is_some());
        assert_eq!(which("weir-no-such-program"), None);
    }
}
