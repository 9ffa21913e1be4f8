//! The access log: one JSON object per request, on one line.
//!
//! A worker formats its lines into a buffer of its own and hands full buffers to one writer thread
//! over a bounded channel. A disk that cannot keep up costs log lines, which are counted, and
//! never a request.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::AccessLogConfig;

/// Buffers on their way to the writer.
const BUFFERS_MAX: usize = 256;
/// A buffer of this many bytes is handed on.
const BUFFER_BYTES: usize = 16 * 1024;
/// A buffer is handed on after this time at the latest.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// One line, in the order of its fields.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When the request head was complete, RFC 3339, UTC.
    #[serde(serialize_with = "rfc3339")]
    pub time: jiff::Timestamp,
    /// Ties the line to the response and to the instance's own log.
    pub request_id: &'a str,
    /// The client, after trusted proxies were looked through.
    pub client: IpAddr,
    /// Who sent the request: the token's `sub`, or the API key's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    /// The request method.
    pub method: &'a str,
    /// Without port, in lower case; empty if the request named none.
    pub host: &'a str,
    /// Normalised, without the query.
    pub path: &'a str,
    /// The route's name, if one matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The service's name, if a route matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'a str>,
    /// The instance that answered, or was tried last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<&'a str>,
    /// The status sent; 499 if the client left before there was one.
    pub status: u16,
    /// Why the request was refused or broke off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// From the request head to the last byte of the response, in microseconds.
    pub duration_us: u64,
    /// Until the instance's response head, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_us: Option<u64>,
    /// Attempts after the first.
    pub retries: u32,
    /// Request body bytes.
    pub bytes_in: u64,
    /// Response body bytes.
    pub bytes_out: u64,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// The TLS version, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'a str>,
}

fn rfc3339<S: Serializer>(time: &jiff::Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

/// One worker's end of the log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    buffer: RefCell<Buffer>,
    writer: SyncSender<Buffer>,
    lines_dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
}

impl AccessLog {
    /// Adds a line; hands the buffer on when it is full.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let mut buffer = self.buffer.borrow_mut();
        serde_json::to_writer(&mut buffer.bytes, line)
            .expect("a line of texts and numbers is always JSON");
        buffer.bytes.push(b'\n');
        buffer.lines += 1;
        let full = buffer.bytes.len() >= BUFFER_BYTES;
        drop(buffer);
        if full {
            self.flush();
        }
    }

    /// Hands what there is to the writer, or drops and counts it if the writer is too far behind.
    pub(crate) fn flush(&self) {
        let buffer = std::mem::take(&mut *self.buffer.borrow_mut());
        if buffer.lines == 0 {
            return;
        }
        if let Err(TrySendError::Full(buffer) | TrySendError::Disconnected(buffer)) =
            self.writer.try_send(buffer)
        {
            self.lines_dropped
                .fetch_add(buffer.lines, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The writer thread, from which workers get their ends.
#[derive(Debug)]
pub(crate) struct Writer {
    sender: SyncSender<Buffer>,
    lines_dropped: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Opens the log and starts its thread; `None` if it is off.
    pub(crate) fn start(
        config: &AccessLogConfig,
        lines_dropped: Arc<AtomicU64>,
    ) -> io::Result<Option<Self>> {
        let output: Box<dyn Write + Send> = match config {
            AccessLogConfig::Off => return Ok(None),
            AccessLogConfig::Stdout => Box::new(io::stdout()),
            AccessLogConfig::File(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        let (sender, receiver) = sync_channel(BUFFERS_MAX);
        let lost = Arc::clone(&lines_dropped);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(&receiver, output, &lost))?;
        Ok(Some(Self {
            sender,
            lines_dropped,
            thread,
        }))
    }

    /// An end for one worker.
    pub(crate) fn worker_end(&self) -> AccessLog {
        AccessLog {
            buffer: RefCell::default(),
            writer: self.sender.clone(),
            lines_dropped: Arc::clone(&self.lines_dropped),
        }
    }

    /// Waits until everything handed over is written. The workers' ends must be gone.
    pub(crate) fn finish(self) {
        drop(self.sender);
        if self.thread.join().is_err() {
            tracing::error!("the access log writer panicked");
        }
    }
}

fn write_all(buffers: &Receiver<Buffer>, mut output: impl Write, lines_dropped: &AtomicU64) {
    let mut failing = false;
    for buffer in buffers {
        let written = output
            .write_all(&buffer.bytes)
            .and_then(|()| output.flush());
        match written {
            Ok(()) => failing = false,
            Err(error) => {
                lines_dropped.fetch_add(buffer.lines, Ordering::Relaxed);
                // Once per outage: a full disk must not fill the other log too.
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "cannot write the access log; lines are being lost");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            time: "2026-11-21T08:30:00.25Z".parse().unwrap(),
            request_id: "abc",
            client: [192, 0, 2, 7].into(),
            subject: Some("partner-7"),
            method: "GET",
            host: "api.example.com",
            path: "/a\"b",
            route: Some("orders"),
            service: Some("orders"),
            instance: None,
            status: 404,
            reason: Some("route-not-found"),
            duration_us: 12,
            upstream_us: None,
            retries: 0,
            bytes_in: 0,
            bytes_out: 5,
            protocol: "HTTP/1.1",
            tls: Some("TLSv1.3"),
        }
    }

    #[test]
    fn a_line_is_one_json_object() {
        let text = serde_json::to_string(&line()).unwrap();
        let expected = concat!(
            r#"{"time":"2026-11-21T08:30:00.250000Z","request_id":"abc","client":"192.0.2.7","#,
            r#""subject":"partner-7","#,
            r#""method":"GET","host":"api.example.com","path":"/a\"b","route":"orders","#,
            r#""service":"orders","status":404,"reason":"route-not-found","duration_us":12,"#,
            r#""retries":0,"bytes_in":0,"bytes_out":5,"protocol":"HTTP/1.1","tls":"TLSv1.3"}"#,
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_writer_that_is_behind_costs_lines_not_time() {
        let (writer, buffers) = sync_channel(1);
        let lines_dropped = Arc::new(AtomicU64::new(0));
        let log = AccessLog {
            buffer: RefCell::default(),
            writer,
            lines_dropped: Arc::clone(&lines_dropped),
        };
        for _ in 0..3 {
            log.write(&line());
            log.write(&line());
            log.flush();
        }
        assert_eq!(
            lines_dropped.load(Ordering::Relaxed),
            4,
            "one buffer of two lines fits"
        );
        drop(log);
        let kept: Vec<Buffer> = buffers.into_iter().collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(
            kept[0].bytes.iter().filter(|byte| **byte == b'\n').count(),
            2
        );
    }

    #[test]
    fn a_failing_disk_is_counted() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = sync_channel(2);
        sender
            .send(Buffer {
                bytes: b"x\n".to_vec(),
                lines: 1,
            })
            .unwrap();
        drop(sender);
        let lines_dropped = AtomicU64::new(0);
        write_all(&receiver, Full, &lines_dropped);
        assert_eq!(lines_dropped.load(Ordering::Relaxed), 1);
    }
}
