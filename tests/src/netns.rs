//! Network namespaces: making them, and working inside them.
//!
//! The network namespace belongs to a thread, so work inside one is done by a thread of its own,
//! which ends with the work. A process started by such a thread lives in the namespace too. This
//! avoids `ip netns exec`, which gives the process a fresh `/sys` and so hides pinned BPF maps.

use std::fs::File;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::cleanup::{Guard, NAMESPACE_DIRECTORY, Resource};
use crate::command;

/// A named network namespace, deleted on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    _guard: Guard,
}

impl Namespace {
    /// Makes a namespace that `ip netns` lists under `name`.
    ///
    /// # Errors
    ///
    /// Without root, without iproute2, or when the name is taken.
    pub fn new(name: &str) -> Result<Self> {
        let (_, guard) = Guard::making(
            || command::run("ip", &["netns", "add", name]),
            |_| Resource::Namespace(name.to_owned()),
        )?;
        let path = Path::new(NAMESPACE_DIRECTORY).join(name);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self {
            name: name.to_owned(),
            file,
            _guard: guard,
        })
    }

    /// The name `ip netns` knows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does `work` on a thread inside the namespace and waits for it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_thread_into(&self.file);
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts `work` on a thread inside the namespace.
    ///
    /// # Errors
    ///
    /// When no file descriptor is left.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let file = self
            .file
            .try_clone()
            .context("a second handle of the namespace")?;
        Ok(std::thread::spawn(move || {
            move_thread_into(&file);
            work()
        }))
    }
}

fn move_thread_into(namespace: &File) {
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("whoever made the namespace may enter it");
}
