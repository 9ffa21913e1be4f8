//! Our own rules as code: what a reviewer would otherwise have to say again and again.
//!
//! Each rule is a pure function from files to violations, in a file of its own. What rustfmt and
//! clippy can see is left to them; here is what they cannot: sizes, dead files, the homes of
//! `unsafe` (clippy does not see the BPF side), the form of manifests, names in the README.
use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use self::crates::Crates;
use self::source::Source;
use crate::{output, process, workspace};

mod crates;
mod manifest;
mod modules;
mod readme;
mod size;
mod source;
mod syntax;
mod text;

/// A place and what is wrong with it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    what: String,
}

impl Violation {
    fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }

    fn file(path: &str, what: impl Into<String>) -> Self {
        Self::at(path, 0, what)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// A file that is tracked, or would be by `git add`. The path is relative to the root.
pub(crate) struct TrackedFile {
    path: String,
    bytes: Vec<u8>,
}

/// `cargo xtask tidy`.
pub(crate) fn run() -> Result<ExitCode> {
    check()?;
    Ok(ExitCode::SUCCESS)
}

/// Fails when any rule is violated, after printing each violation.
pub(crate) fn check() -> Result<()> {
    let files = tracked_files(workspace::root())?;
    let crates = Crates::from_metadata(&workspace::metadata()?, workspace::root());
    let violations = violations(&files, &crates);
    for violation in &violations {
        output::say(&violation.to_string());
    }
    ensure!(
        violations.is_empty(),
        "{} violations of our own rules",
        violations.len()
    );
    Ok(())
}

fn violations(files: &[TrackedFile], crates: &Crates) -> Vec<Violation> {
    let (sources, unparsed) = parse(files);
    let rules = [
        unparsed,
        text::violations(files),
        syntax::violations(&sources),
        size::violations(&sources),
        modules::violations(&sources, &crates.roots),
        manifest::violations(files, &sources, crates),
        readme::violations(files),
    ];
    let mut violations: Vec<Violation> = rules.into_iter().flatten().collect();
    violations.sort();
    violations
}

fn parse(files: &[TrackedFile]) -> (Vec<Source>, Vec<Violation>) {
    let mut sources = Vec::new();
    let mut unparsed = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let text = String::from_utf8_lossy(&file.bytes);
        match Source::parse(&file.path, &text) {
            Ok(source) => sources.push(source),
            Err(error) => {
                let line = error.span().start().line;
                unparsed.push(Violation::at(
                    &file.path,
                    line,
                    format!("is not Rust: {error}"),
                ));
            }
        }
    }
    (sources, unparsed)
}

fn tracked_files(root: &Path) -> Result<Vec<TrackedFile>> {
    let mut git = Command::new("git");
    git.current_dir(root);
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ]);
    let listed = process::ask(git)?;
    let paths = listed.split('\0').filter(|path| !path.is_empty());
    let mut files = Vec::new();
    for path in paths {
        let full = root.join(path);
        // Deleted but not yet committed, or a link to a directory.
        if full.is_file() {
            let bytes = std::fs::read(&full).with_context(|| full.display().to_string())?;
            files.push(TrackedFile {
                path: path.to_owned(),
                bytes,
            });
        }
    }
    Ok(files)
}

/// Builds a tracked file for the rules' own tests.
#[cfg(test)]
fn tracked(path: &str, text: &str) -> TrackedFile {
    TrackedFile {
        path: path.to_owned(),
        bytes: text.as_bytes().to_vec(),
    }
}

/// The violations as their lines of output, for comparison with literals.
#[cfg(test)]
fn lines(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(Violation::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_rust_is_reported_with_its_line() {
        let files = [tracked("x/src/lib.rs", "//! Doc.\nfn broken( {\n")];
        let (sources, unparsed) = parse(&files);
        assert!(sources.is_empty());
        assert!(
            lines(&unparsed)[0].starts_with("x/src/lib.rs:2: is not Rust"),
            "{unparsed:?}"
        );
    }
}
