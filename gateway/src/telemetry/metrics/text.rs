//! The text format of Prometheus.

use std::fmt::{Display, Write};
/// A page being written.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// The two comment lines before a metric.
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// One line.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut text = String::new();
        for (index, (label, value)) in labels.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let value = value
                .replace('\\', r"\\")
                .replace('"', "\\\"")
                .replace('\n', r"\n");
            let _ = write!(text, "{comma}{label}=\"{value}\"");
        }
        self.line(format_args!("{name}{{{text}}} {value}"));
    }

    /// A metric without labels.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        let name = format!("weir_gateway_{name}");
        self.head(&name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    /// The series of one histogram; `counts` has one entry more than `bounds_us`.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds_us: &[u64],
        counts: &[u64],
        sum_us: u64,
    ) {
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (index, count) in counts.iter().enumerate() {
            below += count;
            let bound = bounds_us
                .get(index)
                .map_or_else(|| "+Inf".to_owned(), |us| seconds(*us).to_string());
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), below);
        }
        self.sample(&format!("{name}_sum"), labels, seconds(sum_us));
        self.sample(&format!("{name}_count"), labels, below);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
