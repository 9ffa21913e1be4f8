//! Access logs: a line for each request, in JSON or by a template, to files, standard output or
//! syslog.
//!
//! A worker formats its lines into a buffer of its own and hands full buffers to the thread that
//! writes the log, over a bounded channel. A disk that cannot keep up costs log lines, which are
//! counted, and never a request. Files are opened again on SIGUSR1, on the admin command, and
//! when another file stands at the path, so that every way of rotating logs works.

pub mod choice;
mod clock;
mod escape;
pub mod field;
pub mod format;
mod query;
pub mod sink;
pub mod syslog;
mod writer;

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use self::clock::Clock;
use self::field::{Captured, Field, Line};
use self::writer::{Buffer, Shared, Writer};
use super::metrics::{Collect, Page};
use crate::config::AccessLogConfig;
use crate::upstream::balance::Random;

/// A buffer of this many bytes is handed on.
const BUFFER_BYTES: usize = 32 * 1024;
/// Room of a buffer: one more long line fits without a new allocation.
const BUFFER_ROOM: usize = BUFFER_BYTES + 4 * 1024;
/// A buffer is handed on after this time at the latest.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// One worker's end of all logs.
#[derive(Debug)]
pub(crate) struct AccessLog {
    logs: Box<[Log]>,
    wanted: Wanted,
    clock: Clock,
    random: Random,
    scratch: RefCell<Vec<u8>>,
}

/// One worker's end of one log.
#[derive(Debug)]
struct Log {
    config: AccessLogConfig,
    buffer: RefCell<Buffer>,
    shared: Arc<Shared>,
    sender: SyncSender<Buffer>,
}

/// What has to be read of requests while they are under way.
#[derive(Debug, Default)]
struct Wanted {
    query: bool,
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
}

impl Wanted {
    fn add(&mut self, field: &Field) {
        self.query |= field.shows_query();
        let (list, name) = match field {
            Field::Simple(_) => return,
            Field::Request(name) => (&mut self.request, name),
            Field::Response(name) => (&mut self.response, name),
        };
        if !list.contains(name) {
            list.push(name.clone());
        }
    }

    fn read(wanted: &[HeaderName], headers: &HeaderMap, into: &mut Vec<(HeaderName, HeaderValue)>) {
        for name in wanted {
            if let Some(value) = headers.get(name) {
                into.push((name.clone(), value.clone()));
            }
        }
    }
}

impl AccessLog {
    /// Reads what the logs want to know of a request, as it arrived.
    pub(crate) fn capture(&self, head: &http::request::Parts) -> Option<Box<Captured>> {
        let wanted = &self.wanted;
        if !wanted.query && wanted.request.is_empty() && wanted.response.is_empty() {
            return None;
        }
        let mut captured = Box::<Captured>::default();
        if wanted.query {
            captured.query = head.uri.query().map(str::to_owned);
        }
        Wanted::read(&wanted.request, &head.headers, &mut captured.request);
        Some(captured)
    }

    /// Reads what the logs want to know of a response.
    pub(crate) fn capture_response(&self, headers: &HeaderMap, captured: &mut Captured) {
        Wanted::read(&self.wanted.response, headers, &mut captured.response);
    }

    /// Writes a request to every log that has a line for it.
    pub(crate) fn write(&self, line: &Line<'_>) {
        for log in &self.logs {
            if log.config.choice.takes(line, &self.random) {
                log.write(line, &self.clock, &mut self.scratch.borrow_mut());
            }
        }
    }

    /// Hands what there is to the writers.
    pub(crate) fn flush(&self) {
        self.logs.iter().for_each(Log::flush);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Log {
    fn write(&self, line: &Line<'_>, clock: &Clock, scratch: &mut Vec<u8>) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.bytes.capacity() == 0 {
            let spare = self.shared.spare();
            buffer.bytes = spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_ROOM));
        }
        let format = &self.config.format;
        format.write(&mut buffer.bytes, line, clock, scratch);
        buffer.lines += 1;
        let full = buffer.bytes.len() >= BUFFER_BYTES;
        drop(buffer);
        if full {
            self.flush();
        }
    }

    /// Hands the buffer on, or drops and counts it if the writer is too far behind.
    fn flush(&self) {
        let buffer = std::mem::take(&mut *self.buffer.borrow_mut());
        if buffer.lines == 0 {
            return;
        }
        if let Err(TrySendError::Full(buffer) | TrySendError::Disconnected(buffer)) =
            self.sender.try_send(buffer)
        {
            let dropped = &self.shared.counts.dropped;
            dropped.fetch_add(buffer.lines, Ordering::Relaxed);
        }
    }
}

