//! The BPF build itself: `lb-ebpf`'s programs, `core` from source, the chosen compiler and linker.
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Built;
use super::plan::Tools;
use crate::{output, process, workspace};

/// The programs of `lb-ebpf`, each an object of its own.
const PROGRAMS: [&str; 3] = ["balancer", "decap", "harness"];
const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";

/// Builds the programs. Clippy never sees them, so the compiler's warnings are shown.
pub(super) fn build(tools: &Tools) -> Result<Built> {
    let target_dir = workspace::target_dir().join("bpf-build");
    let said = process::run("build the BPF programs", cargo_build(tools, &target_dir))?;
    let is_warning = |line: &&str| line.starts_with("warning");
    let has_warnings = said.lines().any(|line| is_warning(&line));
    for line in said.lines().skip_while(|line| !is_warning(line)) {
        output::say(line);
    }
    let destination = workspace::bpf_dir();
    std::fs::create_dir_all(&destination).with_context(|| destination.display().to_string())?;
    let built = target_dir.join(TARGET).join(PROFILE);
    let copied = PROGRAMS.iter().map(|program| {
        let object = destination.join(format!("{program}.o"));
        copy_if_changed(&built.join(program), &object).map(|()| object)
    });
    Ok(Built {
        objects: copied.collect::<Result<_>>()?,
        has_warnings,
    })
}

fn cargo_build(tools: &Tools, target_dir: &Path) -> Command {
    let mut cargo = super::tool(&tools.compiler.cargo);
    for (name, _) in std::env::vars_os().filter(|(name, _)| !is_kept(name)) {
        cargo.env_remove(name);
    }
    cargo.env("PATH", path_with_first(tools.compiler.rustc.parent()));
    cargo.env("RUSTC", &tools.compiler.rustc);
    // aya-ebpf needs inline assembly for BPF, build-std is unstable; Debian's compiler is a stable
    // release.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(std::env::consts::ARCH));
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &tools.linker);
    cargo.args(["build", "--package", "lb-ebpf", "--bins", "--locked"]);
    cargo.args([
        "--profile",
        PROFILE,
        "--target",
        TARGET,
        "-Z",
        "build-std=core",
    ]);
    cargo.arg("--target-dir").arg(target_dir);
    cargo
}

/// Flags for the BPF crates only: with `--target`, cargo keeps them from build scripts.
///
/// CPU v3 (kernel 5.12) brings 32-bit arithmetic and atomics that return a value; `--btf` makes
/// the linker emit the type data that the maps and the loader rely on. Packet headers lie where
/// the Ethernet header leaves them, two bytes off any alignment: without misaligned access, which
/// the kernel allows on packets where the machine does it cheaply, each field would be read byte
/// by byte. That feature is asked of the linker, which generates the code; rustc would warn of it.
fn rustflags(host_arch: &str) -> String {
    let target_arch = format!("--cfg=bpf_target_arch=\"{host_arch}\"");
    let flags = [
        &target_arch,
        "-Ctarget-cpu=v3",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    ];
    flags.join("\x1f")
}

/// The user's cargo configuration stays; whatever rustup, `cargo run` or the user meant for the
/// host compiler goes.
fn is_kept(variable: &OsStr) -> bool {
    const CARGO_KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR", // CARGO_REGISTRY_*, CARGO_REGISTRIES_*
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    let name = variable.to_string_lossy();
    let foreign = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "RUSTUP_TOOLCHAIN"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    // `cargo run` puts the host compiler's libraries there.
    let libraries = name == "LD_LIBRARY_PATH";
    CARGO_KEPT.iter().any(|prefix| name.starts_with(prefix)) || !(foreign || libraries)
}

/// `PATH` with the compiler's directory in front, so that nothing finds the rustup shim.
fn path_with_first(directory: Option<&Path>) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = directory.map(Path::to_owned).into_iter();
    std::env::join_paths(directories.chain(std::env::split_paths(&path))).unwrap_or(path)
}

/// An object that did not change keeps its time, so that cargo does not embed it again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let content = std::fs::read(from).with_context(|| from.display().to_string())?;
    if std::fs::read(to).is_ok_and(|present| present == content) {
        return Ok(());
    }
    // Renamed into place: a build script that runs meanwhile reads one object or the other.
    let partial = to.with_extension("o.partial");
    std::fs::write(&partial, content)
        .and_then(|()| std::fs::rename(&partial, to))
        .with_context(|| to.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_host_compilers_environment_stays_out() {
        let cases = [
            ("CARGO", false),
            ("CARGO_BUILD_TARGET", false),
            ("CARGO_ENCODED_RUSTFLAGS", false),
            ("CARGO_PKG_NAME", false),
            ("CARGO_TARGET_DIR", false),
            ("LD_LIBRARY_PATH", false),
            ("RUSTC", false),
            ("RUSTC_WRAPPER", false),
            ("RUSTFLAGS", false),
            ("RUSTUP_TOOLCHAIN", false),
            ("CARGO_HOME", true),
            ("CARGO_NET_OFFLINE", true),
            ("CARGO_REGISTRIES_MINE_INDEX", true),
            ("CARGO_TERM_COLOR", true),
            ("HOME", true),
            ("RUSTUP_HOME", true),
            ("RUST_BACKTRACE", true),
        ];
        for (name, expected) in cases {
            assert_eq!(is_kept(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn flags_are_one_string() {
        let expected = "--cfg=bpf_target_arch=\"aarch64\"\x1f-Ctarget-cpu=v3\x1f-Cdebuginfo=2\x1f\
                        -Clink-arg=--btf\x1f\
                        -Clink-arg=--cpu-features=+allows-misaligned-mem-access";
        assert_eq!(rustflags("aarch64"), expected);
    }

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["built", "object.o"].map(|name| directory.path().join(name));
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        std::fs::write(&from, "object").unwrap();
        copy_if_changed(&from, &to).unwrap();
        File::options()
            .write(true)
            .open(&to)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();

        copy_if_changed(&from, &to).unwrap();
        assert_eq!(
            std::fs::metadata(&to).unwrap().modified().unwrap(),
            long_ago
        );

        std::fs::write(&from, "another").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "another");
        assert!(std::fs::metadata(&to).unwrap().modified().unwrap() > long_ago);
    }
}
