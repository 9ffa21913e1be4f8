//! Rate limits: how many requests one sender may send.
//!
//! Runs last of all filters, so that it can count by identity. Refuses with 429 and
//! `Retry-After`, and tells every client where it stands with `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers). The algorithm is GCRA: a bucket of `burst` requests,
//! earned back one by one at `rate`, held as a single time per sender.
//!
//! One limiter serves all workers and all routes that use it. A request without the key (no such
//! header or claim) is counted by its client address: leaving a header out opens no way around.

mod store;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use governor::clock::{Clock, MonotonicClock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::{Quota, RateLimiter};
use http::request::Parts;
use http::{HeaderName, HeaderValue};

use self::store::BoundedStore;
use super::Context;
use super::hashed::Hashed;
use super::key::{RequestKey, SenderKey};
use super::reject::Reject;

/// A full key set is searched for forgotten senders at most this often, by one thread.
const SWEEP_PERIOD: Duration = Duration::from_millis(250);

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What a limit allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// What tells senders apart.
    pub key: RequestKey,
    /// The time in which one request is earned back.
    pub interval: Duration,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
    /// Senders remembered at a time.
    pub keys_max: usize,
    /// Whether a sender who cannot be remembered may pass uncounted.
    pub allow_when_full: bool,
}

/// What became of the requests a limit has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Within the limit.
    pub allowed: u64,
    /// Over the limit.
    pub limited: u64,
    /// From senders who could not be remembered; passed or refused as `when_full` says.
    pub full: u64,
    /// Senders remembered now.
    pub keys: usize,
}

/// A limit at work. `C` is the clock, which tests replace.
#[derive(Debug)]
pub struct RateLimit<C: Clock = MonotonicClock> {
    policy: Policy,
    limiter: RateLimiter<Hashed, BoundedStore, C, StateInformationMiddleware>,
    /// The limiter's own store, which it gives no access to.
    store: BoundedStore,
    /// `RateLimit-Policy`, and what `RateLimit` begins with: the name in quotes.
    policy_field: HeaderValue,
    standing: Box<[u8]>,
    start: C::Instant,
    /// Nanoseconds from `start` to the last sweep.
    swept_at: AtomicU64,
    allowed: AtomicU64,
    limited: AtomicU64,
    full: AtomicU64,
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Within the limit: so many more may follow at once, and so long until all may again.
    Allowed { remaining: u32, reset: Duration },
    /// Over the limit: so long until the next one passes.
    Limited { wait: Duration },
    /// There is no room to remember the sender.
    Full,
}

impl RateLimit {
    /// A limit on the monotonic clock.
    pub fn new(policy: Policy) -> Self {
        Self::with_clock(policy, MonotonicClock)
    }
}

