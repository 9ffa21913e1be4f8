//! Debian packages: which are missing, and putting them in, said before it is done.
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{output, process, workspace};

/// A program that a task needs, and the Debian package that brings it.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

/// What the network tests and the demo use of the host.
pub(crate) const NETWORK_PROGRAMS: &[Program] = &[
    Program {
        name: "ip",
        package: "iproute2",
    },
    Program {
        name: "ethtool",
        package: "ethtool",
    },
    Program {
        name: "curl",
        package: "curl",
    },
];

/// The servers the gateway's tests put behind it.
pub(crate) const ORIGIN_PROGRAMS: &[Program] = &[
    Program {
        name: "nginx",
        package: "nginx-light",
    },
    Program {
        name: "haproxy",
        package: "haproxy",
    },
    Program {
        // Only the program: no configuration, no service.
        name: "apache2",
        package: "apache2-bin",
    },
    Program {
        name: "node",
        package: "nodejs",
    },
    Program {
        name: "python3",
        package: "python3",
    },
];

/// Packages that come with a service, and its name: it is neither started now nor with the system.
const SERVICES: [(&str, &str); 2] = [("nginx-light", "nginx"), ("haproxy", "haproxy")];

/// What packages ask before they start a service (Debian's `invoke-rc.d`); exit code 101 says no.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Makes sure that `programs` are there.
///
/// # Errors
/// When some are missing and we are not root, or installing them fails.
pub(crate) fn ensure_programs(programs: &[Program]) -> Result<()> {
    let missing: BTreeSet<String> = programs
        .iter()
        .filter(|program| workspace::which(program.name).is_none())
        .map(|program| program.package.to_owned())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = missing.into_iter().collect();
    if let Some(refusal) = refusal(&missing, is_root(), has_apt()) {
        bail!(refusal);
    }
    packages(&missing)
}

/// Why `packages` cannot be installed here, as one sentence with what to do; nothing if they can.
pub(crate) fn refusal(packages: &[String], is_root: bool, has_apt: bool) -> Option<String> {
    let list = packages.join(" ");
    if !has_apt {
        return Some(format!(
            "this system has no apt-get; install what the Debian packages {list} contain"
        ));
    }
    (!is_root).then(|| {
        format!("some Debian packages are missing; run `sudo apt-get install {list}`, then again")
    })
}

/// Installs Debian packages. The caller is root.
pub(crate) fn packages(names: &[String]) -> Result<()> {
    output::say(&format!("installing Debian packages: {}", names.join(" ")));
    let mut update = apt_get();
    update.arg("update");
    process::run("apt-get update", update)?;
    let mut install = apt_get();
    install
        .args(["install", "--yes", "--no-install-recommends"])
        .args(names);
    let refused = ServicesRefused::begin()?;
    process::run("apt-get install", install)?;
    drop(refused);
    disable_services(names);
    Ok(())
}

/// Keeps packages from starting services while it lives.
struct ServicesRefused {
    /// Whether the policy is ours to take away.
    ours: bool,
}

impl ServicesRefused {
    fn begin() -> Result<Self> {
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(SERVICE_POLICY);
        match created {
            Ok(mut file) => {
                file.write_all(b"#!/bin/sh\nexit 101\n")?;
                Ok(Self { ours: true })
            }
            // Somebody's own policy stays as it is.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error).context(format!("cannot write {SERVICE_POLICY}")),
        }
    }
}

impl Drop for ServicesRefused {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(SERVICE_POLICY)
        {
            output::say(&format!("cannot remove {SERVICE_POLICY}: {error}"));
        }
    }
}

/// Keeps the services that came with `packages` from starting with the system.
fn disable_services(packages: &[String]) {
    let of_packages = |(package, _): &&(&str, &str)| packages.iter().any(|name| name == package);
    let services: Vec<&str> = SERVICES
        .iter()
        .filter(of_packages)
        .map(|(_, service)| *service)
        .collect();
    if services.is_empty() || !Path::new("/run/systemd/system").exists() {
        return;
    }
    let mut disable = Command::new("systemctl");
    disable.args(["disable", "--quiet"]).args(&services);
    if let Err(error) = process::run("systemctl disable", disable) {
        output::say(&format!(
            "{} may start with the system: {error:#}",
            services.join(", ")
        ));
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Those of `names` that dpkg calls installed.
pub(crate) fn installed(names: &[String]) -> BTreeSet<String> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(names);
    // It fails as soon as one name is unknown, and still prints the others.
    let answer = query
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    installed_of(&String::from_utf8_lossy(&answer))
}

fn installed_of(answer: &str) -> BTreeSet<String> {
    let names = answer
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"));
    names.map(str::to_owned).collect()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub(crate) fn has_apt() -> bool {
    workspace::which("apt-get").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let packages = ["iproute2".to_owned(), "curl".to_owned()];
        let cases = [
            ("root on Debian", true, true, None),
            (
                "user on Debian",
                false,
                true,
                Some("run `sudo apt-get install iproute2 curl`"),
            ),
            (
                "root elsewhere",
                true,
                false,
                Some("no apt-get; install what"),
            ),
            (
                "user elsewhere",
                false,
                false,
                Some("no apt-get; install what"),
            ),
        ];
        for (description, is_root, has_apt, expected) in cases {
            let refusal = refusal(&packages, is_root, has_apt);
            assert_eq!(refusal.is_some(), expected.is_some(), "{description}");
            let said = refusal.unwrap_or_default();
            assert!(
                said.contains(expected.unwrap_or_default()),
                "{description}: {said}"
            );
        }
    }

    #[test]
    fn every_service_belongs_to_a_package_we_install() {
        for (package, _) in SERVICES {
            let ours = ORIGIN_PROGRAMS.iter().any(|one| one.package == package);
            assert!(ours, "{package}");
        }
    }

    #[test]
    fn removed_packages_with_configuration_left_are_not_installed() {
        let answer = "curl installed\nethtool config-files\nzlib1g-dev installed\n";
        let names: Vec<_> = installed_of(answer).into_iter().collect();
        assert_eq!(names, ["curl", "zlib1g-dev"]);
    }
}
