//! When to have the kernel ask for a neighbour again. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::neigh::{Neighbour, State};

/// Interface and address of a neighbour.
type Key = (u32, IpAddr);

/// First pause after a question that was not answered; doubles each time. The kernel itself asks three
/// times, a second apart, before it gives up.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Longest pause: a host that comes back is found after this time at the latest, or earlier when it
/// speaks first.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often a stale neighbour is confirmed.
const CONFIRM_EVERY: Duration = Duration::from_secs(15);

/// The questions asked so far.
#[derive(Debug, Default)]
pub(super) struct Kicks(BTreeMap<Key, Kick>);

#[derive(Debug)]
struct Kick {
    pause: Duration,
    next: Instant,
}

impl Kicks {
    /// The neighbours to ask for at `now`. Forgets those that are not needed, or in order.
    pub(super) fn due(
        &mut self,
        needed: &BTreeSet<Key>,
        known: &BTreeMap<Key, Neighbour>,
        now: Instant,
    ) -> Vec<Key> {
        self.0.retain(|key, _| needed.contains(key));
        let mut due = Vec::new();
        for key in needed {
            let state = known
                .get(key)
                .map_or(State::Missing, |neighbour| neighbour.state);
            match state {
                State::Valid => {
                    self.0.remove(key);
                }
                State::Probing => {}
                State::Stale | State::Missing => {
                    if self.ask(*key, state, now) {
                        due.push(*key);
                    }
                }
            }
        }
        due
    }

    /// When [`due`](Self::due) has something to say again, if nothing changes before.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|kick| kick.next).min()
    }

    fn ask(&mut self, key: Key, state: State, now: Instant) -> bool {
        let kick = self.0.entry(key).or_insert(Kick {
            pause: PAUSE_FIRST,
            next: now,
        });
        if now < kick.next {
            return false;
        }
        if state == State::Stale {
            kick.pause = PAUSE_FIRST;
            kick.next = now + CONFIRM_EVERY;
        } else {
            kick.next = now + kick.pause;
            kick.pause = (kick.pause * 2).min(PAUSE_MAX);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        (3, [10, 0, 0, 1].into())
    }

    /// Seconds at which a neighbour in `state` is asked for, looked at each second of two minutes.
    fn asked(state: Option<State>) -> Vec<u64> {
        let start = Instant::now();
        let known = state
            .map(|state| (key(), Neighbour { mac: None, state }))
            .into_iter()
            .collect();
        let needed = BTreeSet::from([key()]);
        let mut kicks = Kicks::default();
        (0..120)
            .filter(|&s| {
                !kicks
                    .due(&needed, &known, start + Duration::from_secs(s))
                    .is_empty()
            })
            .collect()
    }

    #[test]
    fn missing_neighbours_are_asked_for_ever_more_rarely() {
        let expected = [0, 1, 3, 7, 15, 31, 61, 91];
        assert_eq!(asked(None), expected);
        assert_eq!(asked(Some(State::Missing)), expected);
    }

    #[test]
    fn stale_neighbours_are_confirmed_and_the_others_left_alone() {
        assert_eq!(asked(Some(State::Stale)), [0, 15, 30, 45, 60, 75, 90, 105]);
        assert_eq!(asked(Some(State::Valid)), [0; 0]);
        assert_eq!(asked(Some(State::Probing)), [0; 0]);
    }

    #[test]
    fn an_answer_or_lack_of_need_starts_anew() {
        let now = Instant::now();
        let needed = BTreeSet::from([key()]);
        let nobody = BTreeMap::new();
        let mut kicks = Kicks::default();
        assert_eq!(kicks.due(&needed, &nobody, now), [key()]);
        assert_eq!(kicks.next(), Some(now + PAUSE_FIRST));
        assert!(kicks.due(&needed, &nobody, now).is_empty());
        assert!(kicks.due(&BTreeSet::new(), &nobody, now).is_empty());
        assert_eq!(kicks.next(), None);
        assert_eq!(kicks.due(&needed, &nobody, now), [key()]);
    }
}
