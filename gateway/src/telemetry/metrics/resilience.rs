//! Retries, hedges, ejections and circuit breakers.

use std::sync::Arc;
use std::time::Instant;

use super::configured::{Configured, ServiceHealth};
use super::counter::Counter;
use super::page::Page;
use super::shard::Shard;
use crate::upstream::availability::Bar;
use crate::upstream::budget::Exhausted;
use crate::upstream::instance::Instance;

/// What one worker counts of attempts after the first.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    retries: Counter,
    /// By [`Exhausted`].
    refused: [Counter; Exhausted::NAMES.len()],
    hedges: Counter,
    hedges_won: Counter,
}

impl Repeats {
    /// A request needed this many attempts after the first, and would have had another one if
    /// there had been room in the budget.
    pub(crate) fn retried(&self, times: u32, refused: Option<Exhausted>) {
        if times > 0 {
            self.retries.add(u64::from(times));
        }
        if let Some(exhausted) = refused {
            self.refused[exhausted as usize].add(1);
        }
    }

    /// This many further instances were asked for a request, and one of them was quicker, or none.
    pub(crate) fn hedged(&self, times: u32, won: bool) {
        if times > 0 {
            self.hedges.add(u64::from(times));
            self.hedges_won.add(u64::from(won));
        }
    }
}

/// What workers counted.
pub(super) fn repeats(page: &mut Page<'_>, shards: &[Arc<Shard>]) {
    let sum = |of: fn(&Repeats) -> &Counter| -> u64 {
        shards.iter().map(|shard| of(&shard.repeats).read()).sum()
    };
    page.counter("retries", "Attempts after the first.", sum(|r| &r.retries));
    let help = "Attempts there was no room for in the service's budget, by its limit.";
    page.counters("retries_refused", help, |family| {
        for (index, reason) in Exhausted::NAMES.into_iter().enumerate() {
            let counts = shards.iter().map(|shard| &shard.repeats.refused[index]);
            family.count(&[("reason", reason)], counts.map(Counter::read).sum());
        }
    });
    let help = "Further instances asked because the first was slow.";
    page.counter("hedges", help, sum(|r| &r.hedges));
    let help = "Requests that a further instance answered first.";
    page.counter("hedges_won", help, sum(|r| &r.hedges_won));
}

/// What was done about instances and services that fail, where that is configured.
pub(super) fn faults(page: &mut Page<'_>, configured: &Configured, now: Instant) {
    let ejecting = |service: &&ServiceHealth| service.faults.outliers.is_some();
    let services = || configured.services.iter().filter(ejecting);
    let help = "1 while the instance is left out because its answers failed.";
    page.gauges("instance_ejected", help, |family| {
        each_instance(services(), |labels, instance| {
            let ejected = instance.availability.is_barred(Bar::Ejected, now);
            family.level(&labels, f64::from(u8::from(ejected)));
        });
    });
    let help = "How often an instance was left out because its answers failed.";
    page.counters("instance_ejections", help, |family| {
        each_instance(services(), |labels, instance| {
            family.count(&labels, instance.tally.ejections());
        });
    });
    let breakers = || {
        let services = configured.services.iter();
        services.filter_map(|one| Some((&one.service, one.faults.breaker.as_ref()?)))
    };
    let help = "1 while the service's circuit breaker is open or half open.";
    page.gauges("circuit_open", help, |family| {
        for (service, breaker) in breakers() {
            let open = f64::from(u8::from(breaker.is_open()));
            family.level(&[("service", service.as_str())], open);
        }
    });
    let help = "How often the service's circuit breaker has opened.";
    page.counters("circuit_openings", help, |family| {
        for (service, breaker) in breakers() {
            family.count(&[("service", service.as_str())], breaker.openings());
        }
    });
}

fn each_instance<'c>(
    services: impl Iterator<Item = &'c ServiceHealth>,
    mut visit: impl FnMut([(&str, &str); 2], &Instance),
) {
    for service in services {
        for instance in &service.instances {
            let labels = [
                ("service", &*service.service),
                ("instance", &*instance.name),
            ];
            visit(labels, instance);
        }
    }
}
