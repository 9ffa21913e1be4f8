//! `[overload]`, and what services and routes say about too much work, as typed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Named, Placed};
use crate::config::units::{Duration, Size};
use crate::overload::Class;

/// `[overload]`: what the process may need.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overload {
    /// Resident memory at most; from 70 % of it on, idle connections are closed, then requests
    /// refused by class, then connections. Left out: no ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<Placed<Size>>,
    /// How late a worker's event loop may be: over it sheddable requests are refused, over twice
    /// as much those of the default class, over four times as much all. Left out: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_max: Option<Placed<Duration>>,
    /// The part of the limit of open files that is kept for connections to instances: beyond the
    /// rest, new client connections are closed at once.
    pub descriptors_reserve_percent: Placed<u32>,
}

impl Default for Overload {
    fn default() -> Self {
        Self {
            memory_max: None,
            lag_max: None,
            descriptors_reserve_percent: Placed::absent(10),
        }
    }
}

/// `concurrency = { … }` of a service: requests in flight, over all its instances and workers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Whether the limit follows the measured latency, between `in_flight_min` and
    /// `in_flight_max`, where requests count until the head of their answer. Otherwise the limit
    /// is `in_flight_max`, and they count until the end, upgraded connections too.
    #[serde(default)]
    pub adaptive: bool,
    /// Requests in flight at most; must be given unless `adaptive`, where it is 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_max: Option<Placed<u32>>,
    /// adaptive: the lowest limit; default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_min: Option<Placed<u32>>,
    /// adaptive: the limit before anything was measured; default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_start: Option<Placed<u32>>,
    /// adaptive: how many times the latency without load is accepted; default 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_tolerance: Option<Placed<f64>>,
    /// adaptive: under lasting load, the time between measurements of the latency without, for
    /// which the limit is lowered for a moment; default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_every: Option<Placed<Duration>>,
    /// Requests that wait for a place; 0: none do.
    #[serde(default = "defaults::queue_max")]
    pub queue_max: Placed<usize>,
    /// How long one waits at most; over it: 503.
    #[serde(default = "defaults::queue_timeout")]
    pub queue_timeout: Placed<Duration>,
    /// The part of the limit that sheddable requests may take up.
    #[serde(default = "defaults::sheddable_percent")]
    pub sheddable_percent: Placed<u32>,
}

impl Concurrency {
    /// Requests in flight at most; an adaptive limit needs no other.
    pub fn in_flight_max(&self) -> Option<Placed<u32>> {
        let default = self.adaptive.then(|| Placed::absent(1000));
        self.in_flight_max.clone().or(default)
    }

    /// adaptive: the lowest limit.
    pub fn in_flight_min(&self) -> Placed<u32> {
        let given = self.in_flight_min.clone();
        given.unwrap_or_else(|| Placed::absent(3))
    }

    /// adaptive: the limit before anything was measured.
    pub fn in_flight_start(&self) -> Placed<u32> {
        let given = self.in_flight_start.clone();
        given.unwrap_or_else(|| Placed::absent(20))
    }

    /// adaptive: how many times the latency without load is accepted.
    pub fn latency_tolerance(&self) -> Placed<f64> {
        let given = self.latency_tolerance.clone();
        given.unwrap_or_else(|| Placed::absent(1.5))
    }

    /// adaptive: the time between measurements of the latency without load.
    pub fn probe_every(&self) -> Placed<Duration> {
        let given = self.probe_every.clone();
        given.unwrap_or_else(|| Placed::absent(Duration::from_secs(30)))
    }

    /// Writes out the defaults that depend on `adaptive`.
    pub(super) fn complete(&mut self) {
        if self.adaptive {
            self.in_flight_max = self.in_flight_max();
            self.in_flight_min = Some(self.in_flight_min());
            self.in_flight_start = Some(self.in_flight_start());
            self.latency_tolerance = Some(self.latency_tolerance());
            self.probe_every = Some(self.probe_every());
        }
    }
}

/// `priority_by = { … }` of a route: where a request may say its own priority.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriorityBy {
    /// `jwt.CLAIM`, `api-key`, or `header.NAME`, which is believed from `trusted_proxies` only.
    pub from: Placed<String>,
    /// value = priority; left out: the values are the names of priorities. Other values say
    /// nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: Named<Class>,
}

/// Defaults that serde wants as functions.
mod defaults {
    use super::{Duration, Placed};

    pub(super) fn queue_max() -> Placed<usize> {
        Placed::absent(100)
    }

    pub(super) fn queue_timeout() -> Placed<Duration> {
        Placed::absent(Duration::from_millis(200))
    }

    pub(super) fn sheddable_percent() -> Placed<u32> {
        Placed::absent(80)
    }
}
