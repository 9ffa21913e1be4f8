//! From what was found to what is used or installed: a pure decision.
//!
//! The order of choice: a compiler that was named explicitly; a rustup nightly that has rust-src;
//! Debian's rustc-web with rust-web-src. The linker must be built with the compiler's LLVM, since
//! it reads that compiler's bitcode.
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::install;

/// The LLVM majors that bpf-linker 0.13 can be built with and that know all of our target features
/// (`allows-misaligned-mem-access` came with 22).
pub(super) const LINKER_LLVMS: [u32; 2] = [22, 23];
/// The oldest linker that takes what we hand it.
const LINKER_MIN: Version = Version {
    major: 0,
    minor: 13,
};
/// The LLVM of Debian 12's rustc-web, as foreseen before it is installed.
const DEBIAN_LLVM: u32 = 22;
/// Debian's compiler for the BPF programs.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Leading numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// Where a compiler comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `--bpf-rustc` or `WEIR_BPF_RUSTC`.
    Explicit,
    /// A rustup toolchain of this name.
    Nightly(String),
    /// rustc-web.
    Debian,
}

/// A compiler that can build for BPF: new enough, with cargo and rust-src.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiler {
    pub(super) rustc: PathBuf,
    pub(super) cargo: PathBuf,
    pub(super) version: Version,
    /// LLVM major.
    pub(super) llvm: u32,
}

/// A place where a compiler was looked for, and the compiler or why it cannot be used.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) origin: Origin,
    pub(super) usable: Result<Compiler, String>,
}

/// A bpf-linker. `llvm` is unknown if it is linked statically.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linker {
    pub(super) path: PathBuf,
    pub(super) version: Version,
    pub(super) llvm: Option<u32>,
}

/// All that was found on the host.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) explicit: Option<Candidate>,
    pub(super) nightlies: Vec<Candidate>,
    pub(super) debian: Candidate,
    pub(super) linkers: Vec<Linker>,
    /// Those of [`packages_of_interest`] that dpkg has.
    pub(super) installed: BTreeSet<String>,
    pub(super) is_root: bool,
    pub(super) has_apt: bool,
}

/// The chosen compiler and linker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tools {
    pub(super) origin: Origin,
    pub(super) compiler: Compiler,
    pub(super) linker: PathBuf,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Ready(Tools),
    Install(Install),
}

/// What is missing. After installing it, look again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Install {
    pub(super) packages: Vec<String>,
    pub(super) linker: Option<LinkerBuild>,
    /// Why each compiler that was looked at is of no use; empty if one is.
    pub(super) why: Vec<String>,
}

/// A bpf-linker to build.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LinkerBuild {
    /// LLVM major.
    pub(super) llvm: u32,
    /// The user has one for another LLVM, which stays: ours goes under `target/`.
    pub(super) beside: bool,
}

/// Why there is nothing to do but ask the user.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Refusal {
    #[error("the compiler set by --bpf-rustc or WEIR_BPF_RUSTC cannot be used: {0}")]
    Explicit(String),
    #[error(
        "no bpf-linker can be built for LLVM {0} of {1}; set WEIR_BPF_RUSTC to a rustc with LLVM \
         22 or 23"
    )]
    Llvm(u32, String),
    #[error("no BPF toolchain ({found}): {what_to_do}")]
    CannotInstall { found: String, what_to_do: String },
}

/// Every Debian package that may be asked for.
pub(super) fn packages_of_interest() -> Vec<String> {
    let compiler = COMPILER_PACKAGES.map(str::to_owned);
    compiler
        .into_iter()
        .chain(LINKER_LLVMS.into_iter().flat_map(linker_packages))
        .collect()
}

/// What building a linker with LLVM number `llvm` takes.
fn linker_packages(llvm: u32) -> [String; 3] {
    [
        format!("llvm-{llvm}-dev"),
        "libzstd-dev".to_owned(),
        "zlib1g-dev".to_owned(),
    ]
}

