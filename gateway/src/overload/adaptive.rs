//! A limit on requests in flight that follows what the service can do: pure, time passed in.
//!
//! A service that is given more than it can work on at a time does not finish more; it only lets
//! requests wait inside (Little's law: in flight = throughput × latency). So the limit follows the
//! ratio of the latency without load (the *baseline*) to the latency now, as TCP Vegas does for
//! packets (Brakmo and Peterson 1995) and the gradient limiters of Netflix's concurrency-limits
//! and of Envoy's adaptive concurrency filter do for requests:
//!
//! ```text
//! gradient = clamp(tolerance × baseline ÷ latency, 0.5, 1)
//! limit    = half of limit, and half of (gradient × limit + √limit)
//! ```
//!
//! `√limit` is the queue allowed inside the service: without it a limit could never grow. With `c`
//! requests worked on at a time, the limit settles near `tolerance × c + √limit`. It moves only
//! while it is in use (at least half of it in flight), or it would grow without bound at night.
//!
//! **Latency** is the median of a window, from the moment the service has the whole request to the
//! head of its answer: the client's own pace, up or down, is not in it. An answer that says "too
//! much" (503 of an instance, 504 of ours) is no latency; a window with more than a tenth of them
//! takes a tenth off the limit (AIMD, Chiu and Jain 1989).
//!
//! **The baseline** is the median of windows in which the limit was not in use, or the smallest of
//! those in which it was. Under lasting load it would never be measured again, and creep up with
//! the limit that follows from it. So after `probe_every` without a measurement the limit is cut
//! for one window to what the service can surely work on at a time, and the baseline taken anew
//! (as BBR's PROBE_RTT does, Cardwell et al. 2016). A service that has become slower altogether
//! shows at the lowest limit: there the latency *is* the baseline.

mod window;

use std::time::{Duration, Instant};

use self::window::Window;

/// The shortest window. It is longer while latencies are, so that it shows what the last change
/// did.
const WINDOW: Duration = Duration::from_millis(100);
/// Answers a window needs.
const WINDOW_ANSWERS_MIN: u32 = 16;
/// Signs of overload that close a window with fewer answers.
const WINDOW_OVERLOADS_MIN: u32 = 8;
/// A window that has not got its answers after this is begun anew: the first are history by then.
const WINDOW_MAX: Duration = Duration::from_secs(10);
/// After a change of the limit, the longest wait for requests of the time before it.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// A probe that has not got its answers after this is given up.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// Windows at the lowest limit with too high a latency, after which that is the baseline.
const FLOOR_WINDOWS: u32 = 5;
/// Weight of a window without load in the baseline, when it is above it.
const BASELINE_RISE: f64 = 0.2;
/// How fast the limit may fall.
const GRADIENT_MIN: f64 = 0.5;
/// Weight of a window in the limit.
const SMOOTHING: f64 = 0.5;

/// How a limit adapts.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptivePolicy {
    /// The lowest limit, at least 1.
    pub in_flight_min: u32,
    /// The limit before anything was measured.
    pub in_flight_start: u32,
    /// How many times the latency without load is accepted, 1 to 10.
    pub latency_tolerance: f64,
    /// Under lasting load, the time between measurements of the latency without.
    pub probe_every: Duration,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered after this time.
    Answered(Duration),
    /// The service had too much to do.
    Overloaded,
}

/// The limit of one service, and what it follows.
#[derive(Debug)]
pub(crate) struct Adaptive {
    policy: AdaptivePolicy,
    in_flight_max: u32,
    limit: f64,
    baseline: Option<Baseline>,
    window: Window,
    /// Nothing is counted before this.
    opens: Instant,
    probe: Option<Probe>,
    /// Windows in a row at the lowest limit with too high a latency.
    at_floor: u32,
}

#[derive(Clone, Copy, Debug)]
struct Baseline {
    /// In seconds.
    latency: f64,
    measured: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    since: Instant,
    limit: u32,
    /// The latency under load, and whether what was in flight then is gone.
    loaded: Duration,
    drained: bool,
}

impl Adaptive {
    /// A limit of at most `in_flight_max` that knows nothing yet, or what `previous` knew.
    pub(crate) fn new(
        policy: AdaptivePolicy,
        in_flight_max: u32,
        now: Instant,
        previous: Option<&Self>,
    ) -> Self {
        let start = f64::from(policy.in_flight_start);
        let mut new = Self {
            limit: previous.map_or(start, |known| known.limit),
            baseline: previous.and_then(|known| known.baseline),
            policy,
            in_flight_max,
            window: Window::new(),
            opens: now,
            probe: None,
            at_floor: 0,
        };
        new.limit = new.bounded(new.limit);
        new
    }

    /// The limit in force.
    pub(crate) fn limit(&self) -> u32 {
        match &self.probe {
            Some(probe) => probe.limit,
            None => self.limit as u32,
        }
    }

    /// The latency without load, as far as it is known.
    pub(crate) fn baseline(&self) -> Option<Duration> {
        self.baseline
            .map(|baseline| Duration::from_secs_f64(baseline.latency))
    }

