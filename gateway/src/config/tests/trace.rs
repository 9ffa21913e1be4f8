//! The gateway's part in traces.

use std::path::Path;

use crate::config::Config;
use crate::telemetry::trace::Tracing;

/// What is refused.
pub(super) fn wrong() -> Vec<(&'static str, String)> {
    vec![("share of traces", section("sample = \"101%\""))]
}

fn section(lines: &str) -> String {
    format!("[tracing]\n{lines}\n")
}

#[test]
fn the_part_in_traces_is_chosen() {
    let half = Some(1 << 63);
    let table = [
        ("", Tracing::Join),
        ("traceparent = \"off\"", Tracing::Off),
        ("traceparent = \"begin\"", Tracing::Begin { sampled: None }),
        (
            "traceparent = \"begin\"\nsample = \"50%\"",
            Tracing::Begin { sampled: half },
        ),
    ];
    for (lines, expected) in table {
        let text = section(lines) + "[listeners.a]\nbind = \"127.0.0.1:0\"\n";
        let config = Config::parse(&text, Path::new("")).unwrap();
        assert_eq!(config.tracing, expected, "{lines}");
    }
}
