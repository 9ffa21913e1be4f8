//! What happened to whom, and how long they waited.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Group;

/// A connection that has ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The server it was connected to.
    pub server: String,
    /// Why, with the number of bytes that it had said until then.
    pub why: String,
}

/// What has happened since the last report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Answers of tested connections.
    pub exchanges: usize,
    /// The longest that a tested connection waited for an answer, by server; those that still wait
    /// are included.
    pub waits: BTreeMap<String, Duration>,
    /// The same of control connections.
    pub control_waits: BTreeMap<String, Duration>,
    /// Tested connections that broke.
    pub broken: Vec<Broken>,
    /// Live tested connections by server.
    pub alive: BTreeMap<String, usize>,
    /// Those of them that have had no answer, by server.
    pub silent: BTreeMap<String, usize>,
}

impl Report {
    /// The longest wait of tested connections to servers that are not in `except`.
    #[must_use]
    pub fn longest_wait(&self, except: &[&str]) -> Duration {
        longest(self.waits.iter(), except)
    }

    /// The longest wait of control connections to servers that are not in `except`.
    #[must_use]
    pub fn control_longest(&self, except: &[&str]) -> Duration {
        longest(self.control_waits.iter(), except)
    }

    /// How much longer a tested connection waited than any control connection, for servers that are
    /// not in `except`. Each server is a process of its own, which the machine may keep waiting while
    /// others run, so there should be control connections to all of them.
    #[must_use]
    pub fn longest_stall(&self, except: &[&str]) -> Duration {
        let wait = self.longest_wait(except);
        wait.saturating_sub(self.control_longest(except))
    }

    /// Both, this one before `later`.
    #[must_use]
    pub fn followed_by(mut self, later: Self) -> Self {
        self.exchanges += later.exchanges;
        self.broken.extend(later.broken);
        for (waits, later) in [
            (&mut self.waits, later.waits),
            (&mut self.control_waits, later.control_waits),
        ] {
            for (server, wait) in later {
                let longest = waits.entry(server).or_default();
                *longest = wait.max(*longest);
            }
        }
        Self {
            alive: later.alive,
            silent: later.silent,
            ..self
        }
    }

    fn waited(&mut self, line: &Line, wait: Duration) {
        let waits = match line.group {
            Group::Tested => &mut self.waits,
            Group::Control => &mut self.control_waits,
        };
        let longest = waits.entry(line.server.clone()).or_default();
        *longest = wait.max(*longest);
    }
}

/// The longest of these waits, by server, but for those to servers in `except`.
fn longest<'r>(
    waits: impl Iterator<Item = (&'r String, &'r Duration)>,
    except: &[&str],
) -> Duration {
    let counted = waits.filter(|(server, _)| !except.contains(&server.as_str()));
    counted.map(|(_, wait)| *wait).max().unwrap_or_default()
}

/// One line for each connection there ever was.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lines: Vec<Line>,
    since: Report,
    count_from: Option<Instant>,
}

#[derive(Debug)]
struct Line {
    group: Group,
    server: String,
    alive: bool,
    /// When the message was sent whose answer is awaited.
    asked: Option<Instant>,
    /// Answers since the last report.
    answers: usize,
}

impl Ledger {
    /// Enters a connection to `server`, and returns its index.
    pub(super) fn joined(&mut self, group: Group, server: String) -> usize {
        self.lines.push(Line {
            group,
            server,
            alive: true,
            asked: None,
            answers: 0,
        });
        self.lines.len() - 1
    }

    /// See [`super::Crowd::count_from`].
    pub(super) fn count_from(&mut self, moment: Instant) {
        self.count_from = Some(moment);
    }

    pub(super) fn asked(&mut self, index: usize, now: Instant) {
        self.lines[index].asked = Some(now);
    }

    pub(super) fn answered(&mut self, index: usize, now: Instant) {
        let line = &self.lines[index];
        if let Some(wait) = self.wait(line, now) {
            self.since.waited(line, wait);
        }
        let line = &mut self.lines[index];
        line.asked = None;
        line.answers += 1;
        if line.group == Group::Tested {
            self.since.exchanges += 1;
        }
    }

    pub(super) fn broke(&mut self, index: usize, said: u64, error: &std::io::Error) {
        let line = &mut self.lines[index];
        line.alive = false;
        line.asked = None;
        if line.group == Group::Tested {
            self.since.broken.push(Broken {
                server: line.server.clone(),
                why: format!("{error} (after {said} bytes)"),
            });
        }
    }

    /// The report up to `now`, from where the next one goes on.
    pub(super) fn report(&mut self, now: Instant) -> Report {
        let report = self.peek(now);
        self.since = Report::default();
        for line in &mut self.lines {
            line.answers = 0;
        }
        report
    }

    /// The report up to `now`.
    pub(super) fn peek(&self, now: Instant) -> Report {
        let mut report = self.since.clone();
        for line in &self.lines {
            if let Some(wait) = self.wait(line, now) {
                report.waited(line, wait);
            }
            if line.alive && line.group == Group::Tested {
                *report.alive.entry(line.server.clone()).or_default() += 1;
                if line.answers == 0 {
                    *report.silent.entry(line.server.clone()).or_default() += 1;
                }
            }
        }
        report
    }

