//! How long a request, and each attempt of it, may take until the head of its response.
//!
//! While the body is on its way, only a standstill ends it: a gigabyte may take its time. From the
//! moment it is complete, the instance has the route's `timeout` to answer.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use super::body::Upload;
use crate::filter::reject::Reject;
use crate::server::timers::Timers;

/// The time a request has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the complete request to the response head.
    pub(super) response: Duration,
    /// Between two pieces of the request body.
    pub(super) upload_idle: Duration,
}

impl Patience {
    /// Runs `work` until it is done or the time is up. It is pinned by the caller: handed over by
    /// value, so large a future would take up its room twice.
    pub(super) async fn spend<T>(
        self,
        timers: &Timers,
        upload: &Upload,
        mut work: Pin<&mut impl Future<Output = Result<T, Reject>>>,
    ) -> Result<T, Reject> {
        let mut timer = timers.sleep_until(self.look(upload).into());
        loop {
            tokio::select! {
                biased;
                done = work.as_mut() => return done,
                () = &mut timer => {
                    if self.deadline(upload) <= now() {
                        return Err(blame(upload));
                    }
                    timer.put_off(self.look(upload).into());
                }
            }
        }
    }

    /// When to look next. A body on its way may be complete at any moment, and nobody says so; from
    /// then on the instance has its time, which must not be overslept.
    fn look(self, upload: &Upload) -> Instant {
        let deadline = self.deadline(upload);
        if upload.is_finished() {
            deadline
        } else {
            deadline.min(now() + self.response)
        }
    }

    fn deadline(self, upload: &Upload) -> Instant {
        let limit = if upload.is_finished() {
            self.response
        } else {
            self.upload_idle
        };
        upload.moved() + limit
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time one attempt has.
#[derive(Debug, Clone, Copy)]
pub(super) struct TryLimit {
    limit: Duration,
    began: tokio::time::Instant,
}

impl TryLimit {
    /// For an attempt that begins now.
    pub(super) fn starting(limit: Duration) -> Self {
        let began = tokio::time::Instant::now();
        Self { limit, began }
    }

    /// Runs `work`, a part of the attempt, until the limit after its begin and after the request
    /// was complete. `None`: the time is up.
    pub(super) async fn within<T>(
        self,
        upload: &Upload,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        let mut timer = pin!(tokio::time::sleep_until(self.began + self.limit));
        loop {
            tokio::select! {
                biased;
                done = work.as_mut() => return Some(done),
                () = timer.as_mut() => {
                    let now = tokio::time::Instant::now();
                    // While the body is on its way only its own standstill counts.
                    let since = if upload.is_finished() { upload.moved().into() } else { now };
                    let deadline = self.began.max(since) + self.limit;
                    if deadline <= now {
                        return None;
                    }
                    timer.as_mut().reset(deadline);
                }
            }
        }
    }
}

/// Who kept the other waiting.
fn blame(upload: &Upload) -> Reject {
    if upload.is_finished() {
        Reject::UpstreamTimeout
    } else if upload.awaits_client() {
        Reject::RequestTimeout
    } else {
        Reject::UpstreamSendTimeout
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    const PATIENCE: Patience = Patience {
        response: Duration::from_secs(10),
        upload_idle: Duration::from_secs(30),
    };

    /// How a request ends that stands still, and after how many seconds.
    async fn end(finished: bool, awaits_client: bool) -> (Result<(), Reject>, u64) {
        let start = now();
        let upload = Upload::standing(finished, awaits_client);
        let timers = Timers::default();
        let work = pin!(std::future::pending());
        let outcome = PATIENCE.spend(&timers, &upload, work).await;
        (outcome, (now() - start).as_secs())
    }

    #[test]
    fn who_keeps_the_others_waiting_is_named_when_the_time_is_up() {
        // Whether the body is complete, whether it is the client's turn.
        let table = [
            (false, true, Reject::RequestTimeout, 30),
            (false, false, Reject::UpstreamSendTimeout, 30),
            (true, false, Reject::UpstreamTimeout, 10),
        ];
        for (finished, awaits_client, expected, seconds) in table {
            // A clock for each: an upload tells times by the real one, from which they depart.
            let runtime = Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let ended = runtime.block_on(end(finished, awaits_client));
            assert_eq!(ended, (Err(expected), seconds));
        }
    }
}
