//! The limit before simulated services, in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;

const POLICY: AdaptivePolicy = AdaptivePolicy {
    in_flight_min: 3,
    in_flight_start: 20,
    latency_tolerance: 1.5,
    probe_every: Duration::from_secs(30),
};

/// A service that works on `servers` requests at a time, `work` long each; others wait inside.
struct Service {
    servers: usize,
    work: Duration,
}

/// Clients that send a request every `1 ÷ rate` seconds, an adaptive limit, and a service.
struct Simulation {
    start: Instant,
    now: Duration,
    limiter: Adaptive,
    service: Service,
    /// When the requests being worked on are done, and when they came.
    working: BinaryHeap<Reverse<(Duration, Duration)>>,
    waiting: VecDeque<Duration>,
    random: u64,
    admitted: u64,
    refused: u64,
}

impl Simulation {
    fn new(servers: usize, work_ms: u64) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: Duration::ZERO,
            limiter: Adaptive::new(POLICY, 10_000, start, None),
            service: Service {
                servers,
                work: Duration::from_millis(work_ms),
            },
            working: BinaryHeap::new(),
            waiting: VecDeque::new(),
            random: 42,
            admitted: 0,
            refused: 0,
        }
    }

    /// Between 0.5 and 1.5.
    fn jitter(&mut self) -> f64 {
        self.random = self
            .random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1);
        0.5 + (self.random >> 33) as f64 / (1_u64 << 31) as f64
    }

    fn in_flight(&self) -> u32 {
        (self.working.len() + self.waiting.len()) as u32
    }

    fn work_on(&mut self, came: Duration) {
        let work = self.service.work.mul_f64(self.jitter());
        self.working.push(Reverse((self.now + work, came)));
    }

    /// Everything that ends before `until`.
    fn work_until(&mut self, until: Duration) {
        while let Some(Reverse((done, came))) = self.working.peek().copied() {
            if done > until {
                break;
            }
            self.now = done;
            let in_flight = self.in_flight();
            self.working.pop();
            let outcome = Outcome::Answered(done - came);
            self.limiter.observe(outcome, in_flight, self.start + done);
            while self.working.len() < self.service.servers {
                let Some(next) = self.waiting.pop_front() else {
                    break;
                };
                self.work_on(next);
            }
        }
        self.now = until;
    }

    /// Goes on for so many seconds with so many requests a second.
    fn run(&mut self, seconds: u64, rate: u64) -> &mut Self {
        let end = self.now + Duration::from_secs(seconds);
        (self.admitted, self.refused) = (0, 0);
        while self.now < end {
            let pause = Duration::from_secs_f64(self.jitter() / rate as f64);
            self.work_until(self.now + pause);
            if self.in_flight() >= self.limiter.limit() {
                self.refused += 1;
                continue;
            }
            self.admitted += 1;
            if self.working.len() < self.service.servers {
                self.work_on(self.now);
            } else {
                self.waiting.push_back(self.now);
            }
        }
        self
    }

    fn limit(&self) -> u32 {
        self.limiter.limit()
    }
}

/// What the module's doc promises for `servers` at a time: `tolerance × servers + √limit`, with
/// room for the noise of the windows. Fewer than `in_flight_min` cannot be told apart.
fn expected(servers: usize) -> std::ops::RangeInclusive<u32> {
    let servers = servers.max(POLICY.in_flight_min as usize);
    let limit = 1.5 * servers as f64;
    let limit = limit + (limit + limit.sqrt()).sqrt();
    servers as u32..=(limit * 1.3).ceil() as u32
}

#[test]
fn under_overload_the_limit_settles_near_what_the_service_works_on() {
    // Requests at a time, milliseconds each, requests per second as a multiple of what it can do.
    let table = [
        (1, 10, 3),
        (4, 5, 2),
        (10, 10, 2),
        (10, 10, 10),
        (40, 50, 2),
        (100, 20, 2),
        (10, 500, 3),
    ];
    for (servers, work_ms, times) in table {
        let capacity = servers as u64 * 1000 / work_ms;
        let mut simulation = Simulation::new(servers, work_ms);
        // At rest for a while, as a service is when it starts.
        simulation.run(20, (capacity / 4).max(4));
        simulation.run(60, capacity * times);
        let limit = simulation.limit();
        assert!(
            expected(servers).contains(&limit),
            "{servers} at a time, {times} times too much: {limit}, expected {:?}",
            expected(servers)
        );
        // And the service is kept busy: what is admitted is what it can do.
        let admitted = simulation.admitted / 60;
        assert!(
            (capacity * 85 / 100..=capacity * 105 / 100).contains(&admitted),
            "{admitted} a second of {capacity}"
        );
    }
}