/// Decides what is used, or what is installed first.
///
/// # Errors
/// When only the user can help: a wrong explicit setting, no right to install, an LLVM that no
/// linker knows.
pub(super) fn plan(probe: &Probe) -> Result<Plan, Refusal> {
    let (chosen, why) = choose(probe)?;
    let llvm = chosen
        .as_ref()
        .map_or(DEBIAN_LLVM, |(_, compiler)| compiler.llvm);
    let linker = probe.linkers.iter().find(|linker| fits(linker, llvm));
    if let (Some((origin, compiler)), Some(linker)) = (&chosen, linker) {
        return Ok(Plan::Ready(Tools {
            origin: origin.clone(),
            compiler: compiler.clone(),
            linker: linker.path.clone(),
        }));
    }
    if !LINKER_LLVMS.contains(&llvm) {
        let rustc = chosen.map(|(_, compiler)| compiler.rustc.display().to_string());
        return Err(Refusal::Llvm(llvm, rustc.unwrap_or_default()));
    }
    let build = linker.is_none().then_some(LinkerBuild {
        llvm,
        beside: !probe.linkers.is_empty(),
    });
    permitted(probe, missing(probe, chosen.is_none(), build, why))
}

/// The packages for a compiler (where one is wanted) and for building a linker.
fn missing(
    probe: &Probe,
    wants_compiler: bool,
    linker: Option<LinkerBuild>,
    why: Vec<String>,
) -> Install {
    let compiler = wants_compiler.then(|| COMPILER_PACKAGES.map(str::to_owned));
    let build = linker.as_ref().map(|build| linker_packages(build.llvm));
    let wanted = [compiler, build].into_iter().flatten().flatten();
    let packages = wanted
        .filter(|name| !probe.installed.contains(name))
        .collect();
    Install {
        packages,
        linker,
        why,
    }
}

type Chosen = Option<(Origin, Compiler)>;

/// The first usable compiler in the order of choice, and why those before it are not.
fn choose(probe: &Probe) -> Result<(Chosen, Vec<String>), Refusal> {
    if let Some(explicit) = &probe.explicit {
        return match &explicit.usable {
            Ok(compiler) => Ok((Some((Origin::Explicit, compiler.clone())), Vec::new())),
            Err(reason) => Err(Refusal::Explicit(reason.clone())),
        };
    }
    let mut why = Vec::new();
    for candidate in probe.nightlies.iter().chain([&probe.debian]) {
        match &candidate.usable {
            Ok(compiler) => {
                return Ok((
                    Some((candidate.origin.clone(), compiler.clone())),
                    Vec::new(),
                ));
            }
            Err(reason) => why.push(reason.clone()),
        }
    }
    Ok((None, why))
}

/// A linker whose LLVM is unknown is believed: a wrong one fails at once and says so.
fn fits(linker: &Linker, llvm: u32) -> bool {
    linker.version >= LINKER_MIN && linker.llvm.is_none_or(|linked| linked == llvm)
}

/// Building the linker takes no rights, Debian packages do.
fn permitted(probe: &Probe, install: Install) -> Result<Plan, Refusal> {
    if install.packages.is_empty() && install.linker.is_none() {
        // The packages are there, and yet the compiler is of no use: installing changes nothing.
        let what_to_do = "set WEIR_BPF_RUSTC to a rustc with rust-src".to_owned();
        return Err(Refusal::CannotInstall {
            found: install.why.join("; "),
            what_to_do,
        });
    }
    let refused = (!install.packages.is_empty())
        .then(|| install::refusal(&install.packages, probe.is_root, probe.has_apt))
        .flatten();
    match refused {
        Some(what_to_do) => Err(Refusal::CannotInstall {
            found: install.reasons(),
            what_to_do,
        }),
        None => Ok(Plan::Install(install)),
    }
}

impl Install {
    fn reasons(&self) -> String {
        let linker = self
            .linker
            .as_ref()
            .map(|build| format!("no bpf-linker for LLVM {}", build.llvm));
        self.why
            .iter()
            .cloned()
            .chain(linker)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

impl fmt::Display for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The BPF toolchain is incomplete: {}.", self.reasons())?;
        write!(f, "About to install:")?;
        if !self.packages.is_empty() {
            write!(f, "\n  Debian packages {}", self.packages.join(" "))?;
        }
        if let Some(build) = &self.linker {
            let place = if build.beside {
                "under target/, beside yours"
            } else {
                "by cargo"
            };
            let version = super::LINKER_VERSION;
            write!(
                f,
                "\n  bpf-linker {version} with LLVM {}, {place}",
                build.llvm
            )?;
            write!(f, " (about two minutes)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compiler {
            rustc,
            version,
            llvm,
            ..
        } = &self.compiler;
        let origin = match &self.origin {
            Origin::Explicit => "set explicitly",
            Origin::Nightly(name) => name,
            Origin::Debian => "Debian's rustc-web",
        };
        write!(f, "rustc {version} ({origin}: {}), ", rustc.display())?;
        write!(f, "LLVM {llvm}, linker {}", self.linker.display())
    }
}

#[cfg(test)]
mod tests;