impl<C: Clock> RateLimit<C> {
    /// A limit on a given clock.
    pub fn with_clock(policy: Policy, clock: C) -> Self {
        let window = policy.interval * policy.burst.get();
        let quota = Quota::with_period(policy.interval.max(Duration::from_nanos(1)))
            .expect("the interval was made longer than zero")
            .allow_burst(policy.burst);
        let name = format!("{:?}", policy.name);
        let text = format!("{name};q={};w={}", policy.burst, seconds(window));
        let store = BoundedStore::new(policy.keys_max);
        Self {
            policy_field: HeaderValue::try_from(text)
                .expect("the form for debugging escapes whatever a header cannot carry"),
            standing: name.into_bytes().into(),
            start: clock.now(),
            limiter: RateLimiter::new(quota, store.clone(), clock),
            store,
            policy,
            swept_at: AtomicU64::new(0),
            allowed: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    /// What the limit allows.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What became of the requests seen so far.
    pub fn counts(&self) -> Counts {
        Counts {
            allowed: self.allowed.load(Ordering::Relaxed),
            limited: self.limited.load(Ordering::Relaxed),
            full: self.full.load(Ordering::Relaxed),
            keys: self.limiter.len(),
        }
    }

    /// Counts a request of a route, and adds the fields that tell the client where it stands.
    pub fn run(&self, context: &mut Context, head: &Parts, route: &str) -> Result<(), Reject> {
        let key = self.policy.key.sender(context, head, route);
        let decision = self.decide(key.unwrap_or_else(|| SenderKey::client(context.client)));
        self.add_fields(context, decision);
        match decision {
            Decision::Allowed { .. } => {
                self.allowed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Decision::Limited { wait } => {
                self.limited.fetch_add(1, Ordering::Relaxed);
                Err(Reject::RateLimited {
                    retry_after: seconds(wait),
                })
            }
            Decision::Full => {
                self.full.fetch_add(1, Ordering::Relaxed);
                if self.policy.allow_when_full {
                    Ok(())
                } else {
                    Err(Reject::LimiterFull)
                }
            }
        }
    }

    fn decide(&self, key: SenderKey) -> Decision {
        let key = self.store.hashed(key);
        if !self.admit(&key) {
            return Decision::Full;
        }
        match self.limiter.check_key(&key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let used = self.policy.burst.get().saturating_sub(remaining);
                Decision::Allowed {
                    remaining,
                    reset: self.policy.interval * used,
                }
            }
            Err(until) => Decision::Limited {
                wait: until.wait_time_from(self.limiter.clock().now()),
            },
        }
    }

    /// Makes room for a sender, forgetting those whose bucket is full again if need be.
    fn admit(&self, key: &Hashed) -> bool {
        if self.store.admit(key) {
            return true;
        }
        let now = self
            .limiter
            .clock()
            .now()
            .duration_since(self.start)
            .as_u64();
        let last = self.swept_at.load(Ordering::Relaxed);
        let period = u64::try_from(SWEEP_PERIOD.as_nanos()).expect("a quarter second fits");
        if last != 0 && now.saturating_sub(last) < period {
            return false;
        }
        // Whoever moves the time forward does the work; the others do not wait for it.
        let (order, failed) = (Ordering::Relaxed, Ordering::Relaxed);
        if self
            .swept_at
            .compare_exchange(last, now.max(1), order, failed)
            .is_err()
        {
            return false;
        }
        self.limiter.retain_recent();
        self.store.admit(key)
    }

    fn add_fields(&self, context: &mut Context, decision: Decision) {
        context
            .told
            .add(RATELIMIT_POLICY, self.policy_field.clone());
        let (remaining, reset) = match decision {
            Decision::Allowed { remaining, reset } => (remaining, reset),
            Decision::Limited { wait } => (0, wait),
            Decision::Full => return,
        };
        if let Some(value) = self.standing(remaining, seconds(reset)) {
            context.told.add(RATELIMIT, value);
        }
    }

    /// `"name";r=7;t=1`, put together without `fmt`: every request that is counted gets one.
    fn standing(&self, remaining: u32, reset_seconds: u64) -> Option<HeaderValue> {
        let (mut left, mut reset) = (itoa::Buffer::new(), itoa::Buffer::new());
        let left = left.format(remaining).as_bytes();
        let reset = reset.format(reset_seconds).as_bytes();
        let text = [&self.standing[..], b";r=", left, b";t=", reset].concat();
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

/// Whole seconds, rounded up, at least one: a client that waits so long has waited long enough.
fn seconds(duration: Duration) -> u64 {
    let up = u64::from(duration.subsec_nanos() > 0);
    (duration.as_secs() + up).max(1)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limit(
        burst: u32,
        keys_max: usize,
        clock: &FakeRelativeClock,
    ) -> RateLimit<FakeRelativeClock> {
        let policy = Policy {
            name: "per-client".into(),
            key: RequestKey::ClientIp,
            interval: Duration::from_millis(500),
            burst: NonZeroU32::new(burst).unwrap(),
            keys_max,
            allow_when_full: false,
        };
        RateLimit::with_clock(policy, clock.clone())
    }

    fn send(limit: &RateLimit<FakeRelativeClock>, client: &str) -> (Result<(), Reject>, Context) {
        let mut context = Context::new(client.parse().unwrap());
        let head = http::Request::new(()).into_parts().0;
        (limit.run(&mut context, &head, "route"), context)
    }

    fn limited(seconds: u64) -> Result<(), Reject> {
        Err(Reject::RateLimited {
            retry_after: seconds,
        })
    }

    #[test]
    fn a_burst_passes_then_one_per_interval() {
        let clock = FakeRelativeClock::default();
        let limit = limit(3, 10, &clock);
        // (milliseconds to wait before, outcome, RateLimit)
        let table = [
            (0, Ok(()), "r=2;t=1"),
            (0, Ok(()), "r=1;t=1"),
            (0, Ok(()), "r=0;t=2"),
            (0, limited(1), "r=0;t=1"),
            (499, limited(1), "r=0;t=1"),
            (1, Ok(()), "r=0;t=2"),
            (0, limited(1), "r=0;t=1"),
            (1500, Ok(()), "r=2;t=1"),
        ];
        for (place, (wait, expected, field)) in table.into_iter().enumerate() {
            clock.advance(Duration::from_millis(wait));
            let (outcome, context) = send(&limit, "192.0.2.1");
            assert_eq!(outcome, expected, "request {place}");
            let standing: Vec<_> = context.told.values(&RATELIMIT).collect();
            assert_eq!(
                standing,
                [&format!(r#""per-client";{field}"#)],
                "request {place}"
            );
            let policy: Vec<_> = context.told.values(&RATELIMIT_POLICY).collect();
            assert_eq!(policy, [r#""per-client";q=3;w=2"#]);
        }
        let counts = limit.counts();
        assert_eq!(
            (counts.allowed, counts.limited, counts.full, counts.keys),
            (5, 3, 0, 1)
        );
    }

    #[test]
    fn senders_do_not_share_a_bucket() {
        let clock = FakeRelativeClock::default();
        let limit = limit(1, 10, &clock);
        assert_eq!(send(&limit, "192.0.2.1").0, Ok(()));
        assert_eq!(send(&limit, "192.0.2.1").0, limited(1));
        assert_eq!(send(&limit, "192.0.2.2").0, Ok(()));
        assert_eq!(send(&limit, "2001:db8::1").0, Ok(()));
        assert_eq!(send(&limit, "2001:db8::2").0, limited(1), "the same /64");
    }

    #[test]
    fn a_full_key_set_refuses_new_senders_until_old_ones_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let limit = limit(2, 3, &clock);
        for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert_eq!(send(&limit, client).0, Ok(()));
        }
        assert_eq!(
            send(&limit, "192.0.2.4").0,
            Err(Reject::LimiterFull),
            "the limit of 3"
        );
        assert_eq!(
            send(&limit, "192.0.2.1").0,
            Ok(()),
            "a remembered sender still counts"
        );
        assert_eq!(limit.counts().keys, 3);

        // .2 and .3 earned their request back 0.6 s ago, .1 only 0.1 s ago: it is kept an interval.
        clock.advance(Duration::from_millis(1100));
        assert_eq!(send(&limit, "192.0.2.4").0, Ok(()));
        assert_eq!(limit.counts().keys, 2);
        assert_eq!(limit.counts().full, 1);
    }

    #[test]
    fn a_full_key_set_is_not_searched_at_every_request() {
        let clock = FakeRelativeClock::default();
        let limit = limit(1, 1, &clock);
        clock.advance(Duration::from_secs(1));
        assert_eq!(send(&limit, "192.0.2.1").0, Ok(()));
        clock.advance(Duration::from_millis(900));
        assert_eq!(
            send(&limit, "192.0.2.2").0,
            Err(Reject::LimiterFull),
            "searched in vain"
        );
        clock.advance(Duration::from_millis(200));
        assert_eq!(
            send(&limit, "192.0.2.2").0,
            Err(Reject::LimiterFull),
            "not searched again"
        );
        clock.advance(Duration::from_millis(50));
        assert_eq!(send(&limit, "192.0.2.2").0, Ok(()), "searched after 250 ms");
    }

    #[test]
    fn a_limit_may_fail_open_when_full() {
        let clock = FakeRelativeClock::default();
        let policy = Policy {
            allow_when_full: true,
            ..limit(1, 1, &clock).policy
        };
        let limit = RateLimit::with_clock(policy, clock);
        assert_eq!(send(&limit, "192.0.2.1").0, Ok(()));
        let (outcome, context) = send(&limit, "192.0.2.2");
        assert_eq!(outcome, Ok(()));
        assert!(
            context.told.values(&RATELIMIT).next().is_none(),
            "nothing is known of it"
        );
        assert_eq!(limit.counts().full, 1);
    }

    #[test]
    fn a_request_without_the_key_counts_by_address() {
        let clock = FakeRelativeClock::default();
        let key = RequestKey::Header(HeaderName::from_static("x-tenant"));
        let policy = Policy {
            key,
            ..limit(1, 10, &clock).policy
        };
        let limit = RateLimit::with_clock(policy, clock);
        assert_eq!(send(&limit, "192.0.2.1").0, Ok(()));
        assert_eq!(send(&limit, "192.0.2.1").0, limited(1));
        assert_eq!(send(&limit, "192.0.2.2").0, Ok(()));
    }

    proptest::proptest! {
        /// Whatever the pauses, no stretch of time sees more than the burst and what was earned.
        #[test]
        fn never_more_than_burst_and_rate(
            burst in 1u32..20,
            pauses in proptest::collection::vec(0u64..1500, 1..200),
        ) {
            let clock = FakeRelativeClock::default();
            let limit = limit(burst, 10, &clock);
            let (mut now, mut passed) = (0, Vec::new());
            for pause in pauses {
                clock.advance(Duration::from_millis(pause));
                now += pause;
                if send(&limit, "192.0.2.1").0.is_ok() {
                    passed.push(now);
                }
            }
            for (first, begin) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let sent = u64::try_from(last - first + 1).unwrap();
                    proptest::prop_assert!(sent <= u64::from(burst) + (end - begin) / 500);
                }
            }
        }
    }
}