#[test]
fn nothing_is_refused_while_the_service_keeps_up() {
    let mut simulation = Simulation::new(100, 10);
    // From a tenth of what it can do to nearly all of it.
    for rate in [1000, 4000, 8000] {
        simulation.run(10, rate);
        let refused = simulation.refused;
        // The limit starts at 20 and has to grow first.
        if rate > 4000 {
            continue;
        }
        assert!(refused * 100 < simulation.admitted, "{refused} at {rate}");
    }
    simulation.run(30, 8000);
    assert!(
        simulation.refused * 200 < simulation.admitted,
        "{} of {} refused",
        simulation.refused,
        simulation.admitted
    );
}

#[test]
fn lasting_overload_does_not_let_the_limit_creep_up() {
    let mut simulation = Simulation::new(10, 10);
    // Too much from the very first request: the baseline is never seen without a probe.
    for minute in 1..=6 {
        simulation.run(60, 2000);
        let limit = simulation.limit();
        assert!(
            minute < 2 || limit <= *expected(10).end(),
            "{limit} after {minute} minutes"
        );
    }
}

#[test]
fn the_limit_follows_a_service_that_changes() {
    let mut simulation = Simulation::new(40, 10);
    simulation.run(10, 500).run(40, 8000);
    assert!(
        expected(40).contains(&simulation.limit()),
        "{}",
        simulation.limit()
    );
    // Three of four instances are gone.
    simulation.service.servers = 10;
    simulation.run(40, 8000);
    assert!(
        expected(10).contains(&simulation.limit()),
        "{}",
        simulation.limit()
    );
    // They are back.
    simulation.service.servers = 40;
    simulation.run(60, 8000);
    assert!(
        expected(40).contains(&simulation.limit()),
        "{}",
        simulation.limit()
    );
}

#[test]
fn a_service_that_became_slower_altogether_is_not_starved() {
    let mut simulation = Simulation::new(20, 10);
    simulation.run(30, 200);
    simulation.service.work = Duration::from_millis(50);
    // 400 a second is what it can do now.
    simulation.run(120, 1000);
    assert!(
        expected(20).contains(&simulation.limit()),
        "{}",
        simulation.limit()
    );
    simulation.run(30, 300);
    assert!(
        simulation.refused * 50 < simulation.admitted,
        "{}",
        simulation.refused
    );
}

#[test]
fn signs_of_overload_lower_the_limit_to_its_minimum_and_no_further() {
    let start = Instant::now();
    let mut limiter = Adaptive::new(POLICY, 10_000, start, None);
    let mut now = start;
    for _ in 0..1000 {
        now += Duration::from_millis(20);
        limiter.observe(Outcome::Overloaded, 20, now);
    }
    assert_eq!(limiter.limit(), POLICY.in_flight_min);
}

#[test]
fn a_few_errors_are_not_overload() {
    let start = Instant::now();
    let mut limiter = Adaptive::new(POLICY, 10_000, start, None);
    let latency = Outcome::Answered(Duration::from_millis(10));
    let mut now = start;
    for count in 0..1000 {
        now += Duration::from_millis(10);
        let outcome = if count % 20 == 0 {
            Outcome::Overloaded
        } else {
            latency
        };
        limiter.observe(outcome, 20, now);
    }
    assert!(
        limiter.limit() > POLICY.in_flight_start,
        "{}",
        limiter.limit()
    );
}

#[test]
fn limits_stay_within_their_bounds() {
    let start = Instant::now();
    let mut limiter = Adaptive::new(POLICY, 25, start, None);
    let mut now = start;
    for _ in 0..10_000 {
        now += Duration::from_millis(10);
        let latency = Outcome::Answered(Duration::from_millis(10));
        limiter.observe(latency, limiter.limit(), now);
    }
    assert_eq!(limiter.limit(), 25);
    // A lower maximum than minimum is the maximum.
    assert_eq!(Adaptive::new(POLICY, 2, start, None).limit(), 2);
    // What was learned outlives a change of the settings.
    let next = Adaptive::new(POLICY, 10_000, now, Some(&limiter));
    assert_eq!(next.limit(), 25);
    assert_eq!(next.baseline(), limiter.baseline());
}
