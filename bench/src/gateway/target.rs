//! The targets, and which of them the rows reach: ratios within one run.

use std::fmt;

use super::{Row, chain, cores, footprint, latency};
use crate::report;

/// A target: what is compared, and with what.
struct Target {
    what: String,
    figure: Option<f64>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    Least(f64),
    Most(f64),
}

/// Prints the targets of which there are rows.
pub(super) fn table(rows: &[Row]) {
    let lines: Vec<Vec<String>> = targets(rows).iter().filter_map(Target::line).collect();
    report::table(&[&title(rows), "wanted", "figure", ""], &lines);
}

/// What it is that is judged.
fn title(rows: &[Row]) -> String {
    let ours = rows.iter().find(|row| row.proxy == "weir");
    ours.map_or("target".to_owned(), |row| {
        format!("target for weir {}", row.version)
    })
}

fn targets(rows: &[Row]) -> Vec<Target> {
    let rows = Rows(rows);
    let mut targets = Vec::new();
    let mut rate = |case: &str, peers: &[&str], least: f64| {
        let ours = rows.rate(case, "weir");
        let peer = peers
            .iter()
            .filter_map(|peer| rows.rate(case, peer))
            .reduce(f64::max);
        targets.push(Target {
            what: format!("{case}: weir / {}", peers.join(" or ")),
            figure: ratio(ours, peer),
            bound: Bound::Least(least),
        });
    };
    let better = ["nginx", "haproxy"];
    for size in ["95B", "16KiB"] {
        let case = format!("h1 {size} keep-alive");
        rate(&case, &["haproxy"], 1.0);
        rate(&case, &["nginx"], 1.0);
    }
    rate(
        "h1 1MiB keep-alive",
        &["nginx", "haproxy", "envoy", "caddy"],
        0.9,
    );
    for protocol in ["TLS h1", "TLS h2→h1"] {
        for size in ["95B", "16KiB", "1MiB"] {
            rate(&format!("{protocol} {size} keep-alive"), &better, 1.0);
        }
    }
    for protocol in ["h1", "TLS h1", "TLS h2→h1"] {
        for size in ["95B", "16KiB", "1MiB"] {
            rate(
                &format!("{protocol} {size} new connection"),
                &["haproxy"],
                1.0,
            );
        }
    }
    targets.extend(others(&rows));
    targets
}

fn others(rows: &Rows<'_>) -> Vec<Target> {
    let rates = |case, beside| ratio(rows.rate(case, "weir"), rows.rate(beside, "weir"));
    let memory = |case, unit: f64| Some(rows.row(case, "weir")?.memory_bytes? as f64 / unit);
    let (kib, mib) = (1024.0, 1048576.0);
    let chain = rates(chain::CASE, chain::CASE_BARE);
    let mut targets = vec![target("full chain / bare", chain, Bound::Least(0.7))];
    targets.extend(latencies(rows));
    targets.extend([
        target(
            "memory of an idle connection, KiB",
            memory(footprint::CASE_IDLE, kib),
            Bound::Most(4.0),
        ),
        target(
            "memory after start, MiB",
            memory(footprint::CASE_START, mib),
            Bound::Most(10.0),
        ),
        target(
            "memory with 5000 routes, MiB",
            memory(footprint::CASE_ROUTES, mib),
            Bound::Most(40.0),
        ),
        target(
            "two workers / one, by CPU-seconds",
            rates(cores::CASE_TWO, cores::CASE_ONE).map(|ratio| 2.0 * ratio),
            Bound::Least(1.8),
        ),
    ]);
    targets
}

fn latencies(rows: &Rows<'_>) -> Vec<Target> {
    let mut targets = Vec::new();
    let cases = [
        ("added latency", latency::CASE_ADDED),
        ("added latency, busy polling", latency::CASE_BUSY_ADDED),
    ];
    for (what, case) in cases {
        let row = rows.row(case, "weir");
        let quantiles = [
            ("p50", row.and_then(|row| row.p50_us), 20.0),
            ("p99", row.and_then(|row| row.p99_us), 50.0),
        ];
        for (quantile, figure, most) in quantiles {
            let what = format!("{what}, {quantile}, µs");
            targets.push(target(&what, figure, Bound::Most(most)));
        }
    }
    let cases = [
        (
            "p99 at 80 % of its own saturation: weir / haproxy",
            latency::CASE_OWN,
        ),
        ("p99 at the same rate: weir / haproxy", latency::CASE_COMMON),
    ];
    for (what, case) in cases {
        let p99 = |proxy| rows.row(case, proxy)?.p99_us;
        let figure = ratio(p99("weir"), p99("haproxy"));
        targets.push(target(what, figure, Bound::Most(1.2)));
    }
    targets
}

