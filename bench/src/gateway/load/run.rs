//! One run of a load: warm-up, window, and the answers that are still under way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;

use super::client::Client;
use super::{Bed, Came, Kind, Load, Pace, Plan};

/// Failures after which a run is given up.
const FAILURES_MAX: u64 = 20;
/// Without an answer for so long, a run is given up.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The longest sleep: edges of the window are seen with this delay at most.
const SLEEP_MAX: Duration = Duration::from_millis(2);
/// Connections that are being made at a time where each is used once.
const OPENING_MAX: usize = 64;
/// Bytes that the origin reads at once: requests are short.
const READ_BYTES: usize = 16 << 10;
/// The longest latency that is told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// What came of a run.
pub(crate) struct Outcome<S> {
    /// Answers within the window.
    pub(crate) requests: u64,
    /// From due to complete, in nanoseconds, of these answers.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) elapsed: Duration,
    /// What the edges said.
    pub(crate) before: S,
    pub(crate) after: S,
    /// Requests that were due and could not be sent by the end, for want of a free connection.
    pub(crate) unsent: usize,
    /// The connections, for whom it is about holding them.
    pub(crate) held: Held,
}

/// Open connections; they close when this is dropped.
pub(crate) struct Held(Vec<Option<Client>>);

impl Held {
    pub(crate) fn count(&self) -> usize {
        self.0.iter().flatten().count()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    WarmUp,
    Window,
    Drain,
}

pub(super) struct Run<'a> {
    bed: &'a mut Bed,
    load: &'a Load,
    plan: Plan,
    phase: Phase,
    clients: Vec<Option<Client>>,
    /// Connections without a request, in an open loop.
    free: Vec<usize>,
    /// Requests that are due.
    due: VecDeque<Instant>,
    next_due: Instant,
    next_request: usize,
    /// Answers since the run began, and within the window.
    answers: u64,
    counted: u64,
    latencies: Histogram<u64>,
    failures: u64,
    last_failure: Option<anyhow::Error>,
    last_answer: Instant,
    /// Of the event at hand.
    done: Vec<Instant>,
}

