//! What ties one worker to one instance: connections, requests in flight, times to answer.
//!
//! A link outlives reloads and discoveries that leave its instance in place and do not change how
//! it is connected to, so no connection is lost and nothing learnt is forgotten.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::balance::ewma::PeakEwma;
use super::pool::Pool;

/// One worker's tie to one instance.
pub(crate) struct Link {
    pub(super) pool: Pool,
    /// Requests of this worker that the instance is busy with.
    in_flight: Cell<u32>,
    /// The same of all instances of the service.
    of_service: Rc<Cell<u32>>,
    latency: PeakEwma,
    /// Whether the service is balanced by the times to answer: only then are they taken.
    timed: Cell<bool>,
}

impl Link {
    /// A link without connections. `of_service` counts the requests of the whole service.
    pub(super) fn new(pool: Pool, of_service: Rc<Cell<u32>>) -> Self {
        Self {
            pool,
            in_flight: Cell::new(0),
            of_service,
            // The decay is set before any time is taken.
            latency: PeakEwma::new(Duration::from_secs(1)),
            timed: Cell::new(false),
        }
    }

    /// Takes times to answer, and with what decay, or takes none.
    pub(super) fn set_decay(&self, decay: Option<Duration>) {
        self.timed.set(decay.is_some());
        if let Some(decay) = decay {
            self.latency.set_decay(decay);
        }
    }

    fn latency(&self) -> Option<&PeakEwma> {
        self.timed.get().then_some(&self.latency)
    }

    /// Requests of this worker that the instance is busy with.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// What one more request costs, in seconds; 0 where that is not measured.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.latency()
            .map_or(0.0, |latency| latency.cost(self.in_flight.get(), now))
    }

    /// A request is being sent. Its time is taken until the value is [answered](Timing::answered)
    /// or dropped.
    pub(super) fn time(&self) -> Timing<'_> {
        Timing(self.latency().map(|latency| (latency, Instant::now())))
    }

    /// A request begins.
    pub(super) fn begins(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.of_service.set(self.of_service.get() + 1);
    }

    /// A request is over.
    pub(super) fn ends(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.of_service.set(self.of_service.get() - 1);
    }
}

/// The time of one request, where it is measured.
pub(super) struct Timing<'l>(Option<(&'l PeakEwma, Instant)>);

impl Timing<'_> {
    /// The head of the response is here.
    pub(super) fn answered(mut self) {
        if let Some((latency, sent)) = self.0.take() {
            let now = Instant::now();
            latency.observe(now.saturating_duration_since(sent), now);
        }
    }
}

impl Drop for Timing<'_> {
    /// There was no answer. That may have been quick, which is no merit, or slow, which counts.
    fn drop(&mut self) {
        if let Some((latency, sent)) = self.0.take() {
            let now = Instant::now();
            latency.observe_peak(now.saturating_duration_since(sent), now);
        }
    }
}
