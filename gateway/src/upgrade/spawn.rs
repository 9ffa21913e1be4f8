//! Starting the new process from the old one.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::take;

/// How this process was started, and with it the next one.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The binary by the path it was started by: a new version stands there when this one has
    /// been replaced, by rename or by turning a symbolic link.
    path: PathBuf,
    /// The configuration file.
    config: PathBuf,
}

/// A process that was started to take over.
pub(crate) struct Spawned {
    child: Child,
}

impl Program {
    /// The program of this process, serving by the configuration file at `config`.
    pub(crate) fn running(config: &Path) -> io::Result<Self> {
        let name = env::args_os().next().unwrap_or_default();
        let here = env::current_dir()?;
        let path = located(&name, &here, env::var_os("PATH"));
        Ok(Self {
            path: path.map_or_else(env::current_exe, Ok)?,
            config: config.to_owned(),
        })
    }

    /// Starts it, with a connection to this process.
    pub(crate) fn spawn(&self) -> anyhow::Result<(Spawned, UnixStream)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let child = Command::new(&self.path)
            .args(["run", "--take-over", take::STDIN, "--config"])
            .arg(&self.config)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn();
        let child = child.with_context(|| format!("cannot start {}", self.path.display()))?;
        ours.set_nonblocking(true)?;
        Ok((Spawned { child }, UnixStream::from_std(ours)?))
    }
}

impl Spawned {
    /// Ends a process that could not take over, and waits for its end.
    pub(crate) async fn end(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }
}

/// Where the shell found a program that was started as `name`.
fn located(name: &OsString, here: &Path, search: Option<OsString>) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 || path.is_absolute() {
        return Some(here.join(path));
    }
    let folders = search?;
    let mut candidates = env::split_paths(&folders).map(|folder| here.join(folder).join(path));
    candidates.find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_where_the_shell_found_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("weir-gateway");
        std::fs::write(&file, "").unwrap();
        let here = Path::new("/here");
        let found = |name: &str, search: Option<&Path>| {
            located(&name.into(), here, search.map(|path| path.into()))
        };
        assert_eq!(found("/bin/x", None), Some("/bin/x".into()));
        assert_eq!(found("target/x", None), Some("/here/target/x".into()));
        assert_eq!(found("weir-gateway", Some(folder.path())), Some(file));
        assert_eq!(found("other", Some(folder.path())), None);
        assert_eq!(found("weir-gateway", None), None);
    }
}
