//! Which requests a log has a line for.

use super::field::Line;
use crate::upstream::balance::Random;

/// Which requests a log has a line for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Only requests of which one of these holds; `None`: all.
    pub only: Option<Condition>,
    /// Of those, a line for so many of 2^64 requests; `None`: for all.
    pub sample: Option<u64>,
    /// Requests that have their line whatever the sample says.
    pub always: Option<Condition>,
}

/// Holds when one of its parts does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The status lies in one of these ranges, bounds included.
    pub status: Vec<(u16, u16)>,
    /// It took longer than so many microseconds.
    pub slower_than_us: Option<u64>,
    /// It was refused by the gateway, or broke off.
    pub failed: bool,
    /// It took one of these routes.
    pub routes: Vec<Box<str>>,
}

impl Choice {
    /// Whether this request has a line.
    pub(super) fn takes(&self, line: &Line<'_>, random: &Random) -> bool {
        let of = |condition: &Condition| condition.holds(line);
        if !self.only.as_ref().is_none_or(of) {
            return false;
        }
        let Some(sample) = self.sample else {
            return true;
        };
        self.always.as_ref().is_some_and(of) || random.next() < sample
    }
}

impl Condition {
    fn holds(&self, line: &Line<'_>) -> bool {
        let in_range = |(low, high): &(u16, u16)| (*low..=*high).contains(&line.status);
        let slow = |limit| line.duration_us > limit;
        self.status.iter().any(in_range)
            || self.slower_than_us.is_some_and(slow)
            || (self.failed && line.reason.is_some())
            || self.routes.iter().any(|route| line.route == Some(route))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    #[test]
    fn a_condition_holds_when_one_of_its_parts_does() {
        let condition = Condition {
            status: vec![(500, 599), (404, 404)],
            slower_than_us: Some(1000),
            failed: true,
            routes: vec!["slow".into()],
        };
        let fine = || Line {
            status: 200,
            duration_us: 1000,
            reason: None,
            ..line()
        };
        let table = [
            (fine(), false),
            (
                Line {
                    status: 503,
                    ..fine()
                },
                true,
            ),
            (
                Line {
                    status: 404,
                    ..fine()
                },
                true,
            ),
            (
                Line {
                    status: 403,
                    ..fine()
                },
                false,
            ),
            (
                Line {
                    duration_us: 1001,
                    ..fine()
                },
                true,
            ),
            (
                Line {
                    reason: Some("client-closed"),
                    ..fine()
                },
                true,
            ),
            (
                Line {
                    route: Some("slow"),
                    ..fine()
                },
                true,
            ),
        ];
        for (line, expected) in table {
            assert_eq!(condition.holds(&line), expected, "{line:?}");
        }
        assert!(!Condition::default().holds(&fine()));
    }

    #[test]
    fn a_sample_takes_its_share_and_always_takes_all() {
        let random = Random::seeded(7);
        let choice = Choice {
            only: None,
            sample: Some(u64::MAX / 10),
            always: Some(Condition {
                status: vec![(500, 599)],
                ..Condition::default()
            }),
        };
        let fine = Line {
            status: 200,
            ..line()
        };
        let taken = (0..10_000).filter(|_| choice.takes(&fine, &random)).count();
        assert!((900..1100).contains(&taken), "{taken} of 10 000");
        let broken = Line {
            status: 502,
            ..line()
        };
        assert!((0..100).all(|_| choice.takes(&broken, &random)));
        let only = Choice {
            only: choice.always.clone(),
            ..Choice::default()
        };
        assert!(only.takes(&broken, &random) && !only.takes(&fine, &random));
        let none = Choice {
            sample: Some(0),
            ..Choice::default()
        };
        assert!((0..1000).all(|_| !none.takes(&fine, &random)));
    }
}
