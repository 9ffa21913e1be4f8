//! Where many requests went, by gateway and instance, as a table and as shares.

use std::collections::{BTreeMap, BTreeSet};

use super::scenes::Place;

/// Requests by gateway and instance.
#[derive(Debug, Default, Clone)]
pub struct Spread {
    counts: BTreeMap<(String, String), usize>,
}

impl Spread {
    /// Counts one request.
    pub fn add(&mut self, place: &Place) {
        let key = (place.instance.clone(), place.gateway.clone());
        *self.counts.entry(key).or_default() += 1;
    }

    /// All requests.
    #[must_use]
    pub fn sum(&self) -> usize {
        self.counts.values().sum()
    }

    /// Requests that passed one gateway.
    #[must_use]
    pub fn of_gateway(&self, name: &str) -> usize {
        self.counts
            .iter()
            .filter(|((_, gateway), _)| gateway == name)
            .map(|(_, count)| count)
            .sum()
    }

    /// Requests that one instance answered.
    #[must_use]
    pub fn of_instance(&self, name: &str) -> usize {
        self.counts
            .iter()
            .filter(|((instance, _), _)| instance == name)
            .map(|(_, count)| count)
            .sum()
    }

    fn gateways(&self) -> BTreeSet<&str> {
        self.counts
            .keys()
            .map(|(_, gateway)| gateway.as_str())
            .collect()
    }

    fn instances(&self) -> BTreeSet<&str> {
        self.counts
            .keys()
            .map(|(instance, _)| instance.as_str())
            .collect()
    }

    /// A table with a row per instance and a column per gateway.
    #[must_use]
    pub fn table(&self) -> Vec<String> {
        let head = self.gateways().into_iter().map(str::to_owned);
        let mut lines = vec![line("", head.chain(["sum".to_owned()]))];
        for instance in self.instances() {
            let of = |gateway: &str| {
                let key = (instance.to_owned(), gateway.to_owned());
                self.counts.get(&key).copied().unwrap_or(0)
            };
            lines.push(self.row(instance, of, self.of_instance(instance)));
        }
        lines.push(self.row("sum", |gateway| self.of_gateway(gateway), self.sum()));
        lines
    }

    fn row(&self, name: &str, of: impl Fn(&str) -> usize, sum: usize) -> String {
        let counts = self.gateways().into_iter().map(of).chain([sum]);
        line(name, counts.map(|count| count.to_string()))
    }

    /// Such as `gateway-1 220 (52 %), gateway-2 200 (48 %)`.
    #[must_use]
    pub fn shares(&self) -> String {
        let share = |gateway| {
            let count = self.of_gateway(gateway);
            let percent = 100.0 * count as f64 / self.sum().max(1) as f64;
            format!("{gateway} {count} ({percent:.0} %)")
        };
        self.gateways()
            .into_iter()
            .map(share)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: String = cells.map(|cell| format!("{cell:>12}")).collect();
    format!("{name:<14}{cells}")
}

/// Eight requests, for tests.
#[cfg(test)]
pub(super) fn example() -> Spread {
    let mut spread = Spread::default();
    for (gateway, instance, count) in [
        ("gateway-1", "users-1", 3),
        ("gateway-2", "users-1", 1),
        ("gateway-2", "orders-1", 4),
    ] {
        let place = Place {
            gateway: gateway.to_owned(),
            instance: instance.to_owned(),
        };
        (0..count).for_each(|_| spread.add(&place));
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_sums_rows_and_columns() {
        let expected = [
            "                 gateway-1   gateway-2         sum",
            "orders-1                 0           4           4",
            "users-1                  3           1           4",
            "sum                      3           5           8",
        ];
        assert_eq!(example().table(), expected);
    }

    #[test]
    fn shares_are_percentages_of_all() {
        assert_eq!(example().shares(), "gateway-1 3 (38 %), gateway-2 5 (62 %)");
        assert_eq!(Spread::default().shares(), "");
    }
}
