//! The instances a worker chooses from right now.
//!
//! Made again only when something has changed: an instance came under a bar or out of one, a bar
//! ended by time, or a slow start has gone on. Choosing itself looks at no instance but the ones
//! it draws, and allocates nothing.

use std::time::Instant;

use super::balance::tiers::{self, Tier};
use super::balance::{Random, Sampler, Turns, maglev, slow_start, two};
use super::endpoint::Endpoint;
use super::service::SharedService;
use crate::config::Method;

/// Draws before the instances are gone through one by one, when some were tried already.
const DRAWS_MAX: usize = 4;

/// Who is chosen from.
pub(super) struct Lineup {
    /// The number of changes of the service's instances this was made after.
    changes: u64,
    /// When it must be made again even without a change.
    until: Option<Instant>,
    /// All are used, whatever speaks against them.
    panicking: bool,
    /// By position of the endpoint: whether it may be chosen.
    eligible: Vec<bool>,
    /// First to last, those with a share only.
    ranks: Vec<Rank>,
    /// Who was chosen last, where turns are taken.
    last: std::cell::Cell<usize>,
}

/// What is left of a tier.
struct Rank {
    /// Its share of the load and those of the ranks before it.
    up_to: f64,
    /// Its number among the tiers of the service.
    tier: usize,
    /// Positions of the endpoints.
    members: Vec<usize>,
    /// Their weights, less while they start slowly, and the sum.
    weights: Vec<f64>,
    weight: f64,
    choice: Choice,
}

enum Choice {
    Turns(Turns),
    Lighter(Sampler),
    Quicker(Sampler),
    Any(Sampler),
}

/// What a choice goes by.
pub(super) struct Request<'r> {
    pub(super) service: &'r SharedService,
    pub(super) endpoints: &'r [std::rc::Rc<Endpoint>],
    pub(super) random: &'r Random,
    /// Requests of this worker that the service is busy with.
    pub(super) in_flight: u32,
    /// Positions that failed already.
    pub(super) tried: &'r [usize],
    /// Of the key the service balances by.
    pub(super) hash: Option<u64>,
    /// The position the client wants to return to.
    pub(super) stuck: Option<usize>,
}

impl Lineup {
    /// The instances of `service` to choose from `now`. `previous` hands on whose turn it is; if
    /// there is none, turns begin with endpoint number `first`.
    pub(super) fn new(
        service: &SharedService,
        now: Instant,
        previous: Option<&Self>,
        first: usize,
    ) -> Self {
        // Read before the instances are: what changes meanwhile is then looked at again.
        let changes = service.changes.count();
        let available = |at: usize| &service.instances[at].availability;
        let count = service.instances.len();
        let usable: Vec<bool> = (0..count).map(|at| available(at).is_usable(now)).collect();
        let all = weigh(service, &usable);
        let failover = &service.config.balance.failover;
        let panicking = tiers::is_panic(&all, failover.panic_below);
        let trusted: Vec<bool> = (0..count)
            .map(|at| panicking || (usable[at] && !available(at).is_suspect(now)))
            .collect();
        let left = weigh(service, &trusted);
        // A suspect is better than nobody.
        let (eligible, left) = match left.iter().any(|tier| tier.usable > 0.0) {
            true => (trusted, left),
            false => (usable, all),
        };
        let mut until = (0..count)
            .filter_map(|at| available(at).next_change(now))
            .min();
        let shares = tiers::shares(&left, failover.overprovisioning);
        let mut up_to = 0.0;
        let mut ranks = Vec::new();
        for (tier, share) in shares.into_iter().enumerate() {
            if share > 0.0 {
                up_to += share;
                let (rank, again) =
                    Rank::new(service, tier, up_to, &eligible, now, previous, first);
                ranks.push(rank);
                until = until.into_iter().chain(again).min();
            }
        }
        Self {
            changes,
            until,
            panicking,
            eligible,
            ranks,
            last: std::cell::Cell::new(previous.map_or(usize::MAX, |known| known.last.get())),
        }
    }