/// The writers of the process. Logs that go to the same place share one, also those of
/// configurations before and after a reload.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    writers: Mutex<Vec<Writer>>,
}

impl Writers {
    /// Starts the writers of these logs.
    ///
    /// # Errors
    ///
    /// Fails if a log cannot be opened: at the start nobody has to guess where the lines are.
    pub(crate) fn open(configs: &[AccessLogConfig]) -> anyhow::Result<Self> {
        let writers = Self::default();
        for config in configs {
            let mut open = writers.lock();
            if !open
                .iter()
                .any(|writer| writer.shared.target == config.target)
            {
                let writer = Writer::start(config.target.clone(), true).map_err(|error| {
                    anyhow::anyhow!("cannot open the access log {}: {error}", config.target)
                })?;
                open.push(writer);
            }
        }
        Ok(writers)
    }

    /// A worker's end of these logs; `None`: there are none. What is not open yet is opened by its
    /// writer, which tries until it succeeds.
    pub(crate) fn worker_end(&self, configs: &[AccessLogConfig], seed: u64) -> Option<AccessLog> {
        let mut wanted = Wanted::default();
        let logs = configs.iter().filter_map(|config| {
            let (shared, sender) = self.writer(config)?;
            let fields = config.format.fields();
            fields.into_iter().for_each(|field| wanted.add(field));
            Some(Log {
                config: config.clone(),
                buffer: RefCell::default(),
                shared,
                sender,
            })
        });
        let logs: Box<[Log]> = logs.collect();
        (!logs.is_empty()).then(|| AccessLog {
            logs,
            wanted,
            clock: Clock::default(),
            random: Random::seeded(seed),
            scratch: RefCell::default(),
        })
    }

    fn writer(&self, config: &AccessLogConfig) -> Option<(Arc<Shared>, SyncSender<Buffer>)> {
        let mut writers = self.lock();
        let known = writers
            .iter()
            .position(|writer| writer.shared.target == config.target);
        let place = match known {
            Some(place) => place,
            None => match Writer::start(config.target.clone(), false) {
                Ok(writer) => {
                    writers.push(writer);
                    writers.len() - 1
                }
                Err(error) => {
                    tracing::error!(log = %config.target, %error, "no thread for the access log");
                    return None;
                }
            },
        };
        let writer = &writers[place];
        Some((Arc::clone(&writer.shared), writer.sender.clone()))
    }

    /// Ends the writers that no worker writes to any more.
    pub(crate) fn prune(&self) {
        self.lock().retain(Writer::is_used);
    }

    /// Opens every log again: files were moved away. Returns their number.
    pub(crate) fn reopen(&self) -> usize {
        let writers = self.lock();
        writers.iter().for_each(Writer::reopen);
        writers.len()
    }

    /// Waits until everything handed over is written. The workers' ends must be gone.
    pub(crate) fn finish(&self) {
        let writers = std::mem::take(&mut *self.lock());
        writers.into_iter().for_each(Writer::finish);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Writer>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collect for Writers {
    fn collect(&self, page: &mut Page<'_>) {
        let shared: Vec<Arc<Shared>> = {
            let writers = self.lock();
            writers
                .iter()
                .map(|writer| Arc::clone(&writer.shared))
                .collect()
        };
        type Count = fn(&writer::Counts) -> u64;
        let counters: [(&str, &str, Count); 5] = [
            ("access_log_lines", "Log lines written.", |counts| {
                counts.written.load(Ordering::Relaxed)
            }),
            (
                "access_log_bytes",
                "Bytes of log lines written.",
                |counts| counts.bytes.load(Ordering::Relaxed),
            ),
            (
                "access_log_lines_dropped",
                "Log lines that were lost.",
                |counts| counts.dropped.load(Ordering::Relaxed),
            ),
            (
                "access_log_failures",
                "Attempts to write or open that failed.",
                |counts| counts.failures.load(Ordering::Relaxed),
            ),
            (
                "access_log_reopened",
                "How often the log was opened again.",
                |counts| counts.reopened.load(Ordering::Relaxed),
            ),
        ];
        for (name, help, of) in counters {
            page.counters(name, help, |family| {
                for one in &shared {
                    family.count(&[("log", one.target.to_string())], of(&one.counts));
                }
            });
        }
        let help = "1 while the log cannot be written.";
        page.gauges("access_log_failing", help, |family| {
            for one in &shared {
                let failing = one.counts.failing.load(Ordering::Relaxed);
                let labels = [("log", one.target.to_string())];
                family.level(&labels, f64::from(u8::from(failing)));
            }
        });
    }
}

#[cfg(test)]
mod tests;
