//! The part of the page about too much work: limits of requests in flight, and of the process.

use std::sync::Arc;

use super::{Collect, Configured, Page};
use crate::overload::gate::{self, Refused};
use crate::overload::pressure::{self, Pressure};
use crate::overload::{Class, Gate};

/// The limits of requests in flight by sender.
pub(super) fn senders(page: &mut Page<'_>, configured: &Configured) {
    let help = "Requests counted among those of their sender, by what came of it.";
    page.counters("in_flight_limit", help, |family| {
        for limit in &configured.in_flight_limits {
            let counts = limit.counts();
            for (result, count) in [("allowed", counts.allowed), ("limited", counts.limited)] {
                let labels = [("limit", &*limit.policy().name), ("result", result)];
                family.count(&labels, count);
            }
        }
    });
    let help = "Senders with requests under way.";
    page.gauges("in_flight_limit_keys", help, |family| {
        for limit in &configured.in_flight_limits {
            let labels = [("limit", &*limit.policy().name)];
            family.level(&labels, limit.counts().keys as f64);
        }
    });
}

/// The limits of requests in flight.
pub(super) fn gates(page: &mut Page<'_>, configured: &Configured) {
    let gates: Vec<Limited<'_>> = Limited::all(configured).collect();
    if gates.is_empty() {
        return;
    }
    type Level = fn(&gate::Reading) -> u32;
    let levels: [(&str, &str, Level); 3] = [
        (
            "concurrency_limit",
            "Requests that may be in flight.",
            |reading| reading.limit,
        ),
        ("concurrency_in_flight", "Requests in flight.", |reading| {
            reading.in_flight
        }),
        (
            "concurrency_waiting",
            "Requests that wait for a place.",
            |reading| reading.waiting,
        ),
    ];
    for (name, help, value) in levels {
        page.gauges(name, help, |family| {
            for one in &gates {
                family.level(&one.labels, f64::from(value(&one.reading)));
            }
        });
    }
    let help = "The latency without load, as measured.";
    page.gauges("concurrency_baseline_seconds", help, |family| {
        for one in &gates {
            if let Some(micros) = one.reading.baseline_us {
                family.level(&one.labels, seconds(micros));
            }
        }
    });
    queues(page, &gates);
    refusals(page, &gates);
}

fn queues(page: &mut Page<'_>, gates: &[Limited<'_>]) {
    let help = "Requests that waited for a place and got it.";
    page.counters("concurrency_queued", help, |family| {
        for one in gates {
            family.count(&one.labels, one.reading.queued);
        }
    });
    let help = "How long they waited.";
    page.counters("concurrency_queued_seconds", help, |family| {
        for one in gates {
            family.amount(&one.labels, seconds(one.reading.queued_us));
        }
    });
}

fn refusals(page: &mut Page<'_>, gates: &[Limited<'_>]) {
    let help = "Requests refused at the limit.";
    page.counters("concurrency_refused", help, |family| {
        for one in gates {
            let [kind, name_of] = one.labels;
            for class in Class::ALL {
                for reason in Refused::ALL {
                    let labels = [
                        kind,
                        name_of,
                        ("priority", class.name()),
                        ("reason", reason.name()),
                    ];
                    match one.gate.refused(class, reason) {
                        0 => {}
                        count => family.count(&labels, count),
                    }
                }
            }
        }
    });
}

impl Collect for Pressure {
    fn collect(&self, page: &mut Page<'_>) {
        let reading = self.reading();
        let help = "0 normal, 1 relief, 2 sheddable, 3 default, 4 all, 5 closed, 6 cut.";
        page.gauge("overload_stage", help, f64::from(reading.stage as u8));
        let help = "Resident memory, where it is limited.";
        page.gauge("overload_memory_bytes", help, reading.memory as f64);
        let help = "The limit of resident memory.";
        page.gauge("overload_memory_max_bytes", help, reading.memory_max as f64);
        let help = "Open files the process may have.";
        page.gauge("descriptors_max", help, reading.descriptors_max as f64);
        let help = "How late the event loop stands, where that is limited.";
        page.gauges("overload_loop_lag_seconds", help, |family| {
            for (worker, micros) in reading.lag_us.iter().enumerate() {
                family.level(&[("worker", worker.to_string())], seconds(*micros));
            }
        });
        shed(page, &reading);
    }
}

fn shed(page: &mut Page<'_>, reading: &pressure::Reading) {
    let help = "Requests refused to keep the process alive.";
    page.counters("overload_refused", help, |family| {
        for (reason, counts) in ["memory-short", "gateway-busy"].iter().zip(reading.shed) {
            for (class, count) in Class::ALL.iter().zip(counts) {
                let labels = [("reason", *reason), ("priority", class.name())];
                family.count(&labels, count);
            }
        }
    });
    let [memory, descriptors] = reading.turned;
    let [idle, cut, tunnels] = reading.closed;
    let help = "Client connections closed to keep the process alive.";
    page.counters("overload_connections", help, |family| {
        for (result, count) in [
            ("refused-memory", memory),
            ("refused-descriptors", descriptors),
            ("closed-idle", idle),
            ("cut", cut),
            ("cut-tunnel", tunnels),
        ] {
            family.count(&[("result", result)], count);
        }
    });
}

/// One gate, and what it shows.
struct Limited<'g> {
    labels: [(&'static str, &'g str); 2],
    gate: &'g Arc<Gate>,
    reading: gate::Reading,
}

impl<'g> Limited<'g> {
    fn all(configured: &'g Configured) -> impl Iterator<Item = Self> {
        let named = |kind: &'static str| {
            move |(name, gate): (&'g String, &'g Arc<Gate>)| Self {
                labels: [("kind", kind), ("name", name)],
                gate,
                reading: gate.reading(),
            }
        };
        let services = configured.gates.services.iter().map(named("service"));
        services.chain(configured.gates.routes.iter().map(named("route")))
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