impl<'a> Run<'a> {
    pub(super) fn new(bed: &'a mut Bed, load: &'a Load, plan: Plan) -> Result<Self> {
        let now = Instant::now();
        let mut run = Self {
            bed,
            load,
            plan,
            phase: Phase::WarmUp,
            clients: Vec::new(),
            free: Vec::new(),
            due: VecDeque::new(),
            next_due: now,
            next_request: 0,
            answers: 0,
            counted: 0,
            latencies: Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)?,
            failures: 0,
            last_failure: None,
            last_answer: now,
            done: Vec::new(),
        };
        let at_first = match plan.pace {
            Pace::Once => load.connections.min(OPENING_MAX),
            Pace::Closed | Pace::Rate(_) => load.connections,
        };
        for index in 0..at_first {
            run.clients.push(None);
            run.connect(index)?;
        }
        Ok(run)
    }

    pub(super) fn finish<S>(mut self, mut edge: impl FnMut() -> Result<S>) -> Result<Outcome<S>> {
        let before_all = self.bed.origin.requests();
        let warm = Instant::now() + self.plan.warm_up;
        self.until(|_, now| now >= warm)?;
        self.phase = Phase::Window;
        let (start, before) = (Instant::now(), edge()?);
        let (window, wanted) = (self.plan.window, self.load.connections as u64);
        let once = self.plan.pace == Pace::Once;
        self.until(|run, now| {
            if once {
                run.answers >= wanted
            } else {
                now >= start + window
            }
        })?;
        let (elapsed, after) = (start.elapsed(), edge()?);
        let requests = self.counted;
        self.phase = Phase::Drain;
        let unsent = std::mem::take(&mut self.due).len();
        self.until(|run, _| run.clients.iter().flatten().all(|c| c.in_flight() == 0))?;
        let arrived = self.bed.origin.requests() - before_all;
        ensure!(
            arrived == self.answers || self.failures > 0,
            "the origin has seen {arrived} requests, the clients {} answers",
            self.answers
        );
        if let Some(failure) = self.last_failure {
            let count = self.failures;
            return Err(failure.context(format!("{count} requests failed, the last one")));
        }
        Ok(Outcome {
            requests,
            latencies: self.latencies,
            elapsed,
            before,
            after,
            unsent,
            held: Held(self.clients),
        })
    }

    /// Handles events until `is_over`.
    fn until(&mut self, is_over: impl Fn(&Self, Instant) -> bool) -> Result<()> {
        loop {
            let now = Instant::now();
            self.issue(now)?;
            if is_over(self, now) {
                return Ok(());
            }
            ensure!(
                now < self.last_answer + SILENCE_MAX,
                "no answer for {SILENCE_MAX:?}; {} answers before",
                self.answers
            );
            self.events()?;
        }
    }

    fn events(&mut self) -> Result<()> {
        let sleep = if self.plan.spin {
            Duration::ZERO
        } else {
            SLEEP_MAX
        };
        let mut events = std::mem::replace(&mut self.bed.events, mio::Events::with_capacity(0));
        let polled = self.bed.poll.poll(&mut events, Some(sleep));
        if let Err(error) = polled
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error).context("waiting for events");
        }
        for event in &events {
            let token = event.token();
            let came = Came {
                something: event.is_readable() || event.is_read_closed() || event.is_error(),
                end: event.is_read_closed() || event.is_error(),
            };
            match Kind::of(token) {
                Kind::Listener => self.bed.origin.accept(self.bed.poll.registry())?,
                Kind::Origin => {
                    let Bed {
                        origin, scratch, ..
                    } = &mut *self.bed;
                    origin.ready(token, came, &mut scratch[..READ_BYTES]);
                }
                Kind::Client => self.client(Kind::index(token), came)?,
            }
        }
        self.bed.events = events;
        Ok(())
    }

    /// Something has come for a client, or can be sent.
    fn client(&mut self, index: usize, came: Came) -> Result<()> {
        let Some(Some(client)) = self.clients.get_mut(index) else {
            return Ok(());
        };
        let open = if came.something {
            client.read(&mut self.bed.scratch, came.end, &mut self.done)
        } else {
            Ok(true)
        };
        let now = Instant::now();
        let complete = !self.done.is_empty();
        for since in self.done.drain(..) {
            self.answers += 1;
            self.last_answer = now;
            if self.phase == Phase::Window {
                self.counted += 1;
                let latency = now.saturating_duration_since(since).as_nanos();
                self.latencies.saturating_record(latency as u64);
            }
        }
        match open {
            Err(error) => return self.failed(index, error),
            Ok(false) if client.in_flight() > 0 => {
                return self.failed(index, anyhow!("closed before the answer"));
            }
            Ok(false) => return self.connect(index),
            Ok(true) => {}
        }
        if complete && self.load.renew && self.load.streams.is_some() {
            // HTTP/2 has no way to ask for the end; the client goes.
            return self.connect(index);
        }
        if complete && self.plan.pace == Pace::Once && self.clients.len() < self.load.connections {
            self.clients.push(None);
            return self.connect(self.clients.len() - 1);
        }
        self.refill(index, now)
    }

    /// A new connection in place `index`, unless the run is at its end.
    fn connect(&mut self, index: usize) -> Result<()> {
        self.clients[index] = None;
        if self.phase == Phase::Drain {
            return Ok(());
        }
        let since = Instant::now();
        let client = Client::connect(self.load, self.bed.poll.registry(), index)?;
        self.clients[index] = Some(client);
        if self.plan.pace == Pace::Once {
            self.begin(index, since);
        }
        self.refill(index, since)
    }

    /// Gives a client what it may send next, and sends.
    fn refill(&mut self, index: usize, now: Instant) -> Result<()> {
        while self.may_begin(index) {
            let since = match self.plan.pace {
                Pace::Once => break,
                Pace::Closed => now,
                Pace::Rate(_) => match self.due.pop_front() {
                    Some(due) => due,
                    None => {
                        if !self.free.contains(&index) {
                            self.free.push(index);
                        }
                        break;
                    }
                },
            };
            self.begin(index, since);
        }
        let client = self.clients[index].as_mut().context("no such client")?;
        match client.flush() {
            Ok(()) => Ok(()),
            Err(error) => self.failed(index, error),
        }
    }

    fn may_begin(&self, index: usize) -> bool {
        let client = self.clients[index].as_ref();
        // One request for each connection: the next one waits for the next connection.
        let used = |client: &Client| self.load.renew && client.is_used();
        self.phase != Phase::Drain && client.is_some_and(|client| client.is_free() && !used(client))
    }

    fn begin(&mut self, index: usize, since: Instant) {
        let requests = &self.load.requests;
        let request = &requests[self.next_request % requests.len()];
        self.next_request += 1;
        if let Some(client) = &mut self.clients[index] {
            client.begin(since, request);
        }
    }

    /// Finds what is due by now, and free connections for it.
    fn issue(&mut self, now: Instant) -> Result<()> {
        let Pace::Rate(rate) = self.plan.pace else {
            return Ok(());
        };
        if self.phase == Phase::Drain {
            return Ok(());
        }
        while self.next_due <= now {
            self.due.push_back(self.next_due);
            self.next_due += Duration::from_secs_f64(1.0 / rate);
        }
        while !self.due.is_empty()
            && let Some(index) = self.free.pop()
        {
            self.refill(index, now)?;
        }
        Ok(())
    }

    fn failed(&mut self, index: usize, error: anyhow::Error) -> Result<()> {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            let count = self.failures;
            return Err(error.context(format!("{count} requests failed, the last one")));
        }
        self.last_failure = Some(error);
        self.connect(index)
    }
}
