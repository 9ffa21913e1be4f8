//! What a request that is over says about its service.

use std::time::{Duration, Instant};

use super::deliver::Answer;
use crate::filter::reject::Reject;
use crate::telemetry::exchange::Record;
use crate::upstream::breaker::Pass;
use crate::upstream::faults::Care;
use crate::upstream::outlier::Outcome;

/// The refusal of a request that comes while the breaker is open for so long.
pub(super) fn circuit_open(length: Duration) -> Reject {
    let retry_after = length.as_millis().div_ceil(1000).max(1);
    Reject::CircuitOpen {
        retry_after: u64::try_from(retry_after).unwrap_or(u64::MAX),
    }
}

/// Tells the breaker how the request ended, and the instance that its time was up.
pub(super) fn settle(
    delivered: &Result<Answer, Reject>,
    pass: Option<Pass<'_>>,
    care: &Care,
    record: &Record,
) {
    let out_of_time = matches!(
        delivered,
        Err(Reject::UpstreamTimeout | Reject::UpstreamSendTimeout)
    );
    // The attempt was cancelled, so it could not tell itself.
    if out_of_time && let Some(endpoint) = &record.endpoint {
        care.observe(&endpoint.instance, Outcome::Failure);
    }
    if let (Some(pass), Some(good)) = (pass, is_good(delivered)) {
        pass.report(good, Instant::now());
    }
}

/// Whether the service did its part; `None`: nothing is known, as it was not asked or the client
/// is to blame.
fn is_good(delivered: &Result<Answer, Reject>) -> Option<bool> {
    match delivered {
        Ok((response, _)) => Some(Outcome::of_status(response.status()) == Outcome::Good),
        Err(
            Reject::UpstreamConnect
            | Reject::UpstreamConnectTimeout
            | Reject::UpstreamTls
            | Reject::UpstreamProtocol
            | Reject::UpstreamSendTimeout
            | Reject::UpstreamTryTimeout
            | Reject::UpstreamTimeout,
        ) => Some(false),
        Err(_) => None,
    }
}
