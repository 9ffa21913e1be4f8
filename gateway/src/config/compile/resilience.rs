//! Outliers, breakers, retries and hedges.

use super::super::error::Problem;
use super::super::file::{
    Breaker, Hedge, HedgeAfter, Outlier, Placed, Protocol, Retry, RetryBudget, RetryOn, Service,
};
use super::super::model::{self, BreakerConfig, OutlierConfig, RetryBudgetConfig, RetryConfig};
use super::super::units::{Duration, Size};
use super::Compiler;

/// Requests on one HTTP/2 connection, where nothing is said about it.
const STREAMS_MAX: usize = 1024;
/// Bytes of a request body that may be kept for another attempt.
const KEPT_BODY_BYTES_MAX: u64 = 16 << 20;
/// What asks for another attempt by its meaning (RFC 9110 sections 15.5.9 and 15.6.4, RFC 8470
/// section 5.2, RFC 6585 section 4).
const RETRIABLE_STATUSES: [u16; 4] = [408, 425, 429, 503];

impl Compiler<'_> {
    pub(super) fn requests_max(&mut self, service: &Service) -> usize {
        match (&service.requests_max, service.protocol) {
            (Some(typed), _) => self.within(typed, 1..=1_000_000, "requests_max"),
            (None, Protocol::Http1) => *service.connections_max,
            (None, Protocol::Http2) => STREAMS_MAX,
        }
    }

    pub(super) fn outlier(&mut self, typed: &Outlier) -> OutlierConfig {
        let (ejection, ejection_max) = self.rising(&typed.ejection, &typed.ejection_max);
        let percent = typed.failure_percent.as_ref();
        let deviations = typed.success_deviations.as_ref();
        OutlierConfig {
            consecutive_failures: self.within(
                &typed.consecutive_failures,
                1..=1_000_000,
                "consecutive_failures",
            ),
            consecutive_5xx: typed
                .consecutive_5xx
                .as_ref()
                .map(|typed| self.within(typed, 1..=1_000_000, "consecutive_5xx")),
            failure_percent: percent.map(|typed| self.within(typed, 1..=100, "failure_percent")),
            success_deviations: deviations
                .map(|typed| self.within(typed, 0.1..=10.0, "success_deviations")),
            requests_min: self.within(&typed.requests_min, 1..=1_000_000, "requests_min"),
            instances_min: self.within(&typed.instances_min, 2..=1000, "instances_min"),
            every: self.positive(&typed.every),
            ejection,
            ejection_max,
            ejected_percent_max: self.within(
                &typed.ejected_percent_max,
                1..=100,
                "ejected_percent_max",
            ),
        }
    }

    pub(super) fn breaker(&mut self, typed: &Breaker) -> BreakerConfig {
        BreakerConfig {
            failure_percent: self.within(&typed.failure_percent, 1..=100, "failure_percent"),
            requests_min: self.within(&typed.requests_min, 1..=1_000_000, "requests_min"),
            window: self.positive(&typed.window),
            open: self.positive(&typed.open),
            probes: self.within(&typed.probes, 1..=1000, "probes"),
        }
    }

    pub(super) fn retry_budget(&mut self, typed: &RetryBudget) -> RetryBudgetConfig {
        RetryBudgetConfig {
            percent: self.within(&typed.percent, 0..=1000, "percent"),
            min_per_second: self.within(&typed.min_per_second, 0..=1_000_000, "min_per_second"),
            in_flight_max: self.within(&typed.in_flight_max, 1..=1_000_000, "in_flight_max"),
        }
    }

    pub(super) fn retry(&mut self, typed: &Retry) -> RetryConfig {
        let (backoff, backoff_max) = self.rising(&typed.backoff, &typed.backoff_max);
        let per_try_timeout = typed.per_try_timeout.as_ref();
        let has = |cause: RetryOn| typed.on.contains(&cause);
        RetryConfig {
            attempts: self.within(&typed.attempts, 0..=10, "attempts"),
            on_connect: has(RetryOn::Connect),
            on_reset: has(RetryOn::Reset),
            on_timeout: has(RetryOn::Timeout),
            on_statuses: statuses(&typed.on),
            per_try_timeout: per_try_timeout.map(|timeout| self.positive(timeout)),
            backoff,
            backoff_max,
            body_bytes_max: self.kept_bytes(&typed.body_bytes_max),
            non_idempotent: typed.non_idempotent,
        }
    }

    pub(super) fn hedge(&mut self, typed: &Hedge) -> model::HedgeConfig {
        let after = match *typed.after {
            HedgeAfter::Percentile(percentile) => model::HedgeAfter::Percentile(percentile),
            HedgeAfter::Time(time) => {
                if time.0.is_zero() {
                    self.refuse(
                        Problem::at(typed.after.span(), "every request would be sent twice")
                            .hint("write a duration such as \"50ms\", or \"p95\""),
                    );
                }
                model::HedgeAfter::Time(time.0)
            }
        };
        model::HedgeConfig {
            after,
            attempts: self.within(&typed.attempts, 1..=5, "attempts"),
        }
    }

    /// A duration above nothing, and a second one that is not below it.
    fn rising(
        &mut self,
        first: &Placed<Duration>,
        most: &Placed<Duration>,
    ) -> (std::time::Duration, std::time::Duration) {
        if **most < **first {
            let message = format!("the longest is shorter than the first, {}", **first);
            let span = if most.span().is_empty() {
                first.span()
            } else {
                most.span()
            };
            self.refuse(Problem::at(span, message).hint("give it a longer one"));
        }
        (self.positive(first), self.positive(most))
    }

    fn kept_bytes(&mut self, size: &Placed<Size>) -> u64 {
        if size.0 > KEPT_BODY_BYTES_MAX {
            let message = format!("size {} is out of range", **size);
            let hint = format!("choose a size up to {}", Size(KEPT_BODY_BYTES_MAX));
            self.refuse(Problem::at(size.span(), message).hint(hint));
        }
        size.0
    }
}

/// All statuses among the causes, each once.
fn statuses(causes: &[RetryOn]) -> Vec<u16> {
    let mut statuses: Vec<u16> = causes
        .iter()
        .flat_map(|cause| match cause {
            RetryOn::ServerError => (500..=599).collect(),
            RetryOn::GatewayError => vec![502, 503, 504],
            RetryOn::RetriableStatus => RETRIABLE_STATUSES.to_vec(),
            RetryOn::Status(status) => vec![*status],
            RetryOn::Connect | RetryOn::Reset | RetryOn::Timeout => Vec::new(),
        })
        .collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_add_up_to_statuses() {
        use RetryOn as On;
        let table: [(&[On], &[u16]); 4] = [
            (&[On::Connect, On::Reset, On::Timeout], &[]),
            (&[On::GatewayError, On::Status(409)], &[409, 502, 503, 504]),
            (
                &[On::RetriableStatus, On::GatewayError],
                &[408, 425, 429, 502, 503, 504],
            ),
            (&[On::Status(500), On::Status(500)], &[500]),
        ];
        for (causes, expected) in table {
            assert_eq!(statuses(causes), expected, "{causes:?}");
        }
        assert_eq!(statuses(&[On::ServerError]).len(), 100);
    }
}
