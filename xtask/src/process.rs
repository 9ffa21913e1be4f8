//! Child processes: a captured step with progress, a streamed one, a quick question, a hand-over.
use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{output, workspace};

/// Lines of a failed step's output that are shown; the rest is in its log.
const TAIL_LINES_MAX: usize = 40;
/// How often a line on a terminal is brought up to date.
const REDRAW_EVERY: Duration = Duration::from_millis(250);
/// How often a step that nobody watches on a terminal says that it is still at work.
const REMIND_EVERY: Duration = Duration::from_secs(20);

/// Runs `command` to its end as one step.
///
/// Its output goes to a log under `target/xtask/`. While it runs, one line with the elapsed time
/// and the newest line of output is kept up to date (or repeated, where there is no terminal).
/// If it fails, the end of its output is printed; if not, all of it is returned.
pub(crate) fn run(title: &str, command: Command) -> Result<String> {
    run_with_log(title, command, &workspace::target_dir().join("xtask"))
}

fn run_with_log(title: &str, mut command: Command, logs: &Path) -> Result<String> {
    std::fs::create_dir_all(logs).with_context(|| logs.display().to_string())?;
    let log_path = logs.join(log_name(title));
    let mut log = File::create(&log_path).with_context(|| log_path.display().to_string())?;
    command.stdin(Stdio::null());
    let mut progress = Progress::begin(title);
    let mut said = String::new();
    let status = follow(command, |event| {
        let Event::Line(line) = event else {
            progress.tick();
            return;
        };
        let _log_is_best_effort = writeln!(log, "{line}");
        said.push_str(line);
        said.push('\n');
        line.clone_into(&mut progress.newest);
        progress.tick();
    })?;
    progress.end(status.success());
    if status.success() {
        return Ok(said);
    }
    let lines: Vec<&str> = said.lines().collect();
    for line in &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..] {
        output::say(&format!("    {line}"));
    }
    bail!(
        "{title}: {status}; all of its output is in {}",
        log_path.display()
    );
}

/// Runs `command` and passes on its output (both streams, in order, on standard output) as it
/// comes; `observe` sees each line too. Long silence is explained.
pub(crate) fn stream(
    title: &str,
    command: Command,
    mut observe: impl FnMut(&str),
) -> Result<ExitStatus> {
    output::say(&format!("{title} …"));
    let mut silence = Silence::new(title);
    follow(command, |event| match event {
        Event::Line(line) => {
            output::result(line);
            observe(line);
            silence.broken();
        }
        Event::Quiet => silence.explain(),
    })
}

/// Runs `command`, which shows its own progress if it has a terminal; fails if it fails.
pub(crate) fn show(title: &str, mut command: Command) -> Result<()> {
    output::say(&format!("{title} …"));
    let status = if output::is_watched() {
        command.status().with_context(|| started_what(&command))?
    } else {
        let mut silence = Silence::new(title);
        follow(command, |event| match event {
            Event::Line(line) => {
                output::say(line);
                silence.broken();
            }
            Event::Quiet => silence.explain(),
        })?
    };
    if !status.success() {
        bail!("{title}: {status}");
    }
    Ok(())
}

/// What a quick command prints on standard output. Its complaint is part of the error.
pub(crate) fn ask(mut command: Command) -> Result<String> {
    let answer = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| started_what(&command))?;
    if !answer.status.success() {
        let complaint = String::from_utf8_lossy(&answer.stderr);
        bail!(
            "{}: {}; {}",
            started_what(&command),
            answer.status,
            complaint.trim()
        );
    }
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// Becomes `command`: signals, terminal and exit code are then its own.
pub(crate) fn exec(mut command: Command) -> Result<Infallible> {
    let error = command.exec();
    Err(error).with_context(|| started_what(&command))
}

fn started_what(command: &Command) -> String {
    format!("running {}", command.get_program().to_string_lossy())
}

