//! Rows of the result: the turns of a proxy in a case, summed up.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::proxy::Running;
use super::usage::Usage;
use crate::report;

/// One proxy in one case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) proxy: String,
    /// Of ours also how it was built, as far as that is known.
    pub(crate) version: String,
    /// Median of the turns, then their range.
    pub(crate) requests_per_cpu_second: Option<u64>,
    pub(crate) requests_per_cpu_second_least: Option<u64>,
    pub(crate) requests_per_cpu_second_most: Option<u64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    /// Percent of one CPU that the proxy has used; much less than 100: something else was full.
    pub(crate) cpu_percent: Option<u64>,
    /// Percent of its CPU time that was the kernel's.
    pub(crate) system_percent: Option<u64>,
    /// Answers that were counted.
    pub(crate) requests: u64,
    /// Why there are no figures.
    pub(crate) failure: Option<String>,
}

/// One turn.
pub(crate) struct Turn {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    pub(crate) used: Usage,
    pub(crate) latencies: Histogram<u64>,
    pub(crate) memory_bytes: u64,
}

impl Turn {
    fn requests_per_cpu_second(&self) -> u64 {
        (self.requests as f64 / self.used.cpu.as_secs_f64()) as u64
    }
}

/// The turns of one proxy in one case.
#[derive(Default)]
pub(crate) struct Turns {
    turns: Vec<Turn>,
    pub(crate) failure: Option<String>,
}

impl Turns {
    pub(crate) fn add(&mut self, turn: Turn) {
        self.turns.push(turn);
    }

    pub(crate) fn row(self, case: &str, proxy: &Running) -> Row {
        let mut row = Row::empty(case, proxy.program.name, &proxy.program.version);
        if self.failure.is_some() {
            row.failure = self.failure;
            return row;
        }
        let mut rates: Vec<u64> = self
            .turns
            .iter()
            .map(Turn::requests_per_cpu_second)
            .collect();
        rates.sort_unstable();
        row.requests_per_cpu_second = rates.get(rates.len() / 2).copied();
        row.requests_per_cpu_second_least = rates.first().copied();
        row.requests_per_cpu_second_most = rates.last().copied();
        row.memory_bytes = self.turns.iter().map(|turn| turn.memory_bytes).max();
        row.requests = self.turns.iter().map(|turn| turn.requests).sum();
        let used = sum(self.turns.iter().map(|turn| turn.used));
        let elapsed: Duration = self.turns.iter().map(|turn| turn.elapsed).sum();
        let share = used.cpu.as_secs_f64() / elapsed.as_secs_f64();
        row.cpu_percent = Some((share * 100.0).round() as u64);
        row.system_percent = used.system_percent();
        let mut histograms = self.turns.into_iter().map(|turn| turn.latencies);
        if let Some(mut all) = histograms.next() {
            histograms.for_each(|other| all += other);
            row.latencies(&all);
        }
        row
    }
}

fn sum(usages: impl Iterator<Item = Usage>) -> Usage {
    usages.fold(Usage::default(), |all, one| Usage {
        cpu: all.cpu + one.cpu,
        user_ticks: all.user_ticks + one.user_ticks,
        system_ticks: all.system_ticks + one.system_ticks,
    })
}

impl Row {
    /// A row without figures.
    pub(crate) fn empty(case: &str, proxy: &str, version: &str) -> Self {
        Self {
            case: case.to_owned(),
            proxy: proxy.to_owned(),
            version: version.to_owned(),
            requests_per_cpu_second: None,
            requests_per_cpu_second_least: None,
            requests_per_cpu_second_most: None,
            p50_us: None,
            p99_us: None,
            memory_bytes: None,
            cpu_percent: None,
            system_percent: None,
            requests: 0,
            failure: None,
        }
    }

    /// Takes over median and 99th percentile of nanoseconds.
    pub(crate) fn latencies(&mut self, latencies: &Histogram<u64>) {
        let at = |quantile| {
            let us = latencies.value_at_quantile(quantile) as f64 / 1000.0;
            (us * 10.0).round() / 10.0
        };
        self.p50_us = Some(at(0.5));
        self.p99_us = Some(at(0.99));
    }

    /// Prints `rows`, all of one case.
    pub(crate) fn table(rows: &[Self]) {
        let Some(first) = rows.first() else { return };
        let header = [
            first.case.as_str(),
            "requests per CPU-second",
            "range",
            "p50 µs",
            "p99 µs",
            "memory",
            "CPU %",
            "system %",
        ];
        let cells = |row: &Self| {
            let mut cells = row.cells();
            if row.case != first.case {
                cells[0] = format!("{}: {}", row.proxy, row.case);
            }
            cells
        };
        let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
        let (header, rows) = filled(&header, &rows);
        report::table(&header, &rows);
    }

    fn cells(&self) -> Vec<String> {
        let range = self
            .requests_per_cpu_second_least
            .zip(self.requests_per_cpu_second_most)
            .map(|(least, most)| format!("{least} to {most}"));
        let rate = match &self.failure {
            Some(failure) => format!("failed: {failure}"),
            None => text(self.requests_per_cpu_second),
        };
        vec![
            self.proxy.clone(),
            rate,
            range.unwrap_or_default(),
            text(self.p50_us),
            text(self.p99_us),
            text(self.memory_bytes.map(size)),
            text(self.cpu_percent),
            text(self.system_percent),
        ]
    }
}

/// The columns in which something stands.
fn filled<'a>(header: &[&'a str], rows: &[Vec<String>]) -> (Vec<&'a str>, Vec<Vec<String>>) {
    let is_filled = |column: &usize| rows.iter().any(|row| !row[*column].is_empty());
    let columns: Vec<usize> = (0..header.len()).filter(is_filled).collect();
    let pick = |row: &Vec<String>| columns.iter().map(|&column| row[column].clone()).collect();
    let header = columns.iter().map(|&column| header[column]).collect();
    (header, rows.iter().map(pick).collect())
}

/// Bytes for people to read.
fn size(bytes: u64) -> String {
    match bytes as f64 {
        bytes @ 1048576.0.. => format!("{:.1} MiB", bytes / 1048576.0),
        bytes => format!("{:.2} KiB", bytes / 1024.0),
    }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_columns_are_left_out() {
        let rows = [["a", "", "1"], ["b", "", ""]].map(|row| row.map(str::to_owned).to_vec());
        let (header, rows) = filled(&["x", "y", "z"], &rows);
        assert_eq!(header, ["x", "z"]);
        assert_eq!(rows, [["a", "1"], ["b", ""]]);
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(size(10 << 20), "10.0 MiB");
        assert_eq!(size(819), "0.80 KiB");
    }
}
