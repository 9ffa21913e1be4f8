//! What is made of answers: pure, with the time as an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Outcome;
use crate::config::{DiscoverConfig, ENDPOINTS_MAX, EndpointConfig};

/// What one service remembers of earlier answers.
#[derive(Debug)]
pub(super) struct Memory {
    refresh_min: Duration,
    refresh_max: Duration,
    hold: Duration,
    known: Vec<EndpointConfig>,
    /// Since when it has been said that there are none.
    none_since: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

/// What follows from an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Step {
    /// The instances there are by this answer, if it is believed. Who uses them sees whether that is
    /// anything new: it may have heard of them from somebody else.
    pub(super) endpoints: Option<Vec<EndpointConfig>>,
    /// Until the next question.
    pub(super) wait: Duration,
}

impl Memory {
    /// A memory of a service with these `known` instances.
    pub(super) fn new(config: &DiscoverConfig, known: Vec<EndpointConfig>) -> Self {
        Self {
            refresh_min: config.refresh_min,
            refresh_max: config.refresh_max,
            hold: config.hold,
            known: orderly(known),
            none_since: None,
            failures: 0,
        }
    }

    /// Whether the last answer was none.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// An answer came `now`.
    pub(super) fn take(&mut self, outcome: Outcome, now: Instant) -> Step {
        match outcome {
            Outcome::Found(endpoints, valid) => {
                self.failures = 0;
                self.none_since = None;
                self.now_known(orderly(endpoints), self.bounded(valid))
            }
            Outcome::Nothing(valid) => {
                self.failures = 0;
                let since = *self.none_since.get_or_insert(now);
                let held = now.saturating_duration_since(since);
                let wait = self.bounded(valid.unwrap_or(self.refresh_min));
                match self.hold.checked_sub(held) {
                    Some(left) if !left.is_zero() && !self.known.is_empty() => Step {
                        endpoints: None,
                        wait: wait.min(left).max(self.refresh_min),
                    },
                    _ => self.now_known(Vec::new(), wait),
                }
            }
            Outcome::Failed(_) => {
                self.failures = self.failures.saturating_add(1);
                let doubled = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
                Step {
                    endpoints: None,
                    wait: self.bounded(self.refresh_min.saturating_mul(doubled)),
                }
            }
        }
    }

    fn now_known(&mut self, endpoints: Vec<EndpointConfig>, wait: Duration) -> Step {
        self.known.clone_from(&endpoints);
        Step {
            endpoints: Some(endpoints),
            wait,
        }
    }

    /// How long to wait where an answer is valid for so long.
    pub(super) fn bounded(&self, wait: Duration) -> Duration {
        wait.clamp(self.refresh_min, self.refresh_max)
    }
}

/// In order of address, none twice, and not too many: name servers like to shuffle their answers,
/// which is no change.
pub(super) fn orderly(endpoints: Vec<EndpointConfig>) -> Vec<EndpointConfig> {
    let by_address: BTreeMap<_, _> = endpoints
        .into_iter()
        .rev()
        .map(|endpoint| (endpoint.address, endpoint))
        .collect();
    if by_address.len() > ENDPOINTS_MAX {
        let (found, used) = (by_address.len(), ENDPOINTS_MAX);
        tracing::warn!(
            found,
            used,
            "too many instances: those of the highest addresses are left out"
        );
    }
    by_address.into_values().take(ENDPOINTS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiscoverSource;

    const SECOND: Duration = Duration::from_secs(1);

    fn memory() -> Memory {
        let config = DiscoverConfig {
            source: DiscoverSource::File("endpoints.toml".into()),
            refresh_min: SECOND,
            refresh_max: 60 * SECOND,
            hold: 30 * SECOND,
        };
        Memory::new(&config, Vec::new())
    }

    fn endpoints(addresses: &[&str]) -> Vec<EndpointConfig> {
        let endpoint = |text: &&str| EndpointConfig::new(text.parse().unwrap());
        addresses.iter().map(endpoint).collect()
    }

    fn found(addresses: &[&str], seconds: u32) -> Outcome {
        Outcome::Found(endpoints(addresses), seconds * SECOND)
    }

    #[test]
    fn answers_are_believed_as_far_as_they_are_worth() {
        let failed = || Outcome::Failed("no answer".to_owned());
        let (one, two) = ("10.0.0.1:80", "10.0.0.2:80");
        // Seconds since the start, what is said, what is believed, seconds until the next question.
        let table: [(u32, Outcome, Option<&[&str]>, u32); 14] = [
            (0, failed(), None, 1),
            (1, found(&[two, one], 20), Some(&[one, two]), 20),
            (21, found(&[one, two, one], 0), Some(&[one, two]), 1),
            (22, found(&[one], 3600), Some(&[one]), 60),
            (82, failed(), None, 1),
            (83, failed(), None, 2),
            (85, failed(), None, 4),
            (200, found(&[one], 5), Some(&[one]), 5),
            (205, Outcome::Nothing(None), None, 1),
            (206, found(&[one], 5), Some(&[one]), 5),
            (300, Outcome::Nothing(Some(10 * SECOND)), None, 10),
            (310, failed(), None, 1),
            (329, Outcome::Nothing(Some(10 * SECOND)), None, 1),
            (330, Outcome::Nothing(Some(10 * SECOND)), Some(&[]), 10),
        ];
        let (mut memory, start) = (memory(), Instant::now());
        for (second, outcome, endpoints, wait) in table {
            let step = memory.take(outcome, start + second * SECOND);
            assert_eq!(
                step.endpoints,
                endpoints.map(self::endpoints),
                "after {second} s"
            );
            assert_eq!(step.wait, wait * SECOND, "after {second} s");
        }
    }

    #[test]
    fn nobody_waits_longer_than_the_longest_refresh() {
        let (mut memory, now) = (memory(), Instant::now());
        let waits = (0..100).map(|_| memory.take(Outcome::Failed(String::new()), now).wait);
        assert_eq!(waits.max(), Some(60 * SECOND));
    }

    #[test]
    fn there_are_never_too_many() {
        let address =
            |n: usize| EndpointConfig::new(([10, 0, (n / 256) as u8, n as u8], 80).into());
        let many: Vec<_> = (0..=ENDPOINTS_MAX).map(address).collect();
        let step = memory().take(Outcome::Found(many, SECOND), Instant::now());
        assert_eq!(step.endpoints.unwrap().len(), ENDPOINTS_MAX);
    }
}