/// `12.3 s`, or `4 min 05 s` from two minutes on.
pub(crate) fn seconds(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        0..120 => format!("{:.1} s", elapsed.as_secs_f64()),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

enum Event<'a> {
    Line(&'a str),
    /// Nothing was printed for a while.
    Quiet,
}

/// Starts `command` with both streams in one pipe and reports its lines until the pipe closes.
fn follow(mut command: Command, mut report: impl FnMut(Event<'_>)) -> Result<ExitStatus> {
    let (reader, writer) = std::io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| started_what(&command))?;
    // The command holds our writing ends; while they live the pipe never closes.
    drop(command);
    let lines = read_lines(reader);
    loop {
        match lines.recv_timeout(REDRAW_EVERY) {
            Ok(line) => report(Event::Line(&line)),
            Err(RecvTimeoutError::Timeout) => report(Event::Quiet),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(child.wait()?)
}

fn read_lines(reader: std::io::PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|count| count > 0)
        {
            let line = String::from_utf8_lossy(&bytes)
                .trim_end_matches(['\n', '\r'])
                .to_owned();
            if sender.send(line).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    receiver
}

fn log_name(title: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    title.chars().map(plain).chain(".log".chars()).collect()
}

/// What the person who waits sees of one step.
struct Progress {
    title: String,
    newest: String,
    started: Instant,
    shown: Instant,
    watched: bool,
}

impl Progress {
    fn begin(title: &str) -> Self {
        let now = Instant::now();
        let watched = output::is_watched();
        if !watched {
            output::say(&format!("{title} …"));
        }
        Self {
            title: title.to_owned(),
            newest: String::new(),
            started: now,
            shown: now,
            watched,
        }
    }

    fn tick(&mut self) {
        let every = if self.watched {
            REDRAW_EVERY
        } else {
            REMIND_EVERY
        };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let elapsed = seconds(self.started.elapsed());
        let line = format!("{} … {elapsed}  {}", self.title, self.newest.trim());
        let line = line.trim_end();
        if self.watched {
            output::rewrite(line)
        } else {
            output::say(line)
        }
    }

    fn end(&self, held: bool) {
        let outcome = if held { "done in" } else { "failed after" };
        let line = format!(
            "{}: {outcome} {}",
            self.title,
            seconds(self.started.elapsed())
        );
        if self.watched {
            output::rewrite("");
        }
        output::say(&line);
    }
}

/// Says, where a command is silent for long, that it is still at work.
struct Silence<'a> {
    title: &'a str,
    started: Instant,
    since: Instant,
}

impl<'a> Silence<'a> {
    fn new(title: &'a str) -> Self {
        let now = Instant::now();
        Self {
            title,
            started: now,
            since: now,
        }
    }

    fn broken(&mut self) {
        self.since = Instant::now();
    }

    fn explain(&mut self) {
        if self.since.elapsed() >= REMIND_EVERY {
            output::say(&format!(
                "{} … {}",
                self.title,
                seconds(self.started.elapsed())
            ));
            self.broken();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failed_step_names_itself_and_keeps_its_output() {
        let logs = tempfile::tempdir().unwrap();
        let script = shell("echo seen; echo too >&2; exit 3");
        let error = run_with_log("The failing step", script, logs.path())
            .expect_err("the script exits with 3")
            .to_string();
        assert!(
            error.starts_with("The failing step: exit status: 3;"),
            "{error}"
        );
        let log = std::fs::read_to_string(logs.path().join("the-failing-step.log")).unwrap();
        assert_eq!(log, "seen\ntoo\n");
    }

    #[test]
    fn a_step_that_works_returns_its_output() {
        let logs = tempfile::tempdir().unwrap();
        let said = run_with_log("step", shell("echo a; echo b"), logs.path()).unwrap();
        assert_eq!(said, "a\nb\n");
    }

    #[test]
    fn both_streams_are_observed_in_order() {
        let mut lines = Vec::new();
        let status = follow(shell("echo one; echo two >&2; printf three"), |event| {
            if let Event::Line(line) = event {
                lines.push(line.to_owned());
            }
        });
        assert!(status.unwrap().success());
        assert_eq!(lines, ["one", "two", "three"]);
    }

    #[test]
    fn a_question_that_fails_repeats_the_complaint() {
        let error = ask(shell("echo because >&2; exit 1"))
            .expect_err("exits with 1")
            .to_string();
        assert!(error.contains("because"), "{error}");
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(seconds(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(245)), "4 min 05 s");
    }
}
