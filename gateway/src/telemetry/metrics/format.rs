//! The two text formats of the page, and how a scraper chooses one.
//!
//! The encoder writes OpenMetrics 1.0. The classic format of Prometheus (0.0.4) differs in its
//! comment lines only: there a counter is called what its sample is called, there is no type
//! `info` or `unknown`, no unit, and no mark at the end.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;

/// A page is handed on in pieces of about so many bytes, so that a large one takes no memory.
const PIECE_BYTES: usize = 64 * 1024;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text, version 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a scraper with this `Accept` field prefers; classic where it does not say.
    pub(crate) fn accepted(accept: Option<&HeaderValue>) -> Self {
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
        let weight = |kind: &str| {
            let ranges = accept.split(',').map(|range| range.split(';'));
            let named = ranges.filter_map(|mut parts| {
                let name = parts.next()?.trim();
                let quality = parts.find_map(|part| part.trim().strip_prefix("q="));
                let quality: f32 = quality.map_or(Some(1.0), |text| text.trim().parse().ok())?;
                name.eq_ignore_ascii_case(kind).then_some(quality)
            });
            named.fold(0.0, f32::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// The `Content-Type` of the page.
    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// Takes OpenMetrics text and hands it on in pieces, in the format asked for.
pub(super) struct Pieces<F> {
    format: Format,
    text: String,
    /// The `# HELP` line of the family whose type is not known yet: name and text.
    help: Option<(String, String)>,
    /// Takes a piece; an error ends the page.
    send: F,
}

impl<F: FnMut(Bytes) -> fmt::Result> Pieces<F> {
    pub(super) fn new(format: Format, send: F) -> Self {
        Self {
            format,
            text: String::new(),
            help: None,
            send,
        }
    }

    /// Hands on what is left.
    pub(super) fn finish(mut self) -> fmt::Result {
        self.hand_on()
    }

    /// Hands on the lines that are complete.
    fn hand_on(&mut self) -> fmt::Result {
        let complete = self.text.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = self.text.split_off(complete);
        let mut piece = std::mem::replace(&mut self.text, rest);
        if self.format == Format::Classic {
            piece = self.classic(&piece);
        }
        if piece.is_empty() {
            return Ok(());
        }
        (self.send)(piece.into())
    }

    fn classic(&mut self, lines: &str) -> String {
        let mut text = String::with_capacity(lines.len() + 256);
        for line in lines.split_inclusive('\n') {
            match line.strip_prefix("# ") {
                None => text.push_str(line),
                Some(comment) => self.comment(comment.trim_end_matches('\n'), &mut text),
            }
        }
        text
    }

    fn comment(&mut self, comment: &str, text: &mut String) {
        let mut words = comment.splitn(3, ' ');
        let (word, name, rest) = (words.next(), words.next(), words.next());
        match (word, name, rest) {
            (Some("HELP"), Some(name), rest) => {
                let help = rest.unwrap_or_default();
                self.help = Some((name.to_owned(), help.to_owned()));
            }
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                if let Some((_, help)) = self.help.take().filter(|(helped, _)| helped == name) {
                    text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
                }
                text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            // `# UNIT` and `# EOF`.
            _ => {}
        }
    }
}

impl<F: FnMut(Bytes) -> fmt::Result> fmt::Write for Pieces<F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        if self.text.len() < PIECE_BYTES {
            return Ok(());
        }
        self.hand_on()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_format_is_the_scrapers_choice() {
        use Format::{Classic, OpenMetrics};
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let table = [
            (None, Classic),
            (Some(""), Classic),
            (Some("*/*"), Classic),
            (Some("text/html"), Classic),
            (Some("application/openmetrics-text"), OpenMetrics),
            (Some("application/openmetrics-text;q=0"), Classic),
            (
                Some("application/openmetrics-text;q=0.3, text/plain"),
                Classic,
            ),
            (
                Some("text/plain;q=0.5, Application/OpenMetrics-Text; q=0.5"),
                OpenMetrics,
            ),
            (Some(prometheus), OpenMetrics),
        ];
        for (accept, expected) in table {
            let value = accept.map(|text| HeaderValue::from_str(text).unwrap());
            assert_eq!(Format::accepted(value.as_ref()), expected, "{accept:?}");
        }
    }

    #[test]
    fn the_classic_format_names_counters_as_their_samples() {
        let open = "# HELP a A counter.\n# TYPE a counter\na_total{x=\"# \"} 1\n\
            # HELP b_seconds Time.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 2\n\
            # HELP c What.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let classic = "# HELP a_total A counter.\n# TYPE a_total counter\na_total{x=\"# \"} 1\n\
            # HELP b_seconds Time.\n# TYPE b_seconds gauge\nb_seconds 2\n\
            # HELP c_info What.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        for (format, expected) in [(Format::OpenMetrics, open), (Format::Classic, classic)] {
            let mut page = Vec::new();
            let mut pieces = Pieces::new(format, |piece: Bytes| {
                page.extend_from_slice(&piece);
                Ok(())
            });
            // In small parts, as the encoder writes.
            for letter in open.split_inclusive(' ') {
                pieces.write_str(letter).unwrap();
            }
            pieces.finish().unwrap();
            assert_eq!(String::from_utf8(page).unwrap(), expected);
        }
    }

    #[test]
    fn a_large_page_goes_out_in_pieces_of_whole_lines() {
        let mut pieces = Vec::new();
        let mut page = Pieces::new(Format::Classic, |piece: Bytes| {
            pieces.push(piece);
            Ok(())
        });
        for _ in 0..10_000 {
            page.write_str("a_line_of_twenty_ 12").unwrap();
            page.write_str("\n").unwrap();
        }
        page.finish().unwrap();
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 210_000);
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n")));
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES + 21));
    }
}
