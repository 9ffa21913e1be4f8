//! The gateway built by a profile of its own work.
//!
//! A compiler that knows how often each branch is taken inlines where it pays, and puts side by
//! side what runs. So the gateway is built twice: first so that it counts, then, after it has done
//! the work of its own benchmark, by what it has counted. `bench/README.md` says what that gains.
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Program;
use crate::{install, output, process, workspace};

const GATEWAY: Program<'static> = Program::release("gateway", "weir-gateway");

/// Makes the load.
pub(crate) const BENCH: Program<'static> = Program::release("bench", "bench");

/// The cargo profile of what only has to make load: quick to build.
const TRAINING: &str = "training";

/// Whether a profile is wanted.
#[derive(clap::Args)]
pub(crate) struct Wish {
    /// Build the gateway without a profile: it takes half the time to build
    #[arg(long)]
    no_profile: bool,
}

/// Blocks that the gateway enters while it is trained, at least: it serves requests by the hundred
/// thousand. Less is what it takes to start, so its counts were lost.
const BLOCKS_COUNTED_MIN: u64 = 10_000_000;

/// The compiler in use, as far as profiles depend on it.
#[derive(Debug, PartialEq, Eq)]
struct Compiler {
    host: String,
    llvm: u32,
}

/// The gateway, as it was built.
pub(crate) struct Gateway {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// By a profile.
    pub(crate) profiled: bool,
}

/// Builds the gateway, by a profile if that is wanted and possible; otherwise it is said why not.
/// `trainer` brings the program `bench`.
///
/// # Errors
/// When the gateway cannot be built.
pub(crate) fn gateway(wish: &Wish, trainer: impl FnOnce() -> Result<PathBuf>) -> Result<Gateway> {
    if !wish.no_profile {
        match profiled(trainer) {
            Ok(path) => {
                return Ok(Gateway {
                    path,
                    profiled: true,
                });
            }
            Err(error) => output::say(&format!("without a profile: {error:#}")),
        }
    }
    Ok(Gateway {
        path: GATEWAY.build("build the gateway")?,
        profiled: false,
    })
}

/// Builds `bench` for training alone: its own speed does not matter there.
pub(crate) fn trainer() -> Result<PathBuf> {
    let bench = BENCH.by(TRAINING);
    bench.build("build what the gateway is trained with")
}

fn profiled(trainer: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    let compiler = Compiler::in_use()?;
    let merger = merger(compiler.llvm)?;
    let directory = workspace::target_dir().join("profile");
    let counts = directory.join("counts");
    let counting = build(
        "build the gateway so that it counts",
        &compiler,
        &format!("-Cprofile-generate={}", counts.display()),
    )?;
    // What has not changed need not be trained again, nor be compiled again after it.
    let profile = directory.join(format!("{:016x}.profdata", fingerprint(&counting)?));
    if !profile.is_file() {
        forget(&directory)?;
        train(&trainer()?, &counting)?;
        merge(&merger, &counts, &profile)?;
    }
    build(
        "build the gateway by its profile",
        &compiler,
        &format!("-Cprofile-use={}", profile.display()),
    )
}

/// Builds the gateway with one more flag for the compiler.
///
/// Nothing else may differ between the two builds: counts are kept by the names of functions within
/// their units of code, and what finds none is taken for something that never runs.
fn build(title: &str, compiler: &Compiler, flag: &str) -> Result<PathBuf> {
    GATEWAY.with_flags(&compiler.host, flag).build(title)
}

/// Takes earlier profiles and counts away.
fn forget(directory: &Path) -> Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())
}

/// Lets the counting gateway do the work of the benchmark. It writes its counts when it ends.
fn train(bench: &Path, counting: &Path) -> Result<()> {
    let mut training = Command::new(bench);
    training.args(["gateway", "--quick", "--rounds", "1", "--proxies", "weir"]);
    training.arg("--weir").arg(counting);
    process::run("train the gateway", training).map(drop)
}

