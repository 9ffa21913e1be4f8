//! The only printer: answers on stdout (tables for people, JSON for programs), talk on stderr.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::failure::Failure;

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
}

impl Output {
    /// Prints an answer: `text` of it for people, all of it for programs.
    pub(crate) fn show<T: Serialize + ?Sized>(
        self,
        answer: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let printed = if self.json {
            serde_json::to_string_pretty(answer).map_err(anyhow::Error::from)?
        } else {
            text(answer)
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(printed.trim_end().as_bytes())?;
        stdout.write_all(b"\n")?;
        Ok(stdout.flush()?)
    }
}

/// Says why a subcommand failed. If even stderr is closed, the exit code has to do.
pub(crate) fn failure(failure: &Failure) {
    if let Some(message) = failure.message() {
        let _ = writeln!(io::stderr(), "error: {message}");
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Aligned to the left.
    Text(&'static str),
    /// Aligned to the right.
    Number(&'static str),
}

/// A table without lines or colours, so that it reads the same everywhere and `awk` can take it apart.
pub(crate) fn table<const N: usize>(
    columns: [Column; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.map(|column| match column {
        Column::Text(name) | Column::Number(name) => name,
    }));
    for row in rows {
        table.add_row(row.map(|cell| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell
            }
        }));
    }
    for (column, kind) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if let Column::Number(_) = kind {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    trim_lines(&table.to_string())
}

/// Names and values, one pair per line.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect();
    trim_lines(&lines.join("\n"))
}

/// Joins what is not empty, with a blank line in between.
pub(crate) fn sections<const N: usize>(sections: [String; N]) -> String {
    let sections: Vec<String> = sections
        .into_iter()
        .filter(|section| !section.is_empty())
        .collect();
    sections.join("\n\n")
}

/// `1 backend`, `2 backends`
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn trim_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_have_no_empty_cells() {
        let rows = [
            ["web".to_owned(), "7".to_owned()],
            [String::new(), "1234".to_owned()],
        ];
        let table = table([Column::Text("NAME"), Column::Number("PACKETS")], rows);
        assert_eq!(table, "NAME  PACKETS\nweb         7\n-        1234");
    }

    #[test]
    fn pairs_align() {
        let text = pairs(&[("pid", "7".to_owned()), ("config", "weir.toml".to_owned())]);
        assert_eq!(text, "pid     7\nconfig  weir.toml");
    }

    #[test]
    fn empty_sections_are_left_out() {
        let text = sections(["a".to_owned(), String::new(), "b".to_owned()]);
        assert_eq!(text, "a\n\nb");
    }
}
