//! Numbers one thread writes and another reads: no locked instruction, no shared cache line.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A counter only ever added to by one thread, and read by another.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        // One writer: a plain load and store spare the locked instruction.
        self.0.store(self.read() + amount, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, changed by one thread only.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn add(&self, amount: i64) {
        self.0.store(self.read() + amount, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Values sorted into ranges, by one thread only.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    ranges: &'static Ranges<N>,
    counts: [Counter; N],
    /// Values beyond the last bound.
    beyond: Counter,
    sum: Counter,
}

/// The ranges of a histogram.
#[derive(Debug)]
pub(crate) struct Ranges<const N: usize> {
    /// Upper bounds, inclusive, ascending, in the unit that is counted in.
    pub(crate) bounds: [u64; N],
    /// How many of that unit are one of the unit that is shown.
    pub(crate) per_shown: f64,
}

impl<const N: usize> Histogram<N> {
    pub(crate) fn new(ranges: &'static Ranges<N>) -> Self {
        Self {
            ranges,
            counts: [const { Counter(AtomicU64::new(0)) }; N],
            beyond: Counter::default(),
            sum: Counter::default(),
        }
    }

    pub(crate) fn observe(&self, value: u64) {
        let range = self.ranges.bounds.partition_point(|bound| *bound < value);
        self.counts.get(range).unwrap_or(&self.beyond).add(1);
        self.sum.add(value);
    }
}

/// A histogram as it is shown: those of several threads added up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    /// Upper bound and number of values in each range, the last one endless.
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) sum: f64,
    pub(crate) count: u64,
}

impl Distribution {
    /// The sum of histograms over the same ranges.
    pub(crate) fn of<'h, const N: usize>(
        ranges: &'static Ranges<N>,
        histograms: impl Iterator<Item = &'h Histogram<N>>,
    ) -> Self {
        let shown = |value: u64| value as f64 / ranges.per_shown;
        let bounds = ranges.bounds.iter().map(|bound| shown(*bound));
        let mut buckets: Vec<(f64, u64)> = bounds
            .chain([f64::INFINITY])
            .map(|bound| (bound, 0))
            .collect();
        let mut sum = 0;
        for histogram in histograms {
            let counts = histogram.counts.iter().chain([&histogram.beyond]);
            for (bucket, count) in buckets.iter_mut().zip(counts) {
                bucket.1 += count.read();
            }
            sum += histogram.sum.read();
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        Self {
            buckets,
            sum: shown(sum),
            count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TENTHS: Ranges<2> = Ranges {
        bounds: [10, 20],
        per_shown: 10.0,
    };

    #[test]
    fn values_fall_into_the_range_whose_bound_they_reach() {
        let (one, other) = (Histogram::new(&TENTHS), Histogram::new(&TENTHS));
        for value in [0, 10, 11, 20] {
            one.observe(value);
        }
        other.observe(21);
        let total = Distribution::of(&TENTHS, [&one, &other].into_iter());
        assert_eq!(total.buckets, [(1.0, 2), (2.0, 2), (f64::INFINITY, 1)]);
        assert_eq!((total.sum, total.count), (6.2, 5));
    }
}
