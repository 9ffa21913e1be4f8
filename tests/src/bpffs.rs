//! A BPF file system of the test bed's own, so that its pins never meet those of the machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::cleanup::{Guard, Resource};

/// A mounted bpffs, unmounted on drop; what is pinned nowhere else goes with it.
#[derive(Debug)]
pub struct Bpffs {
    path: PathBuf,
    _guard: Guard,
}

impl Bpffs {
    /// Mounts a bpffs at `bpf` in `directory`.
    ///
    /// # Errors
    ///
    /// Without root, or on a kernel without BPF.
    pub fn new(directory: &Path) -> Result<Self> {
        // `cleanup::sweep` looks for a forgotten mount under this name.
        let path = directory.join("bpf");
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        let (kind, flags) = (Some("bpf"), MsFlags::empty());
        let mounted = Guard::making(
            || mount(kind, &path, kind, flags, None::<&str>),
            |()| Resource::Mount(path.clone()),
        );
        let ((), guard) =
            mounted.with_context(|| format!("mounting a bpffs on {}", path.display()))?;
        Ok(Self {
            path,
            _guard: guard,
        })
    }

    /// Makes a directory for the pins of one host.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn directory(&self, host: &str) -> Result<PathBuf> {
        let path = self.path.join(host);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }
}