    /// Takes what became of a request, with the number in flight at its end, itself included.
    /// The limit may have changed afterwards.
    pub(crate) fn observe(&mut self, outcome: Outcome, in_flight: u32, now: Instant) {
        if self.probe_is_draining(in_flight, now) || now < self.opens {
            return;
        }
        self.window.in_flight(in_flight);
        match outcome {
            Outcome::Answered(latency) => self.window.answered(latency),
            Outcome::Overloaded => self.window.overloaded(),
        }
        let age = now - self.opens;
        let enough = self.window.answers() >= WINDOW_ANSWERS_MIN
            || self.window.overloads() >= WINDOW_OVERLOADS_MIN;
        if enough && (age >= WINDOW || self.probe.is_some()) {
            self.close(now);
        } else if age >= WINDOW_MAX {
            self.begin(now);
        }
        if self
            .probe
            .is_some_and(|probe| now - probe.since >= PROBE_MAX)
        {
            self.probe = None;
            self.measured(now);
            self.begin(now);
        }
    }

    /// Whether a probe still waits for the load before it to be gone.
    fn probe_is_draining(&mut self, in_flight: u32, now: Instant) -> bool {
        let Some(probe) = self.probe.as_mut().filter(|probe| !probe.drained) else {
            return false;
        };
        if in_flight <= probe.limit {
            probe.drained = true;
            // Those in flight now still waited behind others.
            self.opens = now + probe.loaded.min(SETTLE_MAX);
            self.window.clear();
        }
        now - probe.since < PROBE_MAX
    }

    /// The window is full: what follows from it.
    fn close(&mut self, now: Instant) {
        let overloaded =
            self.window.overloads() * 10 > self.window.answers() + self.window.overloads();
        let median = self.window.median();
        let limited = f64::from(self.window.in_flight_max()) * 2.0 >= self.limit;
        let settle = median.unwrap_or(WINDOW).min(SETTLE_MAX);
        if overloaded {
            self.probe = None;
            self.limit = self.bounded(self.limit * 0.9);
        } else if let Some(median) = median {
            let latency = median.as_secs_f64();
            if self.probe.take().is_some() {
                self.rebase(latency, now);
            } else if limited {
                self.follow(latency, now);
                self.probe_if_due(median, now);
            } else {
                self.at_rest(latency, now);
            }
        }
        // What was in flight before the change says nothing about it.
        self.begin(now + settle);
    }

    /// A window in which the limit was in use.
    fn follow(&mut self, latency: f64, now: Instant) {
        let known = self.baseline.filter(|known| known.latency < latency);
        let Some(baseline) = known else {
            self.rebase(latency, now);
            return self.step(1.0);
        };
        let gradient = self.policy.latency_tolerance * baseline.latency / latency;
        let at_floor = self.limit as u32 <= self.policy.in_flight_min && gradient < 1.0;
        self.at_floor = if at_floor { self.at_floor + 1 } else { 0 };
        if self.at_floor >= FLOOR_WINDOWS {
            self.rebase(latency, now);
        } else {
            self.step(gradient.clamp(GRADIENT_MIN, 1.0));
        }
    }

    /// A window in which the limit was not in use: the service shows its own pace.
    fn at_rest(&mut self, latency: f64, now: Instant) {
        let known = self.baseline.map_or(latency, |known| known.latency);
        let rise = (latency - known) * BASELINE_RISE;
        self.rebase(latency.min(known + rise), now);
    }

    fn step(&mut self, gradient: f64) {
        let wanted = gradient * self.limit + self.limit.sqrt();
        self.limit = self.bounded(self.limit + (wanted - self.limit) * SMOOTHING);
    }

    fn probe_if_due(&mut self, loaded: Duration, now: Instant) {
        let due = self
            .baseline
            .is_some_and(|known| now - known.measured >= self.policy.probe_every);
        if !due {
            return;
        }
        // Well below `limit / tolerance`, which the service works on at a time by the model above.
        let quiet = (self.limit / (self.policy.latency_tolerance * 1.5)) as u32;
        self.probe = Some(Probe {
            since: now,
            limit: quiet.max(self.policy.in_flight_min),
            loaded,
            drained: false,
        });
    }

    fn rebase(&mut self, latency: f64, now: Instant) {
        self.at_floor = 0;
        self.baseline = Some(Baseline {
            latency,
            measured: now,
        });
    }

    /// The baseline counts as measured, though it was not.
    fn measured(&mut self, now: Instant) {
        if let Some(baseline) = &mut self.baseline {
            baseline.measured = now;
        }
    }

    fn begin(&mut self, opens: Instant) {
        self.window.clear();
        self.opens = opens;
    }

    fn bounded(&self, limit: f64) -> f64 {
        let (min, max) = (self.policy.in_flight_min, self.in_flight_max);
        limit.clamp(f64::from(min.min(max)), f64::from(max))
    }
}

#[cfg(test)]
mod tests;
