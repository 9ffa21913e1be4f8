//! Embeds the BPF objects, when `cargo xtask ebpf` has built them.
//!
//! The objects need a toolchain that not every machine has, and the command line is useful without
//! them, so their absence is not an error here: the build goes through, and the program says what is
//! missing when it is asked to load one.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the constant and of the object file.
const OBJECTS: [(&str, &str); 2] = [("BALANCER", "balancer.o"), ("DECAP", "decap.o")];

fn main() {
    println!("cargo::rerun-if-env-changed=WEIR_BPF_DIR");
    println!("cargo::rerun-if-changed=build.rs");
    let directory = directory();
    // A path that does not exist makes cargo run this script, and compile the crate, each time. An
    // empty directory to watch avoids that; where it cannot be made, the slow way still works.
    let _ = fs::create_dir_all(&directory);
    println!("cargo::rerun-if-changed={}", directory.display());

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    fs::write(out.join("objects.rs"), constants(&directory)).expect("OUT_DIR is writable");
}

/// Where the objects are: the environment's word, else `target/bpf` of the workspace.
fn directory() -> PathBuf {
    if let Some(directory) = env::var_os("WEIR_BPF_DIR") {
        return PathBuf::from(directory);
    }
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    Path::new(&manifest).join("../target/bpf")
}

/// One `Option<&[u8]>` per object. The loader reads ELF structures in place, hence the alignment.
fn constants(directory: &Path) -> String {
    let mut source = String::new();
    for (constant, file) in OBJECTS {
        let path = directory.join(file);
        let value = match path.canonicalize() {
            Ok(path) => {
                println!("cargo::rerun-if-changed={}", path.display());
                format!(
                    "Some(aya::include_bytes_aligned!({:?}))",
                    path.display().to_string()
                )
            }
            Err(_) => "None".to_owned(),
        };
        writeln!(source, "const {constant}: Option<&[u8]> = {value};")
            .expect("a String takes any text");
    }
    source
}
