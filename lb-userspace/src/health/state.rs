//! The decision: what a row of probe outcomes says about a backend. Pure.
//!
//! A failure may be the backend's or our own: an interface down, a route gone, a dead switch beside
//! us. It is *witnessed* when another backend of the VIP has answered meanwhile. Failures alone make
//! a backend look down; witnessed failures *confirm* it.

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
    /// Witnessed failures in a row.
    witnessed: u16,
    /// Whether so many were witnessed that the backend itself must be down.
    confirmed: bool,
    /// Whether it was ever healthy: if not, one witness is enough.
    was_up: bool,
}

/// A backend's health is known for the first time, has changed, or is certain now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new state.
    pub healthy: bool,
    /// Whether that is certain: of a backend that looks down, whether others answered meanwhile.
    pub confirmed: bool,
    /// What decided it, and how long the old state had lasted.
    pub reason: String,
}

impl State {
    /// Nothing known yet. A healthy backend falls after `fall` failures in a row, and rises again
    /// after `rise` successes in a row; 0 means 1.
    pub fn new(fall: u16, rise: u16) -> Self {
        Self {
            fall: fall.max(1),
            rise: rise.max(1),
            healthy: None,
            since: None,
            against: 0,
            witnessed: 0,
            confirmed: false,
            was_up: false,
        }
    }

    /// `None` until the first outcome.
    pub fn healthy(&self) -> Option<bool> {
        self.healthy
    }

    /// Takes in how a probe ended at `now`, and of a failure whether it was witnessed. The first
    /// outcome decides alone, so that a start or a new backend does not wait for `rise` rounds.
    pub fn observe(
        &mut self,
        outcome: &Outcome,
        witnessed: bool,
        now: Instant,
    ) -> Option<Transition> {
        let success = outcome.is_ok();
        self.witnessed = match (success, witnessed) {
            (false, true) => self.witnessed.saturating_add(1),
            _ => 0,
        };
        let needed = match self.healthy {
            Some(healthy) if healthy == success => {
                self.against = 0;
                return self.confirm(outcome, now);
            }
            Some(true) => self.fall,
            Some(false) => self.rise,
            None => 1,
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.confirmed = success || self.witnessed >= needed;
        let reason = self.reason(outcome, now);
        self.against = 0;
        self.healthy = Some(success);
        self.was_up |= success;
        self.since = Some(now);
        Some(Transition {
            healthy: success,
            confirmed: self.confirmed,
            reason,
        })
    }

    /// A backend that looks down may turn out to be.
    fn confirm(&mut self, outcome: &Outcome, now: Instant) -> Option<Transition> {
        let needed = if self.was_up { self.fall } else { 1 };
        if self.confirmed || self.witnessed < needed {
            return None;
        }
        self.confirmed = true;
        self.against = self.witnessed;
        let reason = self.reason(outcome, now);
        self.against = 0;
        Some(Transition {
            healthy: false,
            confirmed: true,
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
        if outcome.is_err() && !self.confirmed {
            reason.push_str("; no other backend answers either");
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Answer, Failure};
    use super::*;

    /// Feeds outcomes a second apart (`+` success, `-` witnessed failure, `?` another failure) and notes
    /// after each what the state reports: `U` up, `D` down, `d` perhaps down, `.` no transition.
    fn transitions(fall: u16, rise: u16, outcomes: &str) -> String {
        let mut state = State::new(fall, rise);
        let start = Instant::now();
        let observe = |(second, kind)| {
            let outcome = match kind {
                '+' => Ok(Answer::Connected),
                _ => Err(Failure::Timeout(Duration::from_millis(500))),
            };
            let at = start + Duration::from_secs(second);
            match state.observe(&outcome, kind == '-', at) {
                Some(transition) if transition.healthy => 'U',
                Some(transition) if transition.confirmed => 'D',
                Some(_) => 'd',
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
            // Nobody else answers: down, but perhaps not.
            (3, 2, "+????++", "U..d..U"),
            (1, 1, "?+?+", "dUdU"),
            // Somebody else does, from the first failure on or later.
            (3, 2, "+???---", "U..d..D"),
            (3, 2, "+-?---", "U..d.D"),
            (3, 1, "??-", "d.D"),
            (2, 1, "-?-", "D.."),
            // It comes back before so much is known.
            (3, 1, "+???--+", "U..d..U"),
            (3, 1, "+-??-+", "U..d.U"),
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

        let first = state
            .observe(&Ok(Answer::Status(204)), false, at(0))
            .unwrap();
        assert_eq!(first.reason, "HTTP status 204");
        assert_eq!(state.observe(&refused(), true, at(11)), None);
        let fallen = state.observe(&refused(), true, at(12)).unwrap();
        assert_eq!(
            fallen.reason,
            "2 failures in a row, the last: could not connect: connection refused; was healthy for 12s"
        );
        let risen = state
            .observe(&Ok(Answer::Connected), false, at(15))
            .unwrap();
        assert_eq!(risen.reason, "connection accepted; was down for 3s");
        assert_eq!(state.observe(&refused(), false, at(16)), None);
        let alone = state.observe(&refused(), false, at(17)).unwrap();
        assert_eq!(
            alone.reason,
            "2 failures in a row, the last: could not connect: connection refused; was healthy for 2s; \
             no other backend answers either"
        );
    }
}
