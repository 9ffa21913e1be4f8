//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::command;

/// Names the directory that holds the programs; without it they are looked for next to us.
pub const DIRECTORY_VARIABLE: &str = "WEIR_BIN_DIR";

/// The programs a test bed starts, and the package that each is built from.
const PROGRAMS: [(&str, &str); 3] = [
    ("weir", "lb-userspace"),
    ("weir-gateway", "gateway"),
    ("weir-service", "tests"),
];

/// The path of the program `name`, which is built first when it is not there yet.
///
/// # Errors
///
/// When it cannot be built, or is not in the directory that [`DIRECTORY_VARIABLE`] names.
pub fn path(name: &str) -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) {
        let path = Path::new(&directory).join(name);
        ensure!(
            path.is_file(),
            "{DIRECTORY_VARIABLE} is set, but there is no {}",
            path.display()
        );
        return Ok(path);
    }
    let own = std::env::current_exe().context("the path of this program")?;
    let directory = target_directory(&own).context("this program lies outside a directory")?;
    let path = directory.join(name);
    // Tests run side by side: one builds, the others wait and find the program there.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.is_file() {
        build(name, directory)?;
        ensure!(path.is_file(), "the build left no {}", path.display());
    }
    Ok(path)
}

/// Cargo puts programs into `target/<profile>` and test binaries into `deps` below it.
fn target_directory(own: &Path) -> Option<&Path> {
    let parent = own.parent()?;
    if parent.ends_with("deps") {
        parent.parent()
    } else {
        Some(parent)
    }
}

fn build(name: &str, directory: &Path) -> Result<()> {
    let (_, package) = PROGRAMS
        .into_iter()
        .find(|(program, _)| *program == name)
        .with_context(|| format!("{name} is no program of ours"))?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut arguments = vec!["build", "-p", package, "--bin", name];
    if directory.ends_with("release") {
        arguments.push("--release");
    }
    command::run(&cargo, &arguments).with_context(|| format!("building {name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_lie_beside_a_binary_and_above_a_test_binary() {
        let cases = [
            ("/t/debug/demo", "/t/debug"),
            ("/t/debug/deps/netns-0123", "/t/debug"),
            ("/t/release/demo", "/t/release"),
        ];
        for (own, expected) in cases {
            assert_eq!(
                target_directory(Path::new(own)),
                Some(Path::new(expected)),
                "{own}"
            );
        }
    }

    #[test]
    fn only_our_own_programs_are_built() {
        let error = build("rm", Path::new("/t/debug")).unwrap_err();
        assert_eq!(error.to_string(), "rm is no program of ours");
    }
}