    /// Whether it holds still, after so many changes. The clock is looked at only if something
    /// will change with time.
    pub(super) fn is_current(&self, changes: u64) -> bool {
        self.changes == changes && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// The position of an instance that was not tried yet, or `None` if none is left.
    pub(super) fn pick(&self, request: &Request<'_>) -> Option<usize> {
        let untried = |at: usize| !request.tried.contains(&at);
        if let Some(stuck) = request.stuck
            && self.eligible[stuck]
            && untried(stuck)
        {
            return Some(stuck);
        }
        let rank = self.rank(request.random)?;
        let draws = if request.tried.is_empty() {
            1
        } else {
            DRAWS_MAX
        };
        let drawn = (0..draws)
            .filter_map(|_| self.draw(rank, request))
            .find(|at| untried(*at));
        drawn.or_else(|| self.left(request))
    }

    fn rank(&self, random: &Random) -> Option<&Rank> {
        if let [only] = &*self.ranks {
            return Some(only);
        }
        let drawn = random.unit();
        let ranks = self.ranks.iter();
        let rank = ranks.clone().find(|rank| drawn < rank.up_to);
        // Rounding may leave the sum of all shares a little below 1.
        rank.or(ranks.last())
    }

    fn draw(&self, rank: &Rank, request: &Request<'_>) -> Option<usize> {
        let link = |at: usize| &request.endpoints[rank.members[at]].link;
        let random = request.random;
        let position = match (&rank.choice, request.hash) {
            (Choice::Turns(_), Some(hash)) => return self.owner(rank, request, hash),
            (Choice::Turns(turns), None) => turns.take(),
            (Choice::Any(sampler), _) => sampler.draw(random),
            (Choice::Lighter(sampler), _) => two::lighter(sampler, random, |at| {
                f64::from(link(at).in_flight()) / rank.weights[at]
            }),
            (Choice::Quicker(sampler), _) => {
                let now = Instant::now();
                two::lighter(sampler, random, |at| link(at).cost(now) / rank.weights[at])
            }
        };
        let taken = rank.members[position?];
        self.last.set(taken);
        Some(taken)
    }

    /// The owner of a hash, with room for one more where loads are bounded.
    fn owner(&self, rank: &Rank, request: &Request<'_>, hash: u64) -> Option<usize> {
        let tier = &request.service.tiers[rank.tier];
        let table = tier.maglev.as_ref()?;
        let usable = |at: usize| {
            let position = tier.members[at];
            self.eligible[position] && !request.tried.contains(&position)
        };
        let position = |at: usize| tier.members[at];
        let Method::ConsistentHash {
            load_percent_max: percent,
            ..
        } = &request.service.config.balance.method
        else {
            return None;
        };
        let Some(percent) = *percent else {
            return table.owner(hash, usable).map(position);
        };
        // Nothing starts slowly here, so weights are whole.
        let weights = rank.weight as u64;
        let has_room = |at: usize| {
            let position = tier.members[at];
            let weight = u32::from(request.service.endpoints[position].weight);
            let room = maglev::capacity(percent, request.in_flight, weight, weights);
            u64::from(request.endpoints[position].link.in_flight()) < room
        };
        table
            .owner(hash, |at| usable(at) && has_room(at))
            // All that are left were tried, but for some at their bound.
            .or_else(|| table.owner(hash, usable))
            .map(position)
    }

    /// One that was not tried, when drawing did not find any: the rest of the eligible, then the
    /// suspects.
    fn left(&self, request: &Request<'_>) -> Option<usize> {
        let untried = |at: &usize| !request.tried.contains(at);
        let members = self
            .ranks
            .iter()
            .flat_map(|rank| rank.members.iter().copied());
        let start = request.random.below(self.eligible.len().max(1));
        // From a random place, so that not all of them go to the same one.
        members
            .clone()
            .find(|at| *at >= start && untried(at))
            .or_else(|| members.clone().find(untried))
            .or_else(|| self.suspect(request))
    }

    fn suspect(&self, request: &Request<'_>) -> Option<usize> {
        let now = Instant::now();
        (0..self.eligible.len()).find(|at| {
            let weighs = request.service.endpoints[*at].weight > 0;
            let usable = request.service.instances[*at].availability.is_usable(now);
            weighs && (usable || self.panicking) && !request.tried.contains(at)
        })
    }
}

impl Rank {
    /// The rank of a tier, and when it changes by time.
    fn new(
        service: &SharedService,
        tier: usize,
        up_to: f64,
        eligible: &[bool],
        now: Instant,
        previous: Option<&Lineup>,
        first: usize,
    ) -> (Self, Option<Instant>) {
        let members = service.tiers[tier].members.iter().copied();
        let members: Vec<usize> = members.filter(|at| eligible[*at]).collect();
        let mut again = None;
        let weights: Vec<f64> = members
            .iter()
            .map(|at| {
                let (weight, next) = weight(service, *at, now);
                again = again.into_iter().chain(next).min();
                weight
            })
            .collect();
        let choice = match service.config.balance.method {
            Method::RoundRobin | Method::ConsistentHash { .. } => {
                Choice::Turns(turns(&members, &weights, previous, first))
            }
            Method::LeastRequest => Choice::Lighter(Sampler::new(&weights)),
            Method::PeakEwma { .. } => Choice::Quicker(Sampler::new(&weights)),
            Method::Random => Choice::Any(Sampler::new(&weights)),
        };
        let rank = Self {
            up_to,
            tier,
            weight: weights.iter().sum(),
            members,
            weights,
            choice,
        };
        (rank, again)
    }
}

/// Turns that go on where `previous` ones were.
fn turns(members: &[usize], weights: &[f64], previous: Option<&Lineup>, first: usize) -> Turns {
    let next = previous.map_or(first, |known| known.last.get().wrapping_add(1));
    let first = members.iter().position(|at| *at >= next).unwrap_or(0);
    let owed: Vec<f64> = members.iter().map(|at| owed(previous, *at)).collect();
    Turns::new(weights, first, &owed)
}

fn owed(previous: Option<&Lineup>, endpoint: usize) -> f64 {
    let ranks = previous.iter().flat_map(|known| &known.ranks);
    let found = ranks.filter_map(|rank| {
        let position = rank.members.binary_search(&endpoint).ok()?;
        match &rank.choice {
            Choice::Turns(turns) => Some(turns.owed(position)),
            _ => None,
        }
    });
    found.last().unwrap_or(0.0)
}

/// The weight of an endpoint now, and when it changes.
fn weight(service: &SharedService, at: usize, now: Instant) -> (f64, Option<Instant>) {
    let weight = f64::from(service.endpoints[at].weight);
    let balance = &service.config.balance;
    let hashes = matches!(balance.method, Method::ConsistentHash { .. });
    let (Some(window), false) = (balance.slow_start, hashes) else {
        return (weight, None);
    };
    let Some(since) = service.instances[at].availability.usable_since() else {
        return (weight, None);
    };
    let share = slow_start::share(since, now, window);
    let again = (share < 1.0).then(|| now + slow_start::step(window));
    (weight * share, again)
}

/// What each tier has, if these are usable.
fn weigh(service: &SharedService, usable: &[bool]) -> Vec<Tier> {
    let tier = |members: &[usize]| {
        let mut tier = Tier::default();
        for at in members {
            let weight = f64::from(service.endpoints[*at].weight);
            tier.weight += weight;
            tier.usable += if usable[*at] { weight } else { 0.0 };
        }
        tier
    };
    service.tiers.iter().map(|one| tier(&one.members)).collect()
}
