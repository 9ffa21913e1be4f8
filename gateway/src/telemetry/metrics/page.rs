//! A page of metrics being written: what parts of the gateway add their series to.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::counter::Distribution;

/// A page being written. Names are without the prefix `weir_gateway_`, and those of counters
/// without `_total`: the encoder adds both.
#[derive(Debug)]
pub(crate) struct Page<'e> {
    encoder: DescriptorEncoder<'e>,
    outcome: fmt::Result,
}

impl<'e> Page<'e> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self {
            encoder,
            outcome: Ok(()),
        }
    }

    /// Whether all of it could be written: an error says that nobody reads on.
    pub(super) fn outcome(&self) -> fmt::Result {
        self.outcome
    }

    /// Counters of one name; `fill` adds them.
    pub(crate) fn counters(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Family<'_>)) {
        self.family(MetricType::Counter, name, help, fill);
    }

    /// Gauges of one name.
    pub(crate) fn gauges(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Family<'_>)) {
        self.family(MetricType::Gauge, name, help, fill);
    }

    /// Histograms of one name.
    pub(crate) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        fill: impl FnOnce(&mut Family<'_>),
    ) {
        self.family(MetricType::Histogram, name, help, fill);
    }

    /// What is so, told by labels alone.
    pub(crate) fn info(&mut self, name: &str, help: &str, labels: &impl EncodeLabelSet) {
        self.family(MetricType::Info, name, help, |family| {
            family.alone(|encoder| encoder.encode_info(labels));
        });
    }

    /// A counter without labels.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, |family| {
            family.alone(|encoder| encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None));
        });
    }

    /// A counter without labels of something that is not counted in whole numbers.
    pub(crate) fn amount(&mut self, name: &str, help: &str, value: f64) {
        self.counters(name, help, |family| {
            family.alone(|encoder| encoder.encode_counter::<NoLabelSet, f64, u64>(&value, None));
        });
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, |family| {
            family.alone(|encoder| encode_level(encoder, value));
        });
    }

    /// A histogram without labels.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, value: &Distribution) {
        self.histograms(name, help, |family| {
            family.alone(|encoder| encode_distribution(encoder, value));
        });
    }

    fn family(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        fill: impl FnOnce(&mut Family<'_>),
    ) {
        if self.outcome.is_err() {
            return;
        }
        self.outcome = self
            .encoder
            .encode_descriptor(name, help, None, kind)
            .and_then(|encoder| {
                let mut family = Family {
                    encoder,
                    outcome: Ok(()),
                };
                fill(&mut family);
                family.outcome
            });
    }
}

/// The series of one name. Labels are pairs of name and value, in an array.
#[derive(Debug)]
pub(crate) struct Family<'e> {
    encoder: MetricEncoder<'e>,
    outcome: fmt::Result,
}

impl Family<'_> {
    /// One counter.
    pub(crate) fn count(&mut self, labels: &impl EncodeLabelSet, value: u64) {
        self.labelled(labels, |encoder| {
            encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None)
        });
    }

    /// One counter of something that is not counted in whole numbers.
    pub(crate) fn amount(&mut self, labels: &impl EncodeLabelSet, value: f64) {
        self.labelled(labels, |encoder| {
            encoder.encode_counter::<NoLabelSet, f64, u64>(&value, None)
        });
    }

    /// One gauge.
    pub(crate) fn level(&mut self, labels: &impl EncodeLabelSet, value: f64) {
        self.labelled(labels, |encoder| encode_level(encoder, value));
    }

    /// One histogram.
    pub(crate) fn distribution(&mut self, labels: &impl EncodeLabelSet, value: &Distribution) {
        self.labelled(labels, |encoder| encode_distribution(encoder, value));
    }

    fn labelled(
        &mut self,
        labels: &impl EncodeLabelSet,
        encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) {
        if self.outcome.is_ok() {
            let sample = self.encoder.encode_family(labels);
            self.outcome = sample.and_then(|mut encoder| encode(&mut encoder));
        }
    }

    /// The only series of its name.
    fn alone(&mut self, encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result) {
        self.outcome = self.outcome.and_then(|()| encode(&mut self.encoder));
    }
}

fn encode_level(encoder: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
    // Most are whole numbers, which read better as such; up to 2^53 each is exact.
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        encoder.encode_gauge(&(value as i64))
    } else {
        encoder.encode_gauge(&value)
    }
}

fn encode_distribution(encoder: &mut MetricEncoder<'_>, value: &Distribution) -> fmt::Result {
    let Distribution {
        buckets,
        sum,
        count,
    } = value;
    encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
}
