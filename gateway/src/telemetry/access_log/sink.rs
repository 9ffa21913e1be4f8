//! Where lines go in the end: a file, standard output, or syslog.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::syslog::{Syslog, SyslogConfig};

/// How often a file is looked at, whether it is still the one at its path.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
    /// To a syslog server.
    Syslog(SyslogConfig),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
            Self::Syslog(config) => config.address.fmt(f),
        }
    }
}

/// Takes whole lines, on the writer's thread.
pub(super) trait Sink: Send {
    /// Writes from `at` on and moves it past what was written, also where that fails later.
    fn write(&mut self, lines: &[u8], at: &mut usize) -> io::Result<()>;

    /// Opens the target again, under whatever is at its name now.
    fn reopen(&mut self) -> io::Result<()>;

    /// Gives up what stands in a buffer from `at` on.
    fn abandon(&mut self, _at: usize) {}
}

pub(super) fn open(target: &Target) -> Box<dyn Sink> {
    match target {
        Target::Stdout => Box::new(Stdout),
        Target::File(path) => Box::new(LogFile::new(path.clone())),
        Target::Syslog(config) => Box::new(Syslog::new(config.clone())),
    }
}

struct Stdout;

impl Sink for Stdout {
    fn write(&mut self, lines: &[u8], at: &mut usize) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        push(&mut stdout, lines, at)?;
        stdout.flush()
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Like [`Write::write_all`], but says how far it came.
fn push(output: &mut impl Write, lines: &[u8], at: &mut usize) -> io::Result<()> {
    while *at < lines.len() {
        match output.write(&lines[*at..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *at += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A file that may be moved away or cut off by others at any time.
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    looked_at: Option<Instant>,
    /// A line was given up half-way: the next one must not be joined to it.
    torn: bool,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            looked_at: None,
            torn: false,
        }
    }

    /// Whether another file, or none, stands at the path by now.
    fn was_moved(&self, file: &File) -> bool {
        let id = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (std::fs::metadata(&self.path), file.metadata()) {
            (Ok(there), Ok(ours)) => id(&there) != id(&ours),
            (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

impl Sink for LogFile {
    fn write(&mut self, lines: &[u8], at: &mut usize) -> io::Result<()> {
        let due = self
            .looked_at
            .is_none_or(|last| last.elapsed() >= LOOK_EVERY);
        if due
            && self.file.as_ref().is_none_or(|file| self.was_moved(file))
            && let Err(error) = self.reopen()
        {
            if self.file.is_none() {
                return Err(error);
            }
            // The old file, moved away as it is, is better than none.
            let log = self.path.display();
            tracing::warn!(%log, %error, "the access log was moved, and cannot be opened anew");
        }
        if due {
            self.looked_at = Some(Instant::now());
        }
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if self.torn {
            file.write_all(b"\n")?;
            self.torn = false;
        }
        push(file, lines, at)
    }

    fn reopen(&mut self) -> io::Result<()> {
        // Append mode: after a copy and truncate by others, lines go to the new end.
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path);
        self.file = Some(opened?);
        Ok(())
    }

    fn abandon(&mut self, at: usize) {
        self.torn |= at > 0;
    }
}
