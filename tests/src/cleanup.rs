//! Undoing what a test bed has made: namespaces, mounts, directories and processes.
//!
//! Three ways lead here. A [`Guard`] undoes its resource when dropped, also while a panic unwinds.
//! SIGINT and SIGTERM undo everything registered, newest first, and end the process. What a killed
//! process left behind carries its pid in the name, and [`sweep`] removes it when the next test
//! bed starts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// Every namespace and directory of ours begins with this, followed by our pid and a dash.
pub const NAME_PREFIX: &str = "weir-";

/// Where iproute2 keeps named network namespaces.
pub const NAMESPACE_DIRECTORY: &str = "/run/netns";

/// Something that outlives this process unless it is undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A child process: killed and reaped.
    Process(Pid),
    /// A mounted file system: unmounted.
    Mount(PathBuf),
    /// A directory of ours: removed with its content.
    Directory(PathBuf),
    /// A named network namespace: deleted.
    Namespace(String),
}

/// Undoes its resource when dropped.
#[derive(Debug)]
pub struct Guard {
    id: u64,
}

impl Guard {
    /// Registers what is there already. What is yet to be made: [`Guard::making`].
    #[must_use]
    pub fn new(resource: Resource) -> Self {
        watch_signals();
        registry().add(resource)
    }

    /// Makes something, and registers what `resource` says it is, so that it is undone on drop or on
    /// a signal, whichever comes first. Both is one step to a signal: it finds nothing that was made
    /// and not registered.
    ///
    /// `make` must not call this again, nor drop a guard.
    ///
    /// # Errors
    ///
    /// Those of `make`; then there is nothing to undo.
    pub fn making<T, E>(
        make: impl FnOnce() -> Result<T, E>,
        resource: impl FnOnce(&T) -> Resource,
    ) -> Result<(T, Self), E> {
        watch_signals();
        let mut registry = registry();
        let made = make()?;
        let guard = registry.add(resource(&made));
        Ok((made, guard))
    }

    /// Forgets the resource without undoing it: its owner has done that already.
    pub fn disarm(self) {
        registry().take(self.id);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let taken = registry().take(self.id);
        if let Some(resource) = taken {
            resource.undo();
        }
    }
}

impl Resource {
    /// Best effort: what is gone already needs no undoing, and there is nobody to tell.
    fn undo(&self) {
        match self {
            Self::Process(pid) => {
                let _ = kill(*pid, Signal::SIGKILL);
                let _ = waitpid(*pid, None);
            }
            Self::Mount(path) => {
                let _ = umount2(path, MntFlags::MNT_DETACH);
            }
            Self::Directory(path) => {
                let _ = fs::remove_dir_all(path);
            }
            Self::Namespace(name) => delete_namespace(name),
        }
    }
}

/// The exit code after a signal; the interactive demo sets 0, for there Ctrl-C is the normal end.
pub fn set_signal_exit_code(code: i32) {
    SIGNAL_EXIT_CODE.store(code, Ordering::Relaxed);
}

/// Removes what earlier test beds left behind whose process is gone.
pub fn sweep() {
    for name in stale_names(Path::new(NAMESPACE_DIRECTORY)) {
        kill_inhabitants(&name);
        Resource::Namespace(name).undo();
    }
    let temporary = std::env::temp_dir();
    for name in stale_names(&temporary) {
        let directory = temporary.join(name);
        Resource::Mount(directory.join("bpf")).undo();
        Resource::Directory(directory).undo();
    }
}

struct Registry {
    next_id: u64,
    entries: Vec<(u64, Resource)>,
}

impl Registry {
    fn add(&mut self, resource: Resource) -> Guard {
        let id = self.next_id;
        self.next_id += 1;
        self.entries.push((id, resource));
        Guard { id }
    }

    fn take(&mut self, id: u64) -> Option<Resource> {
        let position = self.entries.iter().position(|(entry, _)| *entry == id)?;
        Some(self.entries.remove(position).1)
    }
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    next_id: 0,
    entries: Vec::new(),
});
static SIGNAL_EXIT_CODE: AtomicI32 = AtomicI32::new(130);

/// A panic while the lock is held leaves the list intact: every change to it is one call.
fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread waits for SIGINT and SIGTERM for as long as the process lives.
fn watch_signals() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs only file descriptors");
        std::thread::spawn(move || runtime.block_on(end_on_signal()));
    });
}

async fn end_on_signal() {
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT may be handled");
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM may be handled");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // The lock is kept until the exit, so that nothing new is registered meanwhile.
    let mut registry = registry();
    while let Some((_, resource)) = registry.entries.pop() {
        resource.undo();
    }
    std::process::exit(SIGNAL_EXIT_CODE.load(Ordering::Relaxed));
}

fn stale_names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| owner(name).is_some_and(|pid| !Path::new("/proc").join(pid).exists()))
        .collect()
}

/// The pid in a name of ours, such as `weir-4711-client`.
fn owner(name: &str) -> Option<&str> {
    let (pid, rest) = name.strip_prefix(NAME_PREFIX)?.split_once('-')?;
    let ours = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()) && !rest.is_empty();
    ours.then_some(pid)
}

/// A killed test bed could not end its children: they still live in its namespaces.
fn kill_inhabitants(name: &str) {
    let Ok(namespace) = fs::metadata(Path::new(NAMESPACE_DIRECTORY).join(name)) else {
        return;
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for pid in pids {
        let Ok(own) = fs::metadata(format!("/proc/{pid}/ns/net")) else {
            continue;
        };
        if (own.dev(), own.ino()) == (namespace.dev(), namespace.ino()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// `ip netns del` without iproute2: the name is a mount point and an empty file below it.
fn delete_namespace(name: &str) {
    let path = Path::new(NAMESPACE_DIRECTORY).join(name);
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(&path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_name_is_the_pid_in_it() {
        let cases = [
            ("weir-4711-client", Some("4711")),
            ("weir-4711-2-client", Some("4711")),
            ("weir-4711-", None),
            ("weir-client", None),
            ("weir--client", None),
            ("weir-47x1-client", None),
            ("other-4711-client", None),
        ];
        for (name, expected) in cases {
            assert_eq!(owner(name), expected, "{name}");
        }
    }

    #[test]
    fn a_dropped_guard_removes_its_directory_and_a_disarmed_one_leaves_it() {
        let parent = tempfile::tempdir().unwrap();
        let (dropped, kept) = (parent.path().join("dropped"), parent.path().join("kept"));
        let make = |path: &Path| {
            let resource = |(): &()| Resource::Directory(path.to_owned());
            Guard::making(|| fs::create_dir(path), resource).unwrap().1
        };

        drop(make(&dropped));
        make(&kept).disarm();

        assert!(!dropped.exists());
        assert!(kept.exists());
    }

    #[test]
    fn what_could_not_be_made_is_not_undone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("somebody's");
        fs::create_dir(&path).unwrap();
        let made = Guard::making(
            || fs::create_dir(&path),
            |()| Resource::Directory(path.clone()),
        );
        assert_eq!(made.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        assert!(path.exists());
    }

    #[test]
    fn only_names_of_dead_processes_are_stale() {
        let directory = tempfile::tempdir().unwrap();
        // The largest pid Linux can give out is 4 194 304, so no process has this one.
        let dead = "weir-4999999-client";
        let alive = format!("weir-{}-client", std::process::id());
        for name in [dead, alive.as_str(), "somebody-else"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(stale_names(directory.path()), [dead]);
    }
}
