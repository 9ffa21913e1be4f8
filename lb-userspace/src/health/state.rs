//! The decision: what a row of probe outcomes says about a backend. Pure.

use std::time::Instant;

use super::Outcome;

/// What is known about one backend.
#[derive(Clone, Debug)]
pub struct State {
    fall: u16,
    rise: u16,
    /// `None` until the first outcome.
    healthy: Option<bool>,
    /// When `healthy` last changed.
    since: Option<Instant>,
    /// Outcomes in a row that speak against `healthy`.
    against: u16,
}

/// A backend's health is known for the first time, or has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new state.
    pub healthy: bool,
    /// What decided it, and how long the old state had lasted.
    pub reason: String,
}

impl State {
    /// Nothing known yet. A healthy backend falls after `fall` failures in a row, and rises again
    /// after `rise` successes in a row; 0 means 1.
    pub fn new(fall: u16, rise: u16) -> Self {
        Self {
            fall,
            rise,
            healthy: None,
            since: None,
            against: 0,
        }
    }

    /// `None` until the first outcome.
    pub fn healthy(&self) -> Option<bool> {
        self.healthy
    }

    /// Takes in how a probe ended at `now`. The first outcome decides alone, so that a start or a
    /// new backend does not wait for `rise` rounds.
    pub fn observe(&mut self, outcome: &Outcome, now: Instant) -> Option<Transition> {
        let success = outcome.is_ok();
        let needed = match self.healthy {
            Some(healthy) if healthy == success => {
                self.against = 0;
                return None;
            }
            Some(true) => self.fall,
            Some(false) => self.rise,
            None => 1,
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        let reason = self.reason(outcome, now);
        self.against = 0;
        self.healthy = Some(success);
        self.since = Some(now);
        Some(Transition {
            healthy: success,
            reason,
        })
    }

    /// For example `3 failures in a row, the last: no answer within 500ms; was healthy for 12s`.
    fn reason(&self, outcome: &Outcome, now: Instant) -> String {
        let (seen, kind) = match outcome {
            Ok(answer) => (answer.to_string(), "successes"),
            Err(failure) => (failure.to_string(), "failures"),
        };
        let mut reason = match self.against {
            1 => seen,
            row => format!("{row} {kind} in a row, the last: {seen}"),
        };
        if let (Some(healthy), Some(since)) = (self.healthy, self.since) {
            let was = if healthy { "healthy" } else { "down" };
            let lasted = now.saturating_duration_since(since).as_secs();
            reason.push_str(&format!("; was {was} for {lasted}s"));
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Answer, Failure};
    use super::*;

    /// Feeds outcomes a second apart (`+` success, `-` failure) and notes after each what the state
    /// reports: `U` up, `D` down, `.` no transition.
    fn transitions(fall: u16, rise: u16, outcomes: &str) -> String {
        let mut state = State::new(fall, rise);
        let start = Instant::now();
        let observe = |(second, outcome)| {
            let outcome = match outcome {
                '+' => Ok(Answer::Connected),
                _ => Err(Failure::Timeout(Duration::from_millis(500))),
            };
            match state.observe(&outcome, start + Duration::from_secs(second)) {
                Some(transition) if transition.healthy => 'U',
                Some(_) => 'D',
                None => '.',
            }
        };
        (0..).zip(outcomes.chars()).map(observe).collect()
    }

    #[test]
    fn rise_and_fall() {
        let table = [
            // fall, rise, outcomes, transitions
            (3, 2, "+", "U"),
            (3, 2, "-", "D"),
            (3, 2, "+++", "U.."),
            (3, 2, "+--+--+---", "U........D"),
            (3, 2, "-+-+-++", "D.....U"),
            (3, 2, "-++---++", "D.U..D.U"),
            (1, 1, "+-+-", "UDUD"),
            (0, 0, "+-+-", "UDUD"),
            (1, 3, "-++-+++", "D.....U"),
            (65_535, 1, "+-----", "U....."),
        ];
        for (fall, rise, outcomes, expected) in table {
            assert_eq!(
                transitions(fall, rise, outcomes),
                expected,
                "{fall} {rise} {outcomes}"
            );
        }
    }

    #[test]
    fn the_reason_tells_the_row_and_how_long_it_lasted() {
        let mut state = State::new(2, 1);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let refused = || {
            Err(Failure::Connect(
                std::io::ErrorKind::ConnectionRefused.into(),
            ))
        };

        let first = state.observe(&Ok(Answer::Status(204)), at(0)).unwrap();
        assert_eq!(first.reason, "HTTP status 204");
        assert_eq!(state.observe(&refused(), at(11)), None);
        let fallen = state.observe(&refused(), at(12)).unwrap();
        assert_eq!(
            fallen.reason,
            "2 failures in a row, the last: could not connect: connection refused; was healthy for 12s"
        );
        let risen = state.observe(&Ok(Answer::Connected), at(15)).unwrap();
        assert_eq!(risen.reason, "connection accepted; was down for 3s");
    }
}
