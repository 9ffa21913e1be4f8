//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::command;

/// Names the directory that holds the programs; without it they are built and looked for next to us.
pub const DIRECTORY_VARIABLE: &str = "WEIR_BIN_DIR";

/// The programs a test bed starts.
const PROGRAMS: [&str; 3] = ["weir", "weir-gateway", "weir-service"];

/// The packages they are built from, and ours: chosen together they share every dependency with the
/// tests, so that a build with nothing to do takes half a second.
const PACKAGES: [&str; 3] = ["lb-userspace", "gateway", "tests"];

/// The manifest of the workspace.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");

/// The path of the program `name`.
///
/// Unless [`DIRECTORY_VARIABLE`] names a directory, the programs are brought up to date first, once
/// in the life of this process: `cargo test -p tests` alone does not, and would test an old `weir`.
///
/// # Errors
///
/// When it cannot be built, or is not in the directory that [`DIRECTORY_VARIABLE`] names.
pub fn path(name: &str) -> Result<PathBuf> {
    ensure!(PROGRAMS.contains(&name), "{name} is no program of ours");
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
    // Tests run side by side: one builds, the others wait and find the programs there.
    static BUILT: Mutex<bool> = Mutex::new(false);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !*built {
        build(directory)?;
        *built = true;
    }
    let path = directory.join(name);
    ensure!(path.is_file(), "the build left no {}", path.display());
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

fn build(directory: &Path) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut arguments = vec!["build", "--manifest-path", MANIFEST];
    arguments.extend(PACKAGES.iter().flat_map(|package| ["-p", package]));
    arguments.extend(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    if directory.ends_with("release") {
        arguments.push("--release");
    }
    command::run(&cargo, &arguments)
        .with_context(|| format!("building the programs; {DIRECTORY_VARIABLE} avoids it"))?;
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
    fn only_our_own_programs_are_found() {
        let error = path("rm").unwrap_err();
        assert_eq!(error.to_string(), "rm is no program of ours");
    }
}
