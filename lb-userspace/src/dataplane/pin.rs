//! Where maps and links are pinned, and who may use them.
//!
//! ```text
//! <bpffs>/maps/<MAP>          every map of the balancer
//! <bpffs>/links/<interface>   one bpf_link for each interface
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::Error;

/// The directory of one data plane in a bpffs.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// The right to change a data plane: one process at a time.
#[derive(Debug)]
pub(super) struct Owner {
    _lock: Flock<File>,
}

impl Pins {
    /// The data plane under `root`; nothing is looked at yet.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Path of the map `name`.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Path of the link of `interface`.
    pub(super) fn link(&self, interface: &str) -> PathBuf {
        self.root.join("links").join(interface)
    }

    /// Whether any map is pinned here.
    pub fn exist(&self) -> bool {
        fs::read_dir(self.root.join("maps")).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Makes sure that the root is on a bpffs and has its directories, and takes the lock.
    pub(super) fn prepare(&self) -> Result<Owner, Error> {
        self.check_file_system()?;
        for directory in ["maps", "links"] {
            let path = self.root.join(directory);
            fs::create_dir_all(&path).map_err(|source| Error::io("create", &path, source))?;
        }
        self.lock()
    }

    /// Takes the lock of an existing root.
    ///
    /// The lock is on the directory itself, since a bpffs holds no ordinary files; the kernel gives it
    /// back when the process ends, however it ends.
    pub(super) fn lock(&self) -> Result<Owner, Error> {
        let directory =
            File::open(&self.root).map_err(|source| Error::io("open", &self.root, source))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Owner { _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Error::InUse(self.root.clone())),
            Err((_, errno)) => Err(Error::io("lock", &self.root, errno.into())),
        }
    }

    /// Fails unless the root, or what exists of the way to it, is on a bpffs.
    pub fn check_file_system(&self) -> Result<(), Error> {
        let existing = self.root.ancestors().find(|path| path.exists());
        let on_bpffs = existing
            .and_then(|path| statfs(path).ok())
            .is_some_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC);
        if on_bpffs {
            Ok(())
        } else {
            Err(Error::NotBpffs(self.root.clone()))
        }
    }

    /// Names of the interfaces that have a pinned link, sorted.
    pub fn linked_interfaces(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("links")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Removes links first, then maps, then the directories; the kernel detaches a program when the
    /// last name of its link goes. Returns the interfaces that had one.
    pub(super) fn remove(&self) -> Result<Vec<String>, Error> {
        let interfaces = self.linked_interfaces();
        for directory in ["links", "maps"] {
            remove_directory(&self.root.join(directory))?;
        }
        // The root may hold other things, or be the mount point itself: then it stays.
        let _ = fs::remove_dir(&self.root);
        Ok(interfaces)
    }
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::io("list", path, source)),
    };
    for entry in entries.flatten() {
        let pin = entry.path();
        fs::remove_file(&pin).map_err(|source| Error::io("remove", &pin, source))?;
    }
    fs::remove_dir(path).map_err(|source| Error::io("remove", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_directory_is_refused_with_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let error = Pins::new(&directory.path().join("weir"))
            .prepare()
            .unwrap_err();
        assert!(matches!(error, Error::NotBpffs(_)), "{error}");
        assert!(error.hint().unwrap().contains("mount -t bpf"), "{error}");
    }

    #[test]
    fn two_owners_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(directory.path());
        let first = pins.lock().unwrap();
        assert!(matches!(pins.lock(), Err(Error::InUse(_))));
        drop(first);
        pins.lock().unwrap();
    }

    #[test]
    fn removing_nothing_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(&directory.path().join("absent"));
        assert_eq!(pins.remove().unwrap(), Vec::<String>::new());
        assert!(!pins.exist());
    }
}