fn target(what: &str, figure: Option<f64>, bound: Bound) -> Target {
    Target {
        what: what.to_owned(),
        figure,
        bound,
    }
}

struct Rows<'a>(&'a [Row]);

impl Rows<'_> {
    fn row(&self, case: &str, proxy: &str) -> Option<&Row> {
        let mut rows = self.0.iter();
        rows.find(|row| row.case == case && row.proxy == proxy)
    }

    fn rate(&self, case: &str, proxy: &str) -> Option<f64> {
        Some(self.row(case, proxy)?.requests_per_cpu_second? as f64)
    }
}

fn ratio(figure: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(figure? / other?)
}

impl Target {
    /// Nothing without a figure: then the case was not asked for, or says itself that it failed.
    fn line(&self) -> Option<Vec<String>> {
        let figure = self.figure?;
        let verdict = if self.bound.holds(figure) {
            "reached"
        } else {
            "missed"
        };
        Some(vec![
            self.what.clone(),
            self.bound.to_string(),
            format!("{figure:.2}"),
            verdict.to_owned(),
        ])
    }
}

impl Bound {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::Least(bound) => figure >= bound,
            Self::Most(bound) => figure <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Least(bound) => write!(f, "≥ {bound}"),
            Self::Most(bound) => write!(f, "≤ {bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, proxy: &str, rate: u64) -> Row {
        Row {
            requests_per_cpu_second: Some(rate),
            p99_us: Some(rate as f64),
            memory_bytes: Some(rate),
            ..Row::empty(case, proxy, "1")
        }
    }

    fn lines(rows: &[Row]) -> Vec<Vec<String>> {
        targets(rows).iter().filter_map(Target::line).collect()
    }

    #[test]
    fn the_title_says_what_is_judged() {
        let peer = row("h1 95B keep-alive", "nginx", 100);
        let ours = Row {
            version: "0.1.0, built by a profile".to_owned(),
            ..row("h1 95B keep-alive", "weir", 80)
        };
        assert_eq!(title(std::slice::from_ref(&peer)), "target");
        let expected = "target for weir 0.1.0, built by a profile";
        assert_eq!(title(&[peer, ours]), expected);
    }

    #[test]
    fn only_targets_with_rows_are_judged() {
        let case = "h1 95B keep-alive";
        let rows = [
            row(case, "weir", 80),
            row(case, "haproxy", 80),
            row(case, "nginx", 100),
        ];
        let expected = [
            [
                "h1 95B keep-alive: weir / haproxy",
                "≥ 1",
                "1.00",
                "reached",
            ],
            ["h1 95B keep-alive: weir / nginx", "≥ 1", "0.80", "missed"],
        ];
        assert_eq!(lines(&rows), expected);
    }

    #[test]
    fn the_better_peer_counts_and_bounds_hold_at_their_edge() {
        let tls = "TLS h1 95B keep-alive";
        let rows = [
            row(tls, "weir", 90),
            row(tls, "nginx", 60),
            row(tls, "haproxy", 120),
            row(cores::CASE_TWO, "weir", 90),
            row(cores::CASE_ONE, "weir", 100),
            row(footprint::CASE_IDLE, "weir", 4097),
            row(latency::CASE_OWN, "weir", 120),
            row(latency::CASE_OWN, "haproxy", 100),
        ];
        let expected = [
            [
                "TLS h1 95B keep-alive: weir / nginx or haproxy",
                "≥ 1",
                "0.75",
                "missed",
            ],
            [
                "p99 at 80 % of its own saturation: weir / haproxy",
                "≤ 1.2",
                "1.20",
                "reached",
            ],
            ["memory of an idle connection, KiB", "≤ 4", "4.00", "missed"],
            [
                "two workers / one, by CPU-seconds",
                "≥ 1.8",
                "1.80",
                "reached",
            ],
        ];
        assert_eq!(lines(&rows), expected);
    }

    #[test]
    fn without_rows_there_is_nothing_to_say() {
        assert!(lines(&[]).is_empty());
    }
}
