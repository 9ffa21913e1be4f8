//! The thread that writes one log: it takes full buffers over a bounded channel, and waits for a
//! target that fails without letting a request wait for it.
//!
//! When a target fails, its writer holds on to what it has and tries again, for [`HOLD`] in all;
//! meanwhile the channel fills, and what finds it full is lost and counted. After that the writer
//! loses what comes, and looks every [`RETRY`] whether the target takes lines again. An outage is
//! said once, and so is its end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::sink::{self, Sink, Target};

/// Buffers on their way to a writer.
const BUFFERS_MAX: usize = 64;
/// Empty buffers kept for the workers.
const SPARE_MAX: usize = 16;
/// How long lines are held for a target that fails.
const HOLD: Duration = Duration::from_secs(10);
/// Between attempts to write to a target that fails.
const RETRY: Duration = Duration::from_millis(500);

/// Lines on their way.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// What workers and writer of one log share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) counts: Counts,
    spare: Mutex<Vec<Vec<u8>>>,
    /// The target is to be opened again.
    reopen: AtomicBool,
    /// The process ends: nothing is held any more.
    ending: AtomicBool,
}

/// What became of the lines of one log.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) written: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// Attempts to write or to open that failed.
    pub(super) failures: AtomicU64,
    pub(super) reopened: AtomicU64,
    /// Whether the target fails at present.
    pub(super) failing: AtomicBool,
}

impl Shared {
    fn new(target: Target) -> Self {
        Self {
            target,
            counts: Counts::default(),
            spare: Mutex::default(),
            reopen: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        }
    }

    /// Room for lines.
    pub(super) fn spare(&self) -> Option<Vec<u8>> {
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            bytes.clear();
            spare.push(bytes);
        }
    }
}

/// The thread of one log.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) sender: SyncSender<Buffer>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts a thread for a target. With `at_once` the target is opened before, and an error of
    /// that is returned; otherwise the thread opens it, and tries until it succeeds.
    pub(super) fn start(target: Target, at_once: bool) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(target));
        let (sender, receiver) = sync_channel(BUFFERS_MAX);
        let (of_thread, mut sink) = (Arc::clone(&shared), sink::open(&shared.target));
        if at_once {
            sink.reopen()?;
        }
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(&receiver, &mut *sink, &of_thread))?;
        Ok(Self {
            shared,
            sender,
            thread,
        })
    }

    /// Whether a worker writes to it.
    pub(super) fn is_used(&self) -> bool {
        // One is the thread's, one is this one.
        Arc::strong_count(&self.shared) > 2
    }

    /// Opens the target again before the next line.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // Wakes the writer. A full channel means that it is awake.
        let _ = self.sender.try_send(Buffer::default());
    }

    /// Waits until everything handed over is written or lost. Workers' ends must be gone.
    pub(super) fn finish(self) {
        self.shared.ending.store(true, Ordering::Release);
        drop(self.sender);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!(log = %self.shared.target, "the access log writer panicked");
        }
    }
}

