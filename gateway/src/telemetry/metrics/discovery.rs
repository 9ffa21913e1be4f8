//! What came of looking for instances.

use super::configured::Configured;
use super::page::Page;

/// Answers, by service, where instances are looked for.
pub(super) fn answers(page: &mut Page<'_>, configured: &Configured) {
    let services = || {
        let services = configured.services.iter();
        services.filter_map(|service| Some((service, service.found.as_ref()?)))
    };
    let help = "Answers to where the instances of a service are.";
    page.counters("discovery_answers", help, |family| {
        for (service, record) in services() {
            for (result, count) in record.counts() {
                family.count(
                    &[("service", service.service.as_str()), ("result", result)],
                    count,
                );
            }
        }
    });
    let help = "1 while the last question was not answered: the known instances are kept.";
    page.gauges("discovery_stale", help, |family| {
        for (service, record) in services() {
            let stale = f64::from(u8::from(record.is_stale()));
            family.level(&[("service", service.service.as_str())], stale);
        }
    });
    let help = "Instances of a service, listed and found.";
    page.gauges("discovery_instances", help, |family| {
        for (service, _) in services() {
            let count = service.instances.len() as f64;
            family.level(&[("service", service.service.as_str())], count);
        }
    });
}