fn merge(merger: &Path, counts: &Path, profile: &Path) -> Result<()> {
    let raw = std::fs::read_dir(counts)
        .context("the gateway has counted nothing")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(!raw.is_empty(), "the gateway has counted nothing");
    // Renamed when it is whole: what stands under that name is believed.
    let whole = profile.with_extension("new");
    let mut merge = Command::new(merger);
    merge.args(["merge", "--output"]).arg(&whole).args(raw);
    process::run("merge the counts", merge)?;
    let mut show = Command::new(merger);
    show.args(["show", "--detailed-summary"]).arg(&whole);
    let counted = counted(&process::ask(show)?).context("llvm-profdata names no total")?;
    ensure!(
        counted >= BLOCKS_COUNTED_MIN,
        "the gateway has counted {counted} blocks only: it was killed before it wrote the others"
    );
    std::fs::rename(&whole, profile).with_context(|| profile.display().to_string())
}

/// The blocks entered, by what `llvm-profdata` shows of a profile.
fn counted(shown: &str) -> Option<u64> {
    let total = |line: &str| line.strip_prefix("Total count: ")?.parse().ok();
    shown.lines().find_map(total)
}

fn fingerprint(program: &Path) -> Result<u64> {
    let bytes = std::fs::read(program).with_context(|| program.display().to_string())?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok(hasher.finish())
}

/// `llvm-profdata` of the compiler's own LLVM: others do not read its counts.
fn merger(llvm: u32) -> Result<PathBuf> {
    let found = || {
        let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin/llvm-profdata"));
        workspace::which(&format!("llvm-profdata-{llvm}"))
            .or_else(|| debian.is_file().then_some(debian))
    };
    if let Some(merger) = found() {
        return Ok(merger);
    }
    let package = [format!("llvm-{llvm}")];
    if let Some(refusal) = install::refusal(&package, install::is_root(), install::has_apt()) {
        anyhow::bail!("no llvm-profdata of LLVM {llvm}: {refusal}");
    }
    install::packages(&package)?;
    found().with_context(|| format!("{} has brought no llvm-profdata", package[0]))
}

impl Compiler {
    fn in_use() -> Result<Self> {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.arg("-vV").current_dir(workspace::root());
        Self::described(&process::ask(rustc)?).context("rustc -vV names no host or LLVM")
    }

    fn described(verbose: &str) -> Option<Self> {
        let value = |key: &str| verbose.lines().find_map(|line| line.strip_prefix(key));
        let (llvm, _) = value("LLVM version: ")?.split_once('.')?;
        Some(Self {
            host: value("host: ")?.to_owned(),
            llvm: llvm.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_tells_its_host_and_llvm() {
        let whole = "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";
        let compiler = Compiler {
            host: "x86_64-unknown-linux-gnu".to_owned(),
            llvm: 22,
        };
        let cases = [
            (whole.to_owned(), Some(compiler)),
            (whole.replace("host", "guest"), None),
            (whole.replace("22.1.2", "22"), None),
            (whole.replace("22.1.2", "new.1"), None),
        ];
        for (verbose, expected) in cases {
            assert_eq!(Compiler::described(&verbose), expected, "{verbose}");
        }
    }

    #[test]
    fn a_profile_tells_how_much_was_counted() {
        let shown = "Total functions: 3\nTotal count: 2329\nDetailed summary:\n";
        assert_eq!(counted(shown), Some(2329));
        assert_eq!(counted("Total functions: 3\n"), None);
    }

    #[test]
    fn counts_are_merged_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let (counts, profile) = (
            directory.path().join("c"),
            directory.path().join("p.profdata"),
        );
        // Nothing was counted.
        assert!(merge(Path::new("true"), &counts, &profile).is_err());
        std::fs::create_dir(&counts).unwrap();
        assert!(merge(Path::new("true"), &counts, &profile).is_err());
        // The merger fails.
        std::fs::write(counts.join("raw"), "x").unwrap();
        assert!(merge(Path::new("false"), &counts, &profile).is_err());
        assert!(!profile.exists());
    }
}