fn write_all(buffers: &Receiver<Buffer>, sink: &mut dyn Sink, shared: &Shared) {
    let mut outage = Outage::default();
    loop {
        // A writer in need of its target asks again even if there is nothing to write.
        let buffer = match buffers.recv_timeout(if outage.since.is_some() {
            RETRY
        } else {
            Duration::MAX
        }) {
            Ok(buffer) => buffer,
            Err(RecvTimeoutError::Timeout) => Buffer::default(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if shared.reopen.swap(false, Ordering::Acquire) {
            reopen(sink, shared);
        }
        deliver(&buffer, sink, shared, &mut outage);
        if buffer.bytes.capacity() > 0 {
            shared.give_back(buffer.bytes);
        }
    }
}

fn reopen(sink: &mut dyn Sink, shared: &Shared) {
    match sink.reopen() {
        Ok(()) => {
            shared.counts.reopened.fetch_add(1, Ordering::Relaxed);
            tracing::info!(log = %shared.target, "access log opened again");
        }
        Err(error) => {
            shared.counts.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(log = %shared.target, %error, "cannot open the access log again; \
                lines go where they went before, where that is possible");
        }
    }
}

/// A target that does not take lines.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    tried: Option<Instant>,
    lost: u64,
}

fn deliver(buffer: &Buffer, sink: &mut dyn Sink, shared: &Shared, outage: &mut Outage) {
    let mut at = 0;
    loop {
        let overdue = outage.since.is_some_and(|since| since.elapsed() >= HOLD);
        let early = outage.tried.is_some_and(|tried| tried.elapsed() < RETRY);
        let ending = shared.ending.load(Ordering::Acquire);
        if !early {
            let before = at;
            match sink.write(&buffer.bytes, &mut at) {
                Ok(()) => {
                    let bytes = (at - before) as u64;
                    outage.ended(shared);
                    shared.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
                    // What went out at once was counted when it was written down.
                    let lines = match before {
                        0 => buffer.lines,
                        _ => lines(&buffer.bytes[before..at]),
                    };
                    shared.counts.written.fetch_add(lines, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    let written = lines(&buffer.bytes[before..at]);
                    shared.counts.written.fetch_add(written, Ordering::Relaxed);
                    outage.begun(shared, &error);
                }
            }
        }
        if overdue || ending || buffer.lines == 0 {
            let lost = lines(&buffer.bytes[at..]);
            outage.lost += lost;
            shared.counts.dropped.fetch_add(lost, Ordering::Relaxed);
            sink.abandon(at);
            return;
        }
        std::thread::park_timeout(RETRY);
    }
}

impl Outage {
    fn begun(&mut self, shared: &Shared, error: &std::io::Error) {
        self.tried = Some(Instant::now());
        shared.counts.failures.fetch_add(1, Ordering::Relaxed);
        // Once per outage: a full disk must not fill the other log too.
        if self.since.is_none() {
            self.since = self.tried;
            shared.counts.failing.store(true, Ordering::Relaxed);
            tracing::error!(log = %shared.target, %error, "cannot write the access log; \
                trying on, lines will be lost");
        }
    }

    fn ended(&mut self, shared: &Shared) {
        if self.since.take().is_some() {
            shared.counts.failing.store(false, Ordering::Relaxed);
            let lost = std::mem::take(&mut self.lost);
            tracing::info!(log = %shared.target, lost, "the access log can be written again");
        }
        self.tried = None;
    }
}

/// A line ends with a line feed; one that was begun counts where it ends.
fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Takes what fits, then fails.
    struct Disk {
        content: Vec<u8>,
        room: usize,
        abandoned: Vec<usize>,
    }

    impl Sink for Disk {
        fn write(&mut self, lines: &[u8], at: &mut usize) -> io::Result<()> {
            let fits = (lines.len() - *at).min(self.room - self.content.len());
            self.content.extend_from_slice(&lines[*at..*at + fits]);
            *at += fits;
            if *at < lines.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn reopen(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn abandon(&mut self, at: usize) {
            self.abandoned.push(at);
        }
    }

    fn disk(room: usize) -> Disk {
        Disk {
            content: Vec::new(),
            room,
            abandoned: Vec::new(),
        }
    }

    fn buffer(text: &str) -> Buffer {
        Buffer {
            bytes: text.into(),
            lines: lines(text.as_bytes()),
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_once_it_was_held_long_enough() {
        let shared = Shared::new(Target::Stdout);
        let (mut disk, mut outage) = (disk(6), Outage::default());
        // As if it had failed for long.
        outage.since = Instant::now().checked_sub(HOLD);
        deliver(
            &buffer("one\ntwo\nthree\n"),
            &mut disk,
            &shared,
            &mut outage,
        );
        assert_eq!(disk.content, b"one\ntw");
        assert_eq!(disk.abandoned, [6]);
        let counts = &shared.counts;
        assert_eq!(counts.written.load(Ordering::Relaxed), 1);
        assert_eq!(counts.dropped.load(Ordering::Relaxed), 2);
        deliver(&buffer("four\n"), &mut disk, &shared, &mut outage);
        assert_eq!(
            counts.failures.load(Ordering::Relaxed),
            1,
            "not asked again at once"
        );
        assert_eq!(counts.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_target_that_comes_back_gets_what_was_held() {
        let shared = Arc::new(Shared::new(Target::Stdout));
        let (mut disk, mut outage) = (disk(100), Outage::default());
        outage.since = Some(Instant::now());
        outage.lost = 7;
        shared.counts.failing.store(true, Ordering::Relaxed);
        deliver(&buffer("one\ntwo\n"), &mut disk, &shared, &mut outage);
        assert_eq!(disk.content, b"one\ntwo\n");
        assert!(outage.since.is_none() && outage.lost == 0);
        assert!(!shared.counts.failing.load(Ordering::Relaxed));
        assert_eq!(shared.counts.dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nothing_is_held_when_the_process_ends() {
        let shared = Shared::new(Target::Stdout);
        shared.ending.store(true, Ordering::Relaxed);
        let (mut disk, mut outage) = (disk(0), Outage::default());
        deliver(&buffer("one\n"), &mut disk, &shared, &mut outage);
        assert_eq!(shared.counts.dropped.load(Ordering::Relaxed), 1);
    }
}
