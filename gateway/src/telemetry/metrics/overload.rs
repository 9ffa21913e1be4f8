//! The part of the page about too much work: limits of requests in flight, and of the process.

use std::sync::Arc;

use super::series::Configured;
use super::text::Page;
use crate::overload::gate::{self, Refused};
use crate::overload::{Class, Gate, pressure};

/// The limits of requests in flight.
pub(super) fn gates(page: &mut Page, configured: &Configured) {
    let gates: Vec<Limited<'_>> = Limited::all(configured).collect();
    if gates.is_empty() {
        return;
    }
    type Level = fn(&gate::Reading) -> u32;
    let levels: [(&str, &str, Level); 3] = [
        (
            "weir_gateway_concurrency_limit",
            "Requests that may be in flight.",
            |reading| reading.limit,
        ),
        (
            "weir_gateway_concurrency_in_flight",
            "Requests in flight.",
            |reading| reading.in_flight,
        ),
        (
            "weir_gateway_concurrency_waiting",
            "Requests that wait for a place.",
            |reading| reading.waiting,
        ),
    ];
    for (name, help, value) in levels {
        page.head(name, "gauge", help);
        for one in &gates {
            page.sample(name, &one.labels, value(&one.reading));
        }
    }
    let name = "weir_gateway_concurrency_baseline_seconds";
    page.head(name, "gauge", "The latency without load, as measured.");
    for one in &gates {
        if let Some(micros) = one.reading.baseline_us {
            page.sample(name, &one.labels, seconds(micros));
        }
    }
    queues(page, &gates);
    refusals(page, &gates);
}

fn queues(page: &mut Page, gates: &[Limited<'_>]) {
    let name = "weir_gateway_concurrency_queue_seconds";
    page.head(name, "summary", "Waits of requests that were let through.");
    for one in gates {
        let (sum, count) = (seconds(one.reading.queued_us), one.reading.queued);
        page.sample(&format!("{name}_sum"), &one.labels, sum);
        page.sample(&format!("{name}_count"), &one.labels, count);
    }
}

fn refusals(page: &mut Page, gates: &[Limited<'_>]) {
    let name = "weir_gateway_concurrency_refused_total";
    page.head(name, "counter", "Requests refused at the limit.");
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
                    count => page.sample(name, &labels, count),
                }
            }
        }
    }
}

/// What the process has left.
pub(super) fn pressure(page: &mut Page, reading: &pressure::Reading) {
    let help = "0 normal, 1 relief, 2 sheddable, 3 default, 4 all, 5 closed, 6 cut.";
    page.single("overload_stage", "gauge", help, reading.stage as u8);
    page.single(
        "overload_memory_bytes",
        "gauge",
        "Resident memory, where it is limited.",
        reading.memory,
    );
    page.single(
        "overload_memory_max_bytes",
        "gauge",
        "The limit of resident memory.",
        reading.memory_max,
    );
    page.single(
        "descriptors_max",
        "gauge",
        "Open files the process may have.",
        reading.descriptors_max,
    );
    let name = "weir_gateway_overload_loop_lag_seconds";
    page.head(
        name,
        "gauge",
        "How late the event loop stands, where that is limited.",
    );
    for (worker, micros) in reading.lag_us.iter().enumerate() {
        page.sample(name, &[("worker", &worker.to_string())], seconds(*micros));
    }
    let name = "weir_gateway_overload_refused_total";
    page.head(
        name,
        "counter",
        "Requests refused to keep the process alive.",
    );
    for (reason, counts) in ["memory-short", "gateway-busy"].iter().zip(reading.shed) {
        for (class, count) in Class::ALL.iter().zip(counts) {
            let labels = [("reason", *reason), ("priority", class.name())];
            page.sample(name, &labels, count);
        }
    }
    let name = "weir_gateway_overload_connections_total";
    page.head(
        name,
        "counter",
        "Client connections closed to keep the process alive.",
    );
    let [memory, descriptors] = reading.turned;
    let [idle, cut] = reading.closed;
    for (result, count) in [
        ("refused-memory", memory),
        ("refused-descriptors", descriptors),
        ("closed-idle", idle),
        ("cut", cut),
    ] {
        page.sample(name, &[("result", result)], count);
    }
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
