//! Logs from the worker to the file.

use std::path::Path;

use super::choice::Choice;
use super::field::{Line, Simple};
use super::format::Format;
use super::sink::Target;
use super::*;

pub(super) fn line<'a>() -> Line<'a> {
    Line {
        time: "2026-11-21T08:30:00.25Z".parse().unwrap(),
        request_id: b"abc",
        trace: None,
        client: [192, 0, 2, 7].into(),
        peer: "192.0.2.7:4711".parse().unwrap(),
        listener: "public",
        scheme: "http",
        subject: None,
        method: "GET",
        host: "api.example.com",
        path: "/",
        route: Some("orders"),
        service: Some("orders"),
        instance: None,
        status: 200,
        reason: None,
        duration_us: 12,
        upstream_us: None,
        retries: 0,
        hedges: 0,
        bytes_in: 0,
        bytes_out: 5,
        protocol: "HTTP/1.1",
        tls: None,
        captured: None,
    }
}

fn config(path: &Path) -> AccessLogConfig {
    AccessLogConfig {
        target: Target::File(path.to_owned()),
        format: Format::json([("status", Field::Simple(Simple::Status))], Vec::new()),
        choice: Choice::default(),
    }
}

#[test]
fn lines_of_several_workers_reach_every_log() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["a.log", "b.log"].map(|name| directory.path().join(name));
    let mut configs: Vec<_> = paths.iter().map(|path| config(path)).collect();
    configs[1].choice.only = Some(choice::Condition {
        status: vec![(500, 599)],
        ..choice::Condition::default()
    });
    let writers = Writers::open(&configs).unwrap();
    let ends = [1, 2].map(|seed| writers.worker_end(&configs, seed).unwrap());
    for end in &ends {
        end.write(&line());
        end.write(&Line {
            status: 502,
            ..line()
        });
    }
    drop(ends);
    writers.finish();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let both = "{\"status\":200}\n{\"status\":502}\n";
    assert_eq!(read(&paths[0]), both.repeat(2));
    assert_eq!(read(&paths[1]), "{\"status\":502}\n".repeat(2));
}

#[test]
fn a_writer_that_is_behind_costs_lines_not_time() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Nobody reads yet: the writer stands still in `open`.
    let configs = [config(&fifo)];
    let writers = Writers::default();
    let end = writers.worker_end(&configs, 1).unwrap();
    let shared = Arc::clone(&end.logs[0].shared);
    let dropped = || shared.counts.dropped.load(Ordering::Relaxed);
    let mut sent = 0_u64;
    while dropped() == 0 {
        end.write(&line());
        end.flush();
        sent += 1;
        assert!(sent < 1000, "the channel is bounded");
    }
    let lost = dropped();
    drop(end);
    let reader = std::thread::spawn(move || std::fs::read_to_string(fifo).unwrap());
    writers.finish();
    let read = reader.join().unwrap();
    assert_eq!(read.lines().count() as u64, sent - lost);
}

#[test]
fn a_log_that_cannot_be_opened_stops_a_start_but_not_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let configs = [config(&missing.join("access.log"))];
    let error = Writers::open(&configs).unwrap_err().to_string();
    assert!(
        error.contains("missing/access.log: No such file"),
        "{error}"
    );

    let writers = Writers::default();
    let end = writers.worker_end(&configs, 1).unwrap();
    let shared = Arc::clone(&end.logs[0].shared);
    end.write(&line());
    end.flush();
    while !shared.counts.failing.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    std::fs::create_dir(&missing).unwrap();
    while shared.counts.written.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(shared.counts.dropped.load(Ordering::Relaxed), 0);
    assert!(!shared.counts.failing.load(Ordering::Relaxed));
    drop(end);
    writers.finish();
}

#[test]
fn a_file_that_is_moved_or_cut_is_written_at_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (
        directory.path().join("access.log"),
        directory.path().join("access.log.1"),
    );
    let configs = [config(&path)];
    let writers = Writers::open(&configs).unwrap();
    let end = writers.worker_end(&configs, 1).unwrap();
    let shared = Arc::clone(&end.logs[0].shared);
    let mut total = 0;
    let mut put = |lines: u64| {
        (0..lines).for_each(|_| end.write(&line()));
        end.flush();
        total += lines;
        while shared.counts.written.load(Ordering::Relaxed) < total {
            std::thread::yield_now();
        }
    };
    let count = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();

    put(1);
    // logrotate with `create`: move, make a new file, and say so.
    std::fs::rename(&path, &moved).unwrap();
    std::fs::write(&path, "").unwrap();
    writers.reopen();
    put(2);
    assert_eq!((count(&moved), count(&path)), (1, 2));
    assert_eq!(shared.counts.reopened.load(Ordering::Relaxed), 1);

    // logrotate with `copytruncate`: nobody is told.
    std::fs::copy(&path, &moved).unwrap();
    std::fs::write(&path, "").unwrap();
    put(3);
    assert_eq!((count(&moved), count(&path)), (2, 3));

    // The folder is gone when the log is to be opened again: lines go on into the old file.
    let old = std::fs::File::open(&path).unwrap();
    std::fs::remove_dir_all(directory.path()).unwrap();
    writers.reopen();
    put(4);
    assert_eq!(std::io::read_to_string(old).unwrap().lines().count(), 7);
    assert_eq!(shared.counts.dropped.load(Ordering::Relaxed), 0);
    drop(end);
    writers.finish();
}
