//! Waiting for a condition, with a deadline and words for what was awaited.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to rest between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Looks until `condition` holds a value, at most for `limit`.
///
/// # Errors
///
/// After `limit`, with `what` was waited for.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        // Nothing wakes us: the world outside this process has no other way to tell.
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_ends_the_wait() {
        let mut looks = 0;
        let value = until("the third look", Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some("seen")
        });
        assert_eq!(value.unwrap(), "seen");
        assert_eq!(looks, 3);
    }

    #[test]
    fn the_deadline_ends_a_wait_in_vain() {
        let error = until("nothing", Duration::ZERO, || None::<()>).unwrap_err();
        assert_eq!(error.to_string(), "waited 0ns in vain for nothing");
    }
}
