//! What a balancer has left in the kernel: the program on its interface, and its maps.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::MapInfo;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::loaded_programs;

/// The program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// The link that holds it there.
    pub link_id: u32,
    /// The program; each load has another id.
    pub program_id: u32,
    /// A hash of its instructions: the same for the same build.
    pub program_tag: u64,
}

impl Attachment {
    /// What the link pinned as `path` holds.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn read(path: &Path) -> Result<Self> {
        let link = PinnedLink::from_pin(path)
            .with_context(|| format!("opening the link {}", path.display()))?;
        let info = FdLink::from(link).info()?;
        let program_id = info.program_id();
        let program = loaded_programs()
            .filter_map(Result::ok)
            .find(|program| program.id() == program_id);
        let program = program.with_context(|| format!("program {program_id} is not loaded"))?;
        Ok(Self {
            link_id: info.id(),
            program_id,
            program_tag: program.tag(),
        })
    }
}

/// The memory that each map pinned in `directory` takes in the kernel, in bytes, by name.
///
/// # Errors
///
/// When a map cannot be opened, or the kernel does not say.
pub fn map_bytes(directory: &Path) -> Result<BTreeMap<String, u64>> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("listing {}", directory.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    entries
        .iter()
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = bytes_of(&entry.path()).with_context(|| format!("map {name}"))?;
            Ok((name, bytes))
        })
        .collect()
}

/// What `bpf_map_show_fdinfo` prints of the map pinned as `path`.
fn bytes_of(path: &Path) -> Result<u64> {
    let map = MapInfo::from_pin(path)?.fd()?;
    let number = map.as_fd().as_raw_fd();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    memory(&text).with_context(|| format!("no memlock in {text}"))
}

fn memory(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}

/// The memory of the process `pid` that is in use now, in bytes.
///
/// # Errors
///
/// When there is no such process.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
        .with_context(|| format!("no VmRSS in {text}"))?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_text() {
        let text = "pos:\t0\nmap_type:\t9\nmax_entries:\t8\nmemlock:\t704512\nmap_id:\t12\n";
        assert_eq!(memory(text), Some(704_512));
        assert_eq!(memory("pos:\t0\n"), None);
    }

    #[test]
    fn a_process_that_runs_has_memory() {
        assert!(resident_bytes(std::process::id()).unwrap() > 0);
        assert!(resident_bytes(u32::MAX).is_err());
    }
}
