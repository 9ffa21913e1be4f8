//! Requests shared out over services by weight: canaries, and moving from one to another.

use http::HeaderMap;

use super::changes::HeaderChanges;
use super::rewrite::Rewrite;
use super::wanted::Conditions;
use crate::filter::key::RequestKey;

/// The services a route sends requests to.
#[derive(Clone, Debug)]
pub struct Split {
    /// In order of name, at least one, not all of weight 0.
    targets: Box<[Target]>,
    weight_sum: u64,
    /// Whether any target has conditions.
    pinned: bool,
    /// Requests with the same key go to the same target; those without one are drawn.
    by: Option<RequestKey>,
}

/// One of the services of a route.
#[derive(Clone, Debug)]
pub struct Target {
    /// Index into `Config::services`.
    pub service: usize,
    /// Its share, of the sum of all weights.
    pub weight: u32,
    /// A request that meets any of these goes here, whatever the weights.
    pub when: Box<[Conditions]>,
    /// In place of the route's.
    pub rewrite: Option<Rewrite>,
    /// After the route's.
    pub request_headers: Option<HeaderChanges>,
    /// After the route's.
    pub response_headers: Option<HeaderChanges>,
}

impl Split {
    /// Shares requests out over `targets`, at least one, not all of weight 0.
    pub fn new(targets: Vec<Target>, by: Option<RequestKey>) -> Self {
        Self {
            weight_sum: targets.iter().map(|target| u64::from(target.weight)).sum(),
            pinned: targets.iter().any(|target| !target.when.is_empty()),
            targets: targets.into(),
            by,
        }
    }

    /// All requests to one service.
    pub fn to(service: usize) -> Self {
        let target = Target {
            service,
            weight: 1,
            when: Box::default(),
            rewrite: None,
            request_headers: None,
            response_headers: None,
        };
        Self::new(vec![target], None)
    }

    /// The services, in order of name.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// What keeps a client with its target, if anything.
    pub fn by(&self) -> Option<&RequestKey> {
        self.by.as_ref()
    }

    /// The share of a target, in percent, to two digits behind the point.
    pub fn percent(&self, target: &Target) -> f64 {
        (f64::from(target.weight) * 10_000.0 / self.weight_sum as f64).round() / 100.0
    }

    /// The target that takes a request: an index into [`targets`](Self::targets).
    ///
    /// `key` is the request's for [`by`](Self::by), `random` gives 64 random bits.
    pub fn choose(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        key: impl FnOnce(&RequestKey) -> Option<[u8; 16]>,
        random: impl FnOnce() -> u64,
    ) -> usize {
        if self.targets.len() == 1 {
            return 0;
        }
        if let Some(pinned) = self.pinned_by(headers, query) {
            return pinned;
        }
        let key = self.by.as_ref().and_then(key);
        let draw = key.map_or_else(random, |key| scatter(&key));
        // From 64 bits to a number below the sum, by multiplication: without the bias or the cost
        // of a remainder.
        let mut point = ((u128::from(draw) * u128::from(self.weight_sum)) >> 64) as u64;
        for (index, target) in self.targets.iter().enumerate() {
            match point.checked_sub(u64::from(target.weight)) {
                Some(beyond) => point = beyond,
                None => return index,
            }
        }
        0
    }

    /// The first target one of whose conditions the request meets.
    pub fn pinned_by(&self, headers: &HeaderMap, query: Option<&str>) -> Option<usize> {
        if !self.pinned {
            return None;
        }
        let meets = |one: &Conditions| one.check(headers, query).is_ok();
        self.targets
            .iter()
            .position(|target| target.when.iter().any(meets))
    }
}

/// A key as 64 bits that look random, the same in every process and on every gateway (the
/// finaliser of SplitMix64, Steele et al. 2014).
fn scatter(key: &[u8; 16]) -> u64 {
    let whole = u128::from_be_bytes(*key);
    let mut bits = whole as u64 ^ ((whole >> 64) as u64).rotate_left(32);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::super::wanted::{HeaderPredicate, Wanted};
    use super::*;
    use crate::filter::key::client_bytes;
    use crate::upstream::balance::Random;

    fn split(weights: &[u32], pinned: Option<usize>, by: Option<RequestKey>) -> Split {
        let target = |(index, weight): (usize, &u32)| {
            let mut target = Split::to(index).targets[0].clone();
            target.weight = *weight;
            if pinned == Some(index) {
                let headers = vec![HeaderPredicate {
                    name: HeaderName::from_static("x-canary"),
                    wanted: Wanted::Present(true),
                }];
                target.when = Box::new([Conditions {
                    headers,
                    ..Conditions::default()
                }]);
            }
            target
        };
        Split::new(weights.iter().enumerate().map(target).collect(), by)
    }

    fn draw(split: &Split, random: u64) -> usize {
        split.choose(&HeaderMap::new(), None, |_| None, || random)
    }

    #[test]
    fn the_draw_falls_where_the_weights_say() {
        let half = 1 << 63;
        let table: [(&[u32], u64, usize); 9] = [
            (&[1], u64::MAX, 0),
            (&[1, 1], 0, 0),
            (&[1, 1], half - 1, 0),
            (&[1, 1], half, 1),
            (&[1, 1], u64::MAX, 1),
            (&[0, 1], 0, 1),
            (&[1, 0], u64::MAX, 0),
            (&[0, 3, 0, 1, 0], half, 1),
            (&[0, 3, 0, 1, 0], u64::MAX, 3),
        ];
        for (weights, random, expected) in table {
            assert_eq!(
                draw(&split(weights, None, None), random),
                expected,
                "{weights:?} {random}"
            );
        }
    }

    /// Of 100 000 draws at 90 to 10, the binomial's standard deviation is 95.
    #[test]
    fn shares_are_those_of_the_weights() {
        let split = split(&[90, 10], None, None);
        let random = Random::seeded(7);
        let canary = (0..100_000)
            .filter(|_| draw(&split, random.next()) == 1)
            .count();
        assert!((9_500..10_500).contains(&canary), "{canary}");
        assert!((split.percent(&split.targets()[1]) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn conditions_come_before_weights_even_before_none() {
        let split = split(&[100, 0], Some(1), None);
        let mut headers = HeaderMap::new();
        assert_eq!(split.choose(&headers, None, |_| None, || 0), 0);
        headers.insert("x-canary", HeaderValue::from_static("1"));
        assert_eq!(split.choose(&headers, None, |_| None, || 0), 1);
    }

    #[test]
    fn a_key_keeps_its_target_and_keys_spread_by_weight() {
        let split = split(&[80, 20], None, Some(RequestKey::ClientIp));
        let choose = |number: u32, random: u64| {
            let client = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            let key = |_: &RequestKey| Some(client_bytes(client.into()));
            split.choose(&HeaderMap::new(), None, key, || random)
        };
        let mut canary = 0;
        for number in 0..10_000 {
            let chosen = choose(number, 0);
            assert_eq!(chosen, choose(number, u64::MAX), "client {number}");
            canary += chosen;
        }
        assert!((1_800..2_200).contains(&canary), "{canary}");
        assert_eq!(draw(&split, u64::MAX), 1, "without a key it is drawn");
    }
}
