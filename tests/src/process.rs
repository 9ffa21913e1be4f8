//! A program running inside a host: ended and reaped on drop, with its last words kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cleanup::{Guard, Resource};
use crate::output::say;
use crate::wait;

/// How many lines of a log are shown upon failure.
const LOG_TAIL_LINES: usize = 30;

/// A running program.
#[derive(Debug)]
pub struct Process {
    label: String,
    child: Child,
    log: PathBuf,
    /// Taken when the child has been reaped: its pid may then belong to somebody else.
    guard: Option<Guard>,
}

impl Process {
    /// Takes charge of the child that `spawn` starts, whose output goes to the file `log`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(
        label: &str,
        spawn: impl FnOnce() -> io::Result<Child>,
        log: PathBuf,
    ) -> io::Result<Self> {
        let (child, guard) = Guard::making(spawn, |child| Resource::Process(pid_of(child)))?;
        Ok(Self {
            label: label.to_owned(),
            child,
            log,
            guard: Some(guard),
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with everything the program has printed.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines the program has printed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(
            &fs::read_to_string(&self.log).unwrap_or_default(),
            LOG_TAIL_LINES,
        )
    }

    /// Whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        if self.guard.is_some() && matches!(self.child.try_wait(), Ok(None)) {
            return true;
        }
        self.reaped();
        false
    }

    /// Waits until `ready` holds a value, and fails early when the program ends instead.
    ///
    /// # Errors
    ///
    /// With the program's last words, when it ends or `limit` passes.
    pub fn wait_ready<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let mut ended = false;
        let outcome = wait::until(what, limit, || {
            ended = !self.is_running();
            if ended { Some(None) } else { ready().map(Some) }
        });
        match outcome {
            Ok(Some(value)) => Ok(value),
            Ok(None) => bail!("{} ended before {what}:\n{}", self.label, self.log_tail()),
            Err(error) => bail!("{}: {error}:\n{}", self.label, self.log_tail()),
        }
    }

    /// Sends SIGKILL, as a crash would, and reaps the program.
    ///
    /// # Errors
    ///
    /// When the program has ended before.
    pub fn crash(&mut self) -> Result<()> {
        if !self.is_running() {
            bail!("{} had ended by itself:\n{}", self.label, self.log_tail());
        }
        self.child.kill()?;
        self.child.wait()?;
        self.reaped();
        Ok(())
    }

    /// Sends SIGTERM and waits for the program to end by itself.
    ///
    /// # Errors
    ///
    /// When it is still running after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.guard.is_some() {
            kill(pid_of(&self.child), Signal::SIGTERM)?;
        }
        let what = format!("{} to end after SIGTERM", self.label);
        let status = wait::until(&what, limit, || self.child.try_wait().ok().flatten())?;
        self.reaped();
        Ok(status)
    }

    fn reaped(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.guard.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.reaped();
        }
        if std::thread::panicking() {
            say(&format!(
                "--- last lines of {}:\n{}",
                self.label,
                self.log_tail()
            ));
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("Linux has fewer than 2^22 pids"))
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn process(script: &str, directory: &Path) -> Process {
        let log = directory.join("log");
        let file = fs::File::create(&log).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Process::start("sh", || command.spawn(), log).unwrap()
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn a_program_that_ends_early_fails_the_wait_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = process("echo cannot bind; exit 1", directory.path());
        let error = process
            .wait_ready("the port", LIMIT, || None::<()>)
            .unwrap_err();
        assert_eq!(error.to_string(), "sh ended before the port:\ncannot bind");
        assert!(process.crash().is_err());
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let process = process("exec sleep 1000", directory.path());
        let entry = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(entry.exists());
        drop(process);
        assert!(!entry.exists());
    }

    #[test]
    fn termination_gives_the_exit_status() {
        let directory = tempfile::tempdir().unwrap();
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut process = process(script, directory.path());
        let log = process.log().to_owned();
        let said = || {
            fs::read_to_string(&log)
                .unwrap()
                .contains("ready")
                .then_some(())
        };
        process.wait_ready("the first line", LIMIT, said).unwrap();
        assert_eq!(process.terminate(LIMIT).unwrap().code(), Some(7));
        assert!(!process.is_running());
    }
}