    /// How long the connection has waited at `now`, if it waits.
    fn wait(&self, line: &Line, now: Instant) -> Option<Duration> {
        let asked = line.asked?;
        let from = self.count_from.map_or(asked, |moment| moment.max(asked));
        Some(now.saturating_duration_since(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger with a connection to `one` and a control connection, and a clock in milliseconds.
    fn ledger() -> (Ledger, impl Fn(u64) -> Instant) {
        let mut ledger = Ledger::default();
        ledger.joined(Group::Tested, "one".to_owned());
        ledger.joined(Group::Control, "two".to_owned());
        let start = Instant::now();
        (ledger, move |ms| start + Duration::from_millis(ms))
    }

    #[test]
    fn answers_are_counted_and_the_longest_wait_is_kept() {
        let (mut ledger, at) = ledger();
        for (asked, answered) in [(0, 5), (10, 40), (50, 51)] {
            ledger.asked(0, at(asked));
            ledger.answered(0, at(answered));
        }
        ledger.asked(1, at(0));
        ledger.answered(1, at(7));
        let report = ledger.report(at(60));
        assert_eq!(report.exchanges, 3);
        assert_eq!(report.longest_wait(&[]), Duration::from_millis(30));
        assert_eq!(report.longest_wait(&["one"]), Duration::ZERO);
        assert_eq!(report.control_longest(&[]), Duration::from_millis(7));
        assert_eq!(report.control_longest(&["two"]), Duration::ZERO);
        assert_eq!(report.alive, BTreeMap::from([("one".to_owned(), 1)]));
        assert!(report.silent.is_empty() && report.broken.is_empty());
        // The next report begins anew.
        let report = ledger.report(at(70));
        assert_eq!(
            (report.exchanges, report.longest_wait(&[])),
            (0, Duration::ZERO)
        );
        assert_eq!(report.silent, BTreeMap::from([("one".to_owned(), 1)]));
    }

    #[test]
    fn a_stall_is_what_goes_beyond_all_controls() {
        let (mut ledger, at) = ledger();
        ledger.joined(Group::Tested, "two".to_owned());
        for (index, answered) in [(0, 30), (1, 70), (2, 90)] {
            ledger.asked(index, at(0));
            ledger.answered(index, at(answered));
        }
        let report = ledger.report(at(100));
        // The control connection to `two` waited 70 ms, which excuses as much of anybody's wait.
        assert_eq!(report.longest_stall(&[]), Duration::from_millis(20));
        assert_eq!(report.longest_stall(&["one"]), Duration::from_millis(20));
        assert_eq!(report.longest_stall(&["two"]), Duration::from_millis(30));
        let both = report.followed_by(Report::default());
        assert_eq!(both.longest_stall(&["one"]), Duration::from_millis(20));
    }

    #[test]
    fn whoever_still_waits_is_seen() {
        let (mut ledger, at) = ledger();
        ledger.asked(0, at(0));
        assert_eq!(
            ledger.report(at(900)).longest_wait(&[]),
            Duration::from_millis(900)
        );
        assert_eq!(
            ledger.report(at(1500)).longest_wait(&[]),
            Duration::from_millis(1500)
        );
    }

    #[test]
    fn a_peek_changes_nothing_and_two_reports_make_one() {
        let (mut ledger, at) = ledger();
        ledger.asked(0, at(0));
        ledger.answered(0, at(8));
        let peek = ledger.peek(at(10));
        let first = ledger.report(at(10));
        assert_eq!(peek, first);
        ledger.asked(0, at(20));
        ledger.answered(0, at(21));
        ledger.asked(0, at(30));
        let error = std::io::ErrorKind::ConnectionReset.into();
        ledger.broke(0, 2, &error);
        let both = first.followed_by(ledger.report(at(40)));
        assert_eq!(both.exchanges, 2);
        assert_eq!(both.longest_wait(&[]), Duration::from_millis(8));
        assert_eq!((both.broken.len(), both.alive.len()), (1, 0));
    }

    #[test]
    fn waiting_before_a_moment_does_not_count() {
        let (mut ledger, at) = ledger();
        ledger.asked(0, at(0));
        ledger.count_from(at(100));
        ledger.answered(0, at(130));
        ledger.asked(0, at(200));
        ledger.answered(0, at(220));
        assert_eq!(
            ledger.report(at(300)).longest_wait(&[]),
            Duration::from_millis(30)
        );
    }

    #[test]
    fn a_broken_connection_is_told_once_and_waits_no_more() {
        let (mut ledger, at) = ledger();
        ledger.asked(0, at(0));
        let error = std::io::ErrorKind::ConnectionReset.into();
        ledger.broke(0, 77, &error);
        let report = ledger.report(at(5000));
        assert_eq!(
            report.broken,
            [Broken {
                server: "one".to_owned(),
                why: "connection reset (after 77 bytes)".to_owned(),
            }]
        );
        assert_eq!(report.longest_wait(&[]), Duration::ZERO);
        assert!(report.alive.is_empty() && report.silent.is_empty());
        assert!(ledger.report(at(6000)).broken.is_empty());
    }
}
